//! Data for containers that are frozen: the kernel tells of each packet with data for an address that is watched.

use super::sets::{DELETE_ELEMENT, FROZEN, NEW_ELEMENT, begin, elements};
use crate::attributes::{Batch, NLM_F_ACK, NLM_F_REQUEST, attributes, messages};
use crate::netlink::{self, Netlink};
use crate::{Error, Result};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

/// nfnetlink_log's messages.
const PACKET: u16 = 4 << 8;
const CONFIG: u16 = 4 << 8 | 1;
const CONFIG_COMMAND: u16 = 1;
const CONFIG_MODE: u16 = 2;
const CONFIG_BUFFER: u16 = 3;
const CONFIG_THRESHOLD: u16 = 5;
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const PAYLOAD: u16 = 9;
const NFGENMSG: usize = 4;
/// Each program that is told of packets has a group of its own: the first that is free from here on is taken.
const FIRST_GROUP: u16 = 0xfc00;
const GROUPS: u16 = 64;
/// An IPv4 header, of which the destination is wanted.
const COPIED: u32 = 20;
/// What the kernel sets aside for a notice; its own idea is a page.
const NOTICE: u32 = 256;
/// For notices that have not been read yet: those of some thousands of containers.
const UNREAD: usize = 4 << 20;
/// Notices that are read at a time.
const AT_ONCE: usize = 256;

/// Tells of data for containers that are watched.
#[derive(Debug)]
pub struct Arrivals {
    told: Netlink,
    group: u16,
    changes: Mutex<Netlink>,
}

/// What has been told since it was read last.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Data has come for these, each of which is named once.
    pub addresses: Vec<Ipv4Addr>,
    /// And for others that are not known: there were too many.
    pub lost: bool,
    /// There may be more to read at once.
    pub more: bool,
}

impl Arrivals {
    pub(super) fn open() -> Result<Self> {
        let mut told = Netlink::open(netlink::NETFILTER)?;
        let failed = |errno| Error::os("be told of packets", "by nfnetlink_log", errno);
        let mut last = Errno::BUSY;
        for group in FIRST_GROUP..FIRST_GROUP + GROUPS {
            match told.exchange(&mut bind(group), false, |_| {})? {
                Ok(()) => {
                    // It is enough for most without.
                    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&told, UNREAD);
                    return Ok(Self {
                        told,
                        group,
                        changes: Mutex::new(Netlink::open(netlink::NETFILTER)?),
                    });
                }
                // PERM: another program has that group.
                Err(refused) if [Errno::BUSY, Errno::PERM].contains(&refused.errno) => {
                    last = refused.errno;
                }
                Err(refused) => return Err(failed(refused.errno)),
            }
        }
        Err(failed(last))
    }

    /// The group of the rule's notices.
    pub(super) fn group(&self) -> u16 {
        self.group
    }

    /// Data for this address is told from now on, or no longer.
    pub(super) fn watch(&self, table: &str, address: Ipv4Addr, on: bool) -> Result<()> {
        let kind = if on { NEW_ELEMENT } else { DELETE_ELEMENT };
        let mut batch = begin();
        elements(
            &mut batch,
            kind,
            table,
            FROZEN,
            &[address.octets().to_vec()],
        );
        batch.end_transaction();
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        match changes.exchange(&mut batch, true, |_| {})? {
            Err(refused) if on || refused.errno != Errno::NOENT => {
                let object = format!("{address} in table {table}");
                Err(Error::os("watch for data to", object, refused.errno))
            }
            _ => Ok(()),
        }
    }

    /// What has been told, up to a number of notices: whoever sends without a pause does not keep the caller from attending to
    /// what it has been told. Does not wait.
    pub fn read(&self) -> Result<Told> {
        let (mut told, mut found) = (Told::default(), BTreeSet::new());
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        told.more = true;
        for _ in 0..AT_ONCE {
            match rustix::net::recv(&self.told, &mut buffer, RecvFlags::DONTWAIT) {
                Ok(((datagram, _), _)) => found.extend(addresses(datagram)),
                Err(Errno::AGAIN) => {
                    told.more = false;
                    break;
                }
                Err(Errno::NOBUFS) => told.lost = true,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::os("read from", "nfnetlink_log", errno)),
            }
        }
        told.addresses = found.into_iter().collect();
        Ok(told)
    }
}

/// Readable when something has been told.
impl AsFd for Arrivals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.told.as_fd()
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

/// Where the packets went that a datagram tells of.
fn addresses(datagram: &[u8]) -> impl Iterator<Item = Ipv4Addr> {
    let packets = messages(datagram).filter(|message| message.kind == PACKET);
    packets.filter_map(|message| {
        let rest = message.payload.get(NFGENMSG..)?;
        let (_, header) = attributes(rest).find(|(kind, _)| *kind == PAYLOAD)?;
        let destination: [u8; 4] = header.get(16..20)?.try_into().ok()?;
        (header[0] >> 4 == 4).then(|| destination.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn destinations_are_read(bits: u32, count in 1usize..4) {
            let address = Ipv4Addr::from_bits(bits);
            let mut header = [0; 20];
            header[0] = 0x45;
            header[16..].copy_from_slice(&address.octets());
            let mut batch = Batch::default();
            for _ in 0..count {
                batch.message(PACKET, 0, &[2, 0, 0, 0]);
                batch.attribute(1, &[8, 0, 4, 0]);
                batch.attribute(PAYLOAD, &header);
            }
            let bytes = batch.finish(1).to_vec();
            prop_assert_eq!(addresses(&bytes).collect::<Vec<_>>(), vec![address; count]);
        }

        #[test]
        fn any_datagram_is_survived(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut batch = Batch::default();
            batch.message(PACKET, 0, &payload);
            prop_assert!(addresses(batch.finish(1)).count() <= 1);
            let _ = addresses(&payload).count();
        }
    }
}
