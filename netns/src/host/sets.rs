//! Elements of the table's two sets, changed over a kept nfnetlink socket in one transaction.

use super::{Destination, Policy, Protocol};
use crate::attributes::{
    Batch, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, Received, attributes,
};
use crate::netlink::{self, Netlink, Refused};
use crate::nftables::{GENERIC, NFGENMSG, SUBSYSTEM, begin};
use crate::{Error, Result};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
pub(super) const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
const GET_ELEMENT: u16 = SUBSYSTEM << 8 | 13;
pub(super) const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;
const TABLE_NAME: u16 = 1;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS: u16 = 3;
const ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const DATA_VALUE: u16 = 1;
/// Elements in one message: its list must stay under 64 KiB.
const PER_MESSAGE: usize = 500;
const OUTBOUND: &str = "outbound";
const ALLOW: &str = "allow";
pub(super) const FROZEN: &str = "frozen";

/// The sets, and what is known to be in them.
#[derive(Debug)]
pub(super) struct Sets {
    socket: Netlink,
    table: String,
    known: BTreeMap<Ipv4Addr, Policy>,
}

impl Sets {
    pub(super) fn open(table: &str) -> Result<Self> {
        let socket = Netlink::open(netlink::NETFILTER)?;
        Ok(Self {
            socket,
            table: table.into(),
            known: BTreeMap::new(),
        })
    }

    /// Reads both sets from the kernel; without the table they are empty.
    pub(super) fn load(&mut self) -> Result<BTreeMap<Ipv4Addr, Policy>> {
        let mut read: BTreeMap<Ipv4Addr, Policy> = BTreeMap::new();
        for key in self.dump(OUTBOUND)? {
            if let Some(address) = read_outbound(&key) {
                read.entry(address).or_default().outbound = true;
            }
        }
        for key in self.dump(ALLOW)? {
            if let Some((address, destination)) = read_allow(&key) {
                read.entry(address).or_default().allow.insert(destination);
            }
        }
        self.known.clone_from(&read);
        Ok(read)
    }

    /// Makes `policy` all that holds for `address`.
    pub(super) fn replace(&mut self, address: Ipv4Addr, policy: &Policy) -> Result<()> {
        match self.change(address, policy)? {
            Ok(()) => {}
            // Somebody else has changed the sets: look, then do it once more.
            Err(Refused {
                errno: Errno::NOENT,
                ..
            }) => {
                self.load()?;
                let object = format!("{address} in table {}", self.table);
                self.change(address, policy)?.map_err(|refused| {
                    Error::os("set the network policy of", object, refused.errno)
                })?;
            }
            Err(refused) => {
                let object = format!("{address} in table {}", self.table);
                return Err(Error::os(
                    "set the network policy of",
                    object,
                    refused.errno,
                ));
            }
        }
        if *policy == Policy::default() {
            self.known.remove(&address);
        } else {
            self.known.insert(address, policy.clone());
        }
        Ok(())
    }

    pub(super) fn delete_table(&mut self) -> Result<()> {
        let mut batch = begin();
        batch.message(DELETE_TABLE, NLM_F_REQUEST | NLM_F_ACK, &GENERIC);
        batch.text(TABLE_NAME, &self.table);
        self.commit(batch)?.map_err(|refused| {
            Error::os("delete nftables table", self.table.as_str(), refused.errno)
        })
    }

    fn change(
        &mut self,
        address: Ipv4Addr,
        policy: &Policy,
    ) -> Result<std::result::Result<(), Refused>> {
        let nothing = Policy::default();
        let before = self.known.get(&address).unwrap_or(&nothing);
        let keys = |policy: &Policy, other: &Policy| -> Vec<Vec<u8>> {
            let only = policy.allow.difference(&other.allow);
            only.map(|to| allow_key(address, to).to_vec()).collect()
        };
        let outbound = |wanted: bool| match wanted {
            true => vec![address.octets().to_vec()],
            false => Vec::new(),
        };
        let mut batch = begin();
        let empty = batch.messages();
        let table = &self.table;
        let gone = outbound(before.outbound && !policy.outbound);
        elements(&mut batch, DELETE_ELEMENT, table, OUTBOUND, &gone);
        elements(
            &mut batch,
            DELETE_ELEMENT,
            table,
            ALLOW,
            &keys(before, policy),
        );
        let new = outbound(policy.outbound && !before.outbound);
        elements(&mut batch, NEW_ELEMENT, table, OUTBOUND, &new);
        elements(&mut batch, NEW_ELEMENT, table, ALLOW, &keys(policy, before));
        if batch.messages() == empty {
            Ok(Ok(()))
        } else {
            self.commit(batch)
        }
    }

