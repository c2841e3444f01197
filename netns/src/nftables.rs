//! nf_tables over nfnetlink: what all of its messages begin with, and the two ends of a transaction.

use crate::attributes::{Batch, NLM_F_REQUEST};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// The upper byte of each message's type.
pub(crate) const SUBSYSTEM: u16 = 10;
/// struct nfgenmsg: family `inet`, version 0, no resource.
pub(crate) const GENERIC: [u8; NFGENMSG] = [1, 0, 0, 0];
pub(crate) const NFGENMSG: usize = 4;

/// A transaction that has begun; see [`Batch::end_transaction`].
pub(crate) fn begin() -> Batch {
    let mut batch = Batch::default();
    batch.message(BATCH_BEGIN, NLM_F_REQUEST, &transaction());
    batch
}

impl Batch {
    /// Nothing of it is in force before the kernel has this.
    pub(crate) fn end_transaction(&mut self) {
        self.trailer(BATCH_END, NLM_F_REQUEST, &transaction());
    }
}

/// struct nfgenmsg of a transaction's begin and end: the subsystem in network byte order.
fn transaction() -> [u8; NFGENMSG] {
    let subsystem = SUBSYSTEM.to_be_bytes();
    [0, 0, subsystem[0], subsystem[1]]
}
