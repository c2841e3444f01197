//! nfnetlink_log: what the kernel tells a socket of packets that a rule logs to the socket's group.

use crate::attributes::{Batch, NLM_F_ACK, NLM_F_REQUEST, attributes, messages};
use crate::netlink::Netlink;
use crate::nftables::NFGENMSG;
use crate::{Error, Result};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::mem::MaybeUninit;

const PACKET: u16 = 4 << 8;
const CONFIG: u16 = 4 << 8 | 1;
const CONFIG_COMMAND: u16 = 1;
const CONFIG_MODE: u16 = 2;
const CONFIG_BUFFER: u16 = 3;
const CONFIG_THRESHOLD: u16 = 5;
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const PAYLOAD: u16 = 9;
/// Each socket that is told of packets has a group of its own: the first that is free from here on is taken.
const FIRST_GROUP: u16 = 0xfc00;
const GROUPS: u16 = 64;
/// An IPv4 header, of which the destination is wanted.
const COPIED: u32 = 20;
/// What the kernel sets aside for a notice; its own idea is a page.
const NOTICE: u32 = 256;
/// Notices that are read at a time.
const AT_ONCE: usize = 256;

/// A socket with a group of its own.
#[derive(Debug)]
pub(crate) struct Notices {
    socket: Netlink,
    group: u16,
}

/// What else there is to know of notices that have been read.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    /// There were too many: some are lost.
    pub(crate) lost: bool,
    /// There may be more to read at once.
    pub(crate) more: bool,
}

impl Notices {
    /// Gives a socket a group, in the socket's network namespace.
    pub(crate) fn to(mut socket: Netlink) -> Result<Self> {
        let failed = |errno| Error::os("be told of packets", "by nfnetlink_log", errno);
        let mut last = Errno::BUSY;
        for group in FIRST_GROUP..FIRST_GROUP + GROUPS {
            match socket.exchange(&mut bind(group), false, |_| {})? {
                Ok(()) => return Ok(Self { socket, group }),
                // PERM: another socket has that group.
                Err(refused) if [Errno::BUSY, Errno::PERM].contains(&refused.errno) => {
                    last = refused.errno;
                }
                Err(refused) => return Err(failed(refused.errno)),
            }
        }
        Err(failed(last))
    }

    /// The group that a rule has to log to.
    pub(crate) fn group(&self) -> u16 {
        self.group
    }

    /// For a rule that goes with the socket. What is told meanwhile is not to be read any more.
    pub(crate) fn socket(&mut self) -> &mut Netlink {
        &mut self.socket
    }

    /// Hands the first bytes of each packet to `on`, up to a number of notices: whoever sends without a pause does not keep
    /// the caller from attending to what it has been told. Does not wait.
    pub(crate) fn read(&self, mut on: impl FnMut(&[u8])) -> Result<Unread> {
        let mut unread = Unread {
            lost: false,
            more: true,
        };
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        for _ in 0..AT_ONCE {
            match rustix::net::recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
                Ok(((datagram, _), _)) => headers(datagram).for_each(&mut on),
                Err(Errno::AGAIN) => {
                    unread.more = false;
                    break;
                }
                Err(Errno::NOBUFS) => unread.lost = true,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::os("read from", "nfnetlink_log", errno)),
            }
        }
        Ok(unread)
    }
}

/// Readable when something has been told.
impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Asks for each notice of a group at once, with the header of its packet.
fn bind(group: u16) -> Batch {
    let [high, low] = group.to_be_bytes();
    let mut batch = Batch::default();
    batch.message(CONFIG, NLM_F_REQUEST | NLM_F_ACK, &[0, 0, high, low]);
    batch.attribute(CONFIG_COMMAND, &[BIND]);
    let mut mode = [0; 6];
    mode[..4].copy_from_slice(&COPIED.to_be_bytes());
    mode[4] = COPY_PACKET;
    batch.attribute(CONFIG_MODE, &mode);
    batch.attribute(CONFIG_BUFFER, &NOTICE.to_be_bytes());
    batch.attribute(CONFIG_THRESHOLD, &1u32.to_be_bytes());
    batch
}

/// How the packets begin that a datagram tells of.
fn headers(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let packets = messages(datagram).filter(|message| message.kind == PACKET);
    packets.filter_map(|message| {
        let rest = message.payload.get(NFGENMSG..)?;
        let (_, header) = attributes(rest).find(|(kind, _)| *kind == PAYLOAD)?;
        Some(header)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packets_are_read(header: [u8; 20], count in 1usize..4) {
            let mut batch = Batch::default();
            for _ in 0..count {
                batch.message(PACKET, 0, &[2, 0, 0, 0]);
                batch.attribute(1, &[8, 0, 4, 0]);
                batch.attribute(PAYLOAD, &header);
            }
            let bytes = batch.finish(1).to_vec();
            prop_assert_eq!(headers(&bytes).collect::<Vec<_>>(), vec![header; count]);
        }

        #[test]
        fn any_datagram_is_survived(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut batch = Batch::default();
            batch.message(PACKET, 0, &payload);
            prop_assert!(headers(batch.finish(1)).count() <= 1);
            let _ = headers(&payload).count();
        }
    }
}
