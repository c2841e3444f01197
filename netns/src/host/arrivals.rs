//! Data for containers that are frozen: the kernel tells of each packet with data for an address that is watched.

use super::sets::{DELETE_ELEMENT, FROZEN, NEW_ELEMENT, elements};
use crate::netlink::{self, Netlink};
use crate::nftables::begin;
use crate::notices::Notices;
use crate::{Error, Result};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

/// For notices that have not been read yet: those of some thousands of containers.
const UNREAD: usize = 4 << 20;

/// Tells of data for containers that are watched.
#[derive(Debug)]
pub struct Arrivals {
    notices: Notices,
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
        let notices = Notices::to(Netlink::open(netlink::NETFILTER)?)?;
        // It is enough for most without.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&notices, UNREAD);
        Ok(Self {
            notices,
            changes: Mutex::new(Netlink::open(netlink::NETFILTER)?),
        })
    }

    /// The group of the rule's notices.
    pub(super) fn group(&self) -> u16 {
        self.notices.group()
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
        let mut found = BTreeSet::new();
        let unread = self
            .notices
            .read(|header| found.extend(destination(header)))?;
        Ok(Told {
            addresses: found.into_iter().collect(),
            lost: unread.lost,
            more: unread.more,
        })
    }
}

/// Readable when something has been told.
impl AsFd for Arrivals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notices.as_fd()
    }
}

/// Where a packet went that begins so.
fn destination(header: &[u8]) -> Option<Ipv4Addr> {
    let destination: [u8; 4] = header.get(16..20)?.try_into().ok()?;
    (header[0] >> 4 == 4).then(|| destination.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn destinations_are_read(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let mut header = [0; 20];
            header[0] = 0x45;
            header[16..].copy_from_slice(&address.octets());
            prop_assert_eq!(destination(&header), Some(address));
        }

        #[test]
        fn any_header_is_survived(header in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(destination(&header).is_none() || header.len() >= 20);
        }
    }
}
