//! FNV-1a with 64 bits: tells contents apart, the same in every build. Nobody gains by making two collide: what is hashed
//! is the operator's own.
//!
//! Source: <http://www.isthe.com/chongo/tech/comp/fnv/>.

/// A hash under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Adds bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    }

    /// Adds bytes and their end, so that two parts differ from the same bytes in one.
    pub(crate) fn add_part(&mut self, bytes: &[u8]) {
        self.add(bytes);
        self.add(&[0]);
    }

    /// The hash of what was added.
    pub(crate) fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the reference's test vectors.
    #[test]
    fn known_values() {
        for (text, value) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            let mut hash = Fnv::default();
            hash.add(text.as_bytes());
            assert_eq!(hash.value(), value, "{text}");
        }
    }
}
