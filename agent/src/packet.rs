//! Packets with descriptors over `SOCK_SEQPACKET` sockets, for tokio.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use shim::protocol::MAX_FDS;
use tokio::io::unix::AsyncFd;

/// A packet that came in.
#[derive(Debug)]
pub(crate) struct Received {
    /// Bytes of the buffer that were filled; 0 is the end.
    pub(crate) length: usize,
    /// Descriptors that came with it.
    pub(crate) fds: Vec<OwnedFd>,
    /// Pid of the sender in our pid namespace, where the socket has SO_PASSCRED.
    pub(crate) sender: Option<i32>,
}

/// Sends one packet, with descriptors.
pub(crate) async fn send(
    socket: &AsyncFd<OwnedFd>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    loop {
        let mut guard = socket.writable().await?;
        match guard.try_io(|socket| send_now(socket.get_ref(), bytes, fds)) {
            Ok(result) => return result,
            Err(_would_block) => continue,
        }
    }
}

/// The same where there is room for it, as in a socket that nothing has been sent on.
pub(crate) fn send_now(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors for one packet",
        ));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let bytes = [io::IoSlice::new(bytes)];
    rustix::net::sendmsg(socket, &bytes, &mut control, flags)?;
    Ok(())
}

/// Receives one packet.
pub(crate) async fn receive(socket: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<Received> {
    loop {
        let mut guard = socket.readable().await?;
        match guard.try_io(|socket| receive_now(socket.get_ref(), buffer)) {
            Ok(result) => return result,
            Err(_would_block) => continue,
        }
    }
}

fn receive_now(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = rustix::net::recvmsg(
        socket,
        &mut [io::IoSliceMut::new(buffer)],
        &mut control,
        flags,
    )?;
    let mut received = Received {
        length: message.bytes,
        fds: Vec::new(),
        sender: None,
    };
    for part in control.drain() {
        match part {
            RecvAncillaryMessage::ScmRights(fds) => received.fds.extend(fds),
            RecvAncillaryMessage::ScmCredentials(creds) => {
                received.sender = Some(creds.pid.as_raw_nonzero().get())
            }
            _ => {}
        }
    }
    Ok(received)
}
