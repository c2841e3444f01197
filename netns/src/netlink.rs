//! A blocking netlink socket: sends one batch, reads until its last message is answered.

use crate::attributes::{Batch, Received, messages};
use crate::{Error, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The kernel fills dumps in chunks of at most 32 KiB, less when the reader's buffer is smaller.
const BUFFER: usize = 16 * 1024;
/// The kernel answers at once; this only keeps a lost answer from hanging the caller for ever.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// No process has a number from here on, so that no socket that the kernel gives its process's number has one.
const FIRST_NUMBER: u32 = 1 << 31;
/// Numbers that are tried: somebody else may have one.
const NUMBERS: u32 = 64;

/// rtnetlink. Its number is 0, which is what "no protocol" means to socket(2).
pub(crate) const ROUTE: Option<Protocol> = None;
/// sock_diag.
pub(crate) const SOCK_DIAG: Option<Protocol> = Some(rustix::net::netlink::SOCK_DIAG);
/// nfnetlink.
pub(crate) const NETFILTER: Option<Protocol> = Some(rustix::net::netlink::NETFILTER);

/// A netlink socket of one protocol, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

/// A message of a batch was refused: its index in the batch, and the errno.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    pub(crate) index: u32,
    pub(crate) errno: Errno,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open(protocol: Option<Protocol>) -> Result<Self> {
        let failed = |source| Error::os("open netlink socket", format!("{protocol:?}"), source);
        let flags = SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)
            .map_err(failed)?;
        rustix::net::sockopt::set_socket_timeout(
            &fd,
            rustix::net::sockopt::Timeout::Recv,
            Some(ANSWER_WITHIN),
        )
        .map_err(failed)?;
        Ok(Self { fd, sequence: 1 })
    }

    /// [`Self::open`] with a number of its own (the kernel's portid), which no other socket of this process has had.
    ///
    /// What belongs to a socket is found by that number when the socket is closed: a moment after the next one may have been
    /// given the same, whose things would go then.
    pub(crate) fn open_numbered(protocol: Option<Protocol>) -> Result<(Self, u32)> {
        static NEXT: AtomicU32 = AtomicU32::new(FIRST_NUMBER);
        let socket = Self::open(protocol)?;
        let mut last = Errno::ADDRINUSE;
        for _ in 0..NUMBERS {
            let number = NEXT.fetch_add(1, Ordering::Relaxed) | FIRST_NUMBER;
            match rustix::net::bind(&socket.fd, &SocketAddrNetlink::new(number, 0)) {
                Ok(()) => return Ok((socket, number)),
                Err(Errno::ADDRINUSE) => {}
                Err(errno) => {
                    last = errno;
                    break;
                }
            }
        }
        Err(Error::os(
            "number netlink socket",
            format!("{protocol:?}"),
            last,
        ))
    }

    /// Sends the batch and hands every answer that is not an acknowledgement to `on`. Ends when
    /// the last message is acknowledged, refused or its dump is done, or when the first message is
    /// refused and `first_is_final` says that the kernel then answers nothing else.
    ///
    /// The outer error is the socket's; the inner one is the first message that was refused.
    pub(crate) fn exchange(
        &mut self,
        batch: &mut Batch,
        first_is_final: bool,
        mut on: impl FnMut(Received<'_>),
    ) -> Result<std::result::Result<(), Refused>> {
        let first = self.sequence;
        let count = batch.messages();
        let last = batch.last_answered();
        self.sequence = first.wrapping_add(count);
        let bytes = batch.finish(first);
        rustix::net::send(&self.fd, bytes, SendFlags::empty())
            .map_err(|source| Error::os("send to", "netlink", source))?;
        let mut refused: Option<Refused> = None;
        let mut buffer = [MaybeUninit::<u8>::uninit(); BUFFER];
        loop {
            let ((datagram, _), length) =
                match rustix::net::recv(&self.fd, &mut buffer, RecvFlags::TRUNC) {
                    Err(Errno::INTR) => continue,
                    other => other.map_err(|source| Error::os("read from", "netlink", source))?,
                };
            if length > datagram.len() {
                return Err(Error::os("read from", "netlink", Errno::MSGSIZE));
            }
            let mut finished = false;
            for message in messages(datagram) {
                let index = message.sequence.wrapping_sub(first);
                if index >= count {
                    continue; // the late answer to a request that was given up
                }
                let last = index == last;
                match message.kind {
                    NLMSG_ERROR => {
                        let failure = errno(message.payload);
                        if let Some(errno) = failure {
                            refused.get_or_insert(Refused { index, errno });
                        }
                        finished |= last || (failure.is_some() && first_is_final && index == 0);
                    }
                    NLMSG_DONE => {
                        if let Some(errno) = errno(message.payload) {
                            refused.get_or_insert(Refused { index, errno });
                        }
                        finished |= last;
                    }
                    _ => on(message),
                }
            }
            if finished {
                return Ok(refused.map_or(Ok(()), Err));
            }
        }
    }

    /// Sends a request that is answered by exactly one message or by a refusal.
    pub(crate) fn ask<T>(
        &mut self,
        batch: &mut Batch,
        mut read: impl FnMut(Received<'_>) -> Option<T>,
    ) -> Result<std::result::Result<Option<T>, Errno>> {
        let first = self.sequence;
        self.sequence = first.wrapping_add(batch.messages());
        let bytes = batch.finish(first);
        rustix::net::send(&self.fd, bytes, SendFlags::empty())
            .map_err(|source| Error::os("send to", "netlink", source))?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); BUFFER];
        loop {
            let ((datagram, _), _) =
                match rustix::net::recv(&self.fd, &mut buffer, RecvFlags::empty()) {
                    Err(Errno::INTR) => continue,
                    other => other.map_err(|source| Error::os("read from", "netlink", source))?,
                };
            if let Some(message) = messages(datagram).find(|message| message.sequence == first) {
                return Ok(match message.kind {
                    NLMSG_ERROR => errno(message.payload).map_or(Ok(None), Err),
                    _ => Ok(read(message)),
                });
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The errno in an NLMSG_ERROR or NLMSG_DONE payload; none for success.
fn errno(payload: &[u8]) -> Option<Errno> {
    let value = i32::from_ne_bytes(payload.get(..4)?.try_into().ok()?);
    // Only -4095..=-1 are errnos; anything else there is a plain end of a dump.
    (-4095..0)
        .contains(&value)
        .then(|| Errno::from_raw_os_error(-value))
}