    /// Ends the transaction and sends it. Its messages ask for acknowledgement, the begin and the
    /// end do not; what the begin is refused for ends everything.
    fn commit(&mut self, mut batch: Batch) -> Result<std::result::Result<(), Refused>> {
        batch.end_transaction();
        self.socket.exchange(&mut batch, true, |_| {})
    }

    fn dump(&mut self, set: &str) -> Result<Vec<Vec<u8>>> {
        let mut batch = Batch::default();
        batch.message(GET_ELEMENT, NLM_F_REQUEST | NLM_F_DUMP, &GENERIC);
        batch.text(ELEMENTS_TABLE, &self.table);
        batch.text(ELEMENTS_SET, set);
        let mut keys = Vec::new();
        match self
            .socket
            .exchange(&mut batch, false, |answer| keys.extend(read_keys(&answer)))?
        {
            Ok(()) => Ok(keys),
            Err(Refused {
                errno: Errno::NOENT,
                ..
            }) => Ok(Vec::new()),
            Err(refused) => Err(Error::os(
                "list nftables set",
                format!("{} of table {}", set, self.table),
                refused.errno,
            )),
        }
    }
}

pub(super) fn elements(batch: &mut Batch, kind: u16, table: &str, set: &str, keys: &[Vec<u8>]) {
    let create = if kind == NEW_ELEMENT { NLM_F_CREATE } else { 0 };
    for keys in keys.chunks(PER_MESSAGE) {
        batch.message(kind, NLM_F_REQUEST | NLM_F_ACK | create, &GENERIC);
        batch.text(ELEMENTS_TABLE, table);
        batch.text(ELEMENTS_SET, set);
        batch.nest(ELEMENTS, |batch| {
            for key in keys {
                batch.nest(ELEMENT, |batch| {
                    batch.nest(ELEMENT_KEY, |batch| batch.attribute(DATA_VALUE, key));
                });
            }
        });
    }
}

/// Source, protocol, destination, port: each begins on a four-byte boundary.
fn allow_key(source: Ipv4Addr, to: &Destination) -> [u8; 16] {
    let mut key = [0; 16];
    key[0..4].copy_from_slice(&source.octets());
    key[4] = to.protocol.number();
    key[8..12].copy_from_slice(&to.address.octets());
    key[12..14].copy_from_slice(&to.port.to_be_bytes());
    key
}

fn read_allow(key: &[u8]) -> Option<(Ipv4Addr, Destination)> {
    let key: &[u8; 16] = key.try_into().ok()?;
    let address = |at: usize| Ipv4Addr::new(key[at], key[at + 1], key[at + 2], key[at + 3]);
    let protocol = Protocol::from_number(key[4])?;
    let port = u16::from_be_bytes([key[12], key[13]]);
    Some((
        address(0),
        Destination {
            protocol,
            address: address(8),
            port,
        },
    ))
}

fn read_outbound(key: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(key).ok().map(Ipv4Addr::from)
}

/// The keys of the elements in one message of a dump.
fn read_keys(answer: &Received<'_>) -> Vec<Vec<u8>> {
    let find = |bytes, wanted| attributes(bytes).find(move |(kind, _)| *kind == wanted);
    let value = |bytes, wanted| find(bytes, wanted).map(|(_, value)| value);
    let rest = answer.payload.get(NFGENMSG..).unwrap_or_default();
    let list = value(rest, ELEMENTS).unwrap_or_default();
    attributes(list)
        .filter(|(kind, _)| *kind == ELEMENT)
        .filter_map(|(_, element)| value(value(element, ELEMENT_KEY)?, DATA_VALUE))
        .map(<[u8]>::to_vec)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::attributes::messages;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn elements_are_read_back(source: u32, address: u32, port: u16, udp: bool) {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let to = Destination { protocol, address: Ipv4Addr::from_bits(address), port };
            let source = Ipv4Addr::from_bits(source);
            let key = allow_key(source, &to).to_vec();
            let mut batch = Batch::default();
            elements(&mut batch, NEW_ELEMENT, "table", ALLOW, &[key.clone(), key.clone()]);
            let bytes = batch.finish(1).to_vec();
            let keys = read_keys(&messages(&bytes).next().unwrap());
            prop_assert_eq!(keys.len(), 2);
            prop_assert_eq!(read_allow(&keys[1]), Some((source, to)));
        }

        #[test]
        fn any_answer_is_survived(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let answer = Received { kind: NEW_ELEMENT, sequence: 1, payload: &payload };
            for key in read_keys(&answer) {
                let _ = (read_allow(&key), read_outbound(&key));
            }
        }
    }
}
