//! Data over a namespace's own loopback: the kernel tells of it to whoever holds the socket that is opened here.
//!
//! The table with the rule belongs to that socket (Linux 5.12) and is gone with it, however its holder ends.

use crate::attributes::{Batch, NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST};
use crate::netlink::Netlink;
use crate::nftables::{GENERIC, SUBSYSTEM, begin};
use crate::notices::Notices;
use crate::{Error, Result};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const OWNER: u32 = 2;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const LOCAL_IN: u32 = 1;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
/// The one register that the rule uses.
const REGISTER: u32 = 1;
const META_REGISTER: u16 = 1;
const META_KEY: u16 = 2;
const META_IIF: u32 = 4;
const META_L4PROTO: u32 = 16;
const COMPARE_REGISTER: u16 = 1;
const COMPARE_HOW: u16 = 2;
const COMPARE_WITH: u16 = 3;
const EQUAL: u32 = 0;
const PAYLOAD_REGISTER: u16 = 1;
const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
const PAYLOAD_LENGTH: u16 = 4;
const TRANSPORT: u32 = 2;
const BITS_FROM: u16 = 1;
const BITS_TO: u16 = 2;
const BITS_LENGTH: u16 = 3;
const BITS_MASK: u16 = 4;
const BITS_XOR: u16 = 5;
const LOG_GROUP: u16 = 1;
/// `lo` has this index in every network namespace.
const LOOPBACK: u32 = 1;
const TCP: u8 = 6;
/// Offsets and lengths in a TCP header.
const DESTINATION_PORT: (u32, u32) = (2, 2);
const FLAGS: (u32, u32) = (13, 1);
const PUSH: u8 = 8;
const CHAIN: &str = "local";

/// Tells of data for one TCP port that comes over a namespace's own loopback. Costs one descriptor and holds the namespace.
///
/// Every write of data ends with a packet that has the flag `psh`, and of those it tells; what opens, keeps alive or ends a
/// connection has none. To drop it may take milliseconds: the kernel waits until no packet is with the rule any more.
#[derive(Debug)]
pub struct LocalArrivals(Notices);

impl LocalArrivals {
    /// `socket` has this number, which no other one of this process has had.
    pub(crate) fn new(socket: Netlink, number: u32, port: u16) -> Result<Self> {
        let mut notices = Notices::to(socket)?;
        let mut batch = table(&format!("local-{number:x}"), notices.group(), port);
        match notices.socket().exchange(&mut batch, true, |_| {})? {
            Ok(()) => Ok(Self(notices)),
            Err(refused) => Err(Error::os(
                "be told of data on loopback",
                "by a table that belongs to a socket (needs Linux 5.12 with nft_log)",
                refused.errno,
            )),
        }
    }

    /// Whether data has come since it was read last. Does not wait.
    pub fn read(&self) -> Result<bool> {
        let mut came = false;
        let unread = self.0.read(|_| came = true)?;
        Ok(came || unread.lost)
    }
}

/// Readable when data has come.
impl AsFd for LocalArrivals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for LocalArrivals {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// `iif lo meta l4proto tcp tcp dport PORT tcp flags & psh == psh log group GROUP`, in a table of its own.
fn table(name: &str, group: u16, port: u16) -> Batch {
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
    let mut batch = begin();
    batch.message(NEW_TABLE, flags, &GENERIC);
    batch.text(TABLE_NAME, name);
    batch.number(TABLE_FLAGS, OWNER);
    batch.message(NEW_CHAIN, flags, &GENERIC);
    batch.text(CHAIN_TABLE, name);
    batch.text(CHAIN_NAME, CHAIN);
    batch.nest(CHAIN_HOOK, |batch| {
        batch.number(HOOK_NUMBER, LOCAL_IN);
        batch.number(HOOK_PRIORITY, 0);
    });
    batch.text(CHAIN_TYPE, "filter");
    batch.message(NEW_RULE, flags, &GENERIC);
    batch.text(RULE_TABLE, name);
    batch.text(RULE_CHAIN, CHAIN);
    batch.nest(RULE_EXPRESSIONS, |batch| {
        batch.meta_is(META_IIF, &LOOPBACK.to_ne_bytes());
        batch.meta_is(META_L4PROTO, &[TCP]);
        batch.load(DESTINATION_PORT);
        batch.compare(&port.to_be_bytes());
        batch.load(FLAGS);
        batch.mask(PUSH);
        batch.compare(&[PUSH]);
        batch.expression("log", |batch| {
            batch.attribute(LOG_GROUP, &group.to_be_bytes());
        });
    });
    batch.end_transaction();
    batch
}

/// The expressions of a rule.
impl Batch {
    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.nest(ELEMENT, |batch| {
            batch.text(EXPRESSION_NAME, name);
            batch.nest(EXPRESSION_DATA, fill);
        });
    }

    fn meta_is(&mut self, key: u32, value: &[u8]) {
        self.expression("meta", |batch| {
            batch.number(META_KEY, key);
            batch.number(META_REGISTER, REGISTER);
        });
        self.compare(value);
    }

    fn load(&mut self, (offset, length): (u32, u32)) {
        self.expression("payload", |batch| {
            batch.number(PAYLOAD_REGISTER, REGISTER);
            batch.number(PAYLOAD_BASE, TRANSPORT);
            batch.number(PAYLOAD_OFFSET, offset);
            batch.number(PAYLOAD_LENGTH, length);
        });
    }

    /// Leaves these bits of the one byte that is loaded.
    fn mask(&mut self, bits: u8) {
        self.expression("bitwise", |batch| {
            batch.number(BITS_FROM, REGISTER);
            batch.number(BITS_TO, REGISTER);
            batch.number(BITS_LENGTH, 1);
            batch.nest(BITS_MASK, |batch| batch.attribute(DATA_VALUE, &[bits]));
            batch.nest(BITS_XOR, |batch| batch.attribute(DATA_VALUE, &[0]));
        });
    }

    fn compare(&mut self, with: &[u8]) {
        self.expression("cmp", |batch| {
            batch.number(COMPARE_REGISTER, REGISTER);
            batch.number(COMPARE_HOW, EQUAL);
            batch.nest(COMPARE_WITH, |batch| batch.attribute(DATA_VALUE, with));
        });
    }

    /// A number in network byte order, as all of nf_tables' are.
    fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }
}
