//! How rows and records are stored: the fields that there were first, as they were, and behind them what came later. A
//! row that an earlier version wrote ends before that, and has none of it; an earlier version passes over what it does
//! not know. So there is nothing to convert when the agent is changed for a later or an earlier one.

use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::book::{Book, Record};
use super::more::{More, Phases};
use super::sums::Bucket;

/// Something with fields that came later; its own serialization leaves them out.
pub(super) trait Stored: Serialize + DeserializeOwned {
    /// They.
    type Later: Serialize + DeserializeOwned;
    /// Gives them.
    fn later(&self) -> Self::Later;
    /// Sets them.
    fn set_later(&mut self, later: Self::Later);
}

/// To bytes, behind those that there are.
pub(super) fn encode<T: Stored>(what: &T, bytes: Vec<u8>) -> Result<Vec<u8>> {
    let bytes = postcard::to_extend(what, bytes)?;
    Ok(postcard::to_extend(&what.later(), bytes)?)
}

/// From bytes, of this version or of the first.
pub(super) fn decode<T: Stored>(bytes: &[u8]) -> Result<T> {
    let (mut what, rest): (T, &[u8]) = postcard::take_from_bytes(bytes)?;
    if !rest.is_empty() {
        what.set_later(postcard::from_bytes(rest)?);
    }
    Ok(what)
}

impl Stored for Bucket {
    type Later = More;

    fn later(&self) -> More {
        self.more
    }

    fn set_later(&mut self, later: More) {
        self.more = later;
    }
}

impl Stored for Record {
    /// Private memory, and the parts of the start.
    type Later = (u64, Option<Phases>);

    fn later(&self) -> Self::Later {
        (self.gauges.private, self.phases)
    }

    fn set_later(&mut self, (private, phases): Self::Later) {
        self.gauges.private = private;
        self.phases = phases;
    }
}

impl Stored for Book {
    type Later = super::book::Later;

    fn later(&self) -> Self::Later {
        self.parts_of_later()
    }

    fn set_later(&mut self, later: Self::Later) {
        self.set_parts_of_later(later);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::accounts::more::Starts;
    use crate::accounts::sums::{Field, Gauges};
    use crate::accounts::tests::record;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2);
        let byte = |two: &[u8]| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap();
        digits.map(byte).collect()
    }

    /// As the first version wrote them: a record, the book into which it went, and the book's total.
    const RECORD: &str = "0161\
        0461636d6580a4a7da0601010301d20900000000000000000001010000000000000000000000000000098020804003";
    const BOOK: &str = "010103d2090000000000000000000100008040d2090000000000000000000100098040030180d4d4ab01d2090000000\
        00000000000010009804003018087a70ed20900000000000000000001000980400301a0c21ed20900000000000000000001000980400\
        380a4a7da06";
    const BUCKET: &str = "d209000000000000000000010009804003";

    fn first() -> Record {
        let mut first = record("a", 3, 1234);
        first.reading.set(Field::Starts, Some(1));
        first.more.set(Field::Dispatches, 9);
        first.gauges = Gauges {
            memory: 4096,
            memory_peak: 8192,
            pids: 3,
            private: 0,
        };
        first
    }

    #[test]
    fn what_the_first_version_wrote_is_read() {
        let old: Record = decode(&bytes(RECORD)).unwrap();
        assert_eq!(old, first());
        let mut book: Book = decode(&bytes(BOOK)).unwrap();
        let bucket: Bucket = decode(&bytes(BUCKET)).unwrap();
        assert_eq!(book.total, bucket);
        assert_eq!(bucket.sums.get(Field::Cpu), 1234);
        // And goes on: what was accounted then is not accounted again.
        let now = Record {
            phases: Some([1, 2, 3, 4, 5, 15]),
            ..first()
        };
        book.enter(&now);
        book.enter(&now);
        assert_eq!(book.total.sums.get(Field::Cpu), 1234);
        assert_eq!(book.total.more.starts, Starts::one([1, 2, 3, 4, 5, 15]));
        let again: Book = decode(&encode(&book, Vec::new()).unwrap()).unwrap();
        assert_eq!(again, book);
    }

    #[test]
    fn the_first_version_reads_what_is_written_now() {
        let mut now = first();
        now.gauges.private = 77;
        now.phases = Some([9; 6]);
        let written = encode(&now, Vec::new()).unwrap();
        assert!(written.starts_with(&bytes(RECORD)));
        assert_eq!(decode::<Record>(&written).unwrap(), now);
        for end in bytes(RECORD).len() + 1..written.len() {
            assert!(decode::<Record>(&written[..end]).is_err(), "torn at {end}");
        }
    }
}
