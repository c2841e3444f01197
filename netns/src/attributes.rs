//! Netlink messages as bytes: a small encoder, and iterators that never panic on any input.

pub(crate) const HEADER: usize = 16;
pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// Several netlink messages, one after the other, to be sent at once.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    /// Whether the last message is one that is never answered.
    trailer: bool,
}

impl Batch {
    /// Starts a message; the body (the protocol's fixed header) follows the netlink header.
    pub(crate) fn message(&mut self, kind: u16, flags: u16, body: &[u8]) {
        self.close();
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(body);
        self.pad();
    }

    /// Adds an attribute to the message begun last.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("attributes here are short");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Adds an attribute whose value is text with its terminating NUL.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    /// Adds an attribute whose value is the attributes that `fill` adds.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes
            .extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).expect("callers bound their lists");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Numbers the messages from `first` and gives the bytes to send.
    pub(crate) fn finish(&mut self, first: u32) -> &[u8] {
        self.close();
        for (index, &start) in self.starts.iter().enumerate() {
            let sequence = first.wrapping_add(index as u32);
            self.bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
        }
        &self.bytes
    }

    /// Ends the batch with a message that the kernel does not answer.
    pub(crate) fn trailer(&mut self, kind: u16, flags: u16, body: &[u8]) {
        self.message(kind, flags, body);
        self.trailer = true;
    }

    /// The number of messages.
    pub(crate) fn messages(&self) -> u32 {
        self.starts.len() as u32
    }

    /// The index of the last message that is answered.
    pub(crate) fn last_answered(&self) -> u32 {
        self.messages().saturating_sub(1 + u32::from(self.trailer))
    }

    fn close(&mut self) {
        if let Some(&start) = self.starts.last() {
            let length = (self.bytes.len() - start) as u32;
            self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        }
    }

    fn pad(&mut self) {
        self.bytes.resize(align(self.bytes.len()), 0);
    }
}

/// One received message: its type, its sequence number and what follows the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages in a received datagram; stops at the first that is cut short.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let payload = bytes.get(HEADER..length)?;
        let message = Received {
            kind: u16_at(bytes, 4)?,
            sequence: u32_at(bytes, 8)?,
            payload,
        };
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes (type without flag bits, value) in `bytes`; stops at the first that is cut short.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let value = bytes.get(4..length)?;
        let kind = u16_at(bytes, 2)? & NLA_TYPE_MASK;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_encoded_is_read_back() {
        let mut batch = Batch::default();
        batch.message(7, NLM_F_REQUEST, &[1, 2, 3, 4]);
        batch.text(1, "abc");
        batch.nest(2, |batch| batch.attribute(3, &[9]));
        batch.message(8, NLM_F_REQUEST, &[]);
        let bytes = batch.finish(40).to_vec();
        let read: Vec<_> = messages(&bytes).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].kind, read[0].sequence), (7, 40));
        assert_eq!((read[1].kind, read[1].sequence), (8, 41));
        let found: Vec<_> = attributes(&read[0].payload[4..]).collect();
        assert_eq!(found[0], (1, &b"abc\0"[..]));
        assert_eq!(found[1].0, 2);
        assert_eq!(attributes(found[1].1).next().unwrap(), (3, &[9][..]));
    }

    proptest! {
        #[test]
        fn any_bytes_end_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for message in messages(&bytes) {
                prop_assert!(attributes(message.payload).count() <= message.payload.len() / 4 + 1);
            }
        }

        #[test]
        fn small_lengths_do_not_loop(lengths in proptest::collection::vec(0u8..24, 0..200)) {
            prop_assert!(attributes(&lengths).count() <= lengths.len());
            prop_assert!(messages(&lengths).count() <= lengths.len());
        }
    }
}
