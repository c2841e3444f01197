//! Packets with descriptors over `SOCK_SEQPACKET`.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use shim::protocol::{MAX_FDS, MAX_PACKET, Request};

use crate::report::{Done, Step, failure};

/// The one request that a process made ahead takes; None when the agent is gone.
pub(crate) fn request(socket: BorrowedFd<'_>) -> Done<Option<(Request, Vec<OwnedFd>)>> {
    let mut buffer = buffer();
    let Some((length, fds)) = receive(socket, &mut buffer)? else {
        return Ok(None);
    };
    match postcard::from_bytes(buffer.get(..length).unwrap_or_default()) {
        Ok(request) => Ok(Some((request, fds))),
        Err(_) => Err(failure("take over", "a request", libc::EBADMSG)),
    }
}

/// A buffer for the longest packet. Written to, or its pages would be made only when the packet is there; few need more.
fn buffer() -> Vec<u8> {
    let mut buffer = vec![0; MAX_PACKET];
    for page in buffer.chunks_mut(4096).take(2) {
        page.fill(1);
    }
    buffer
}

/// One packet and its descriptors; None at end of file.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Done<Option<(usize, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut iov = [IoSliceMut::new(buffer)];
        match recvmsg(socket, &mut iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            // The other end was closed with packets of ours unread.
            Err(Errno::CONNRESET) => return Ok(None),
            other => break other.step("receive", "a packet")?,
        }
    };
    let mut fds = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    if message
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(failure(
            "receive a request",
            "too long, or with too many descriptors",
            libc::EMSGSIZE,
        ));
    }
    Ok((message.bytes > 0).then_some((message.bytes, fds)))
}

/// Sends one.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    loop {
        match sendmsg(
            socket,
            &[IoSlice::new(bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        ) {
            Err(Errno::INTR) => {}
            other => return other.map(drop),
        }
    }
}
