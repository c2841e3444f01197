//! Cutting a byte stream into lines of bounded length, and making them safe to show.

/// Longest line that is kept in one piece, in bytes.
pub(crate) const MAX_LINE: usize = 8 * 1024;

/// The unfinished end of a stream.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Whether no line is unfinished.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes the next bytes; calls `line` for each line, with true if it is only a part of one.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8], bool)) {
        let mut pieces = bytes.split(|b| *b == b'\n');
        // What follows the last line end (everything, if there is none).
        let tail = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.extend(piece, &mut line);
            let whole = self.rest.strip_suffix(b"\r").unwrap_or(&self.rest);
            line(whole, false);
            self.rest.clear();
        }
        self.extend(tail, &mut line);
    }

    /// Ends an unfinished line.
    pub(crate) fn finish(&mut self, mut line: impl FnMut(&[u8], bool)) {
        if !self.rest.is_empty() {
            line(&self.rest, false);
            self.rest.clear();
        }
    }

    fn extend(&mut self, mut piece: &[u8], line: &mut impl FnMut(&[u8], bool)) {
        while self.rest.len() + piece.len() > MAX_LINE {
            let (now, later) = piece.split_at(MAX_LINE - self.rest.len());
            self.rest.extend_from_slice(now);
            let end = character_boundary(&self.rest);
            line(self.rest.get(..end).unwrap_or_default(), true);
            self.rest.drain(..end);
            piece = later;
        }
        self.rest.extend_from_slice(piece);
    }
}

/// Where to cut so that no UTF-8 character that is still incomplete is torn.
fn character_boundary(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    for at in tail..bytes.len() {
        if let Some(Err(e)) = bytes.get(at..).map(std::str::from_utf8)
            && e.error_len().is_none()
            && e.valid_up_to() == 0
        {
            return at;
        }
    }
    bytes.len()
}

/// The text of a line: control characters other than tab, and bytes that are not UTF-8, become `\xNN`. In pieces of at
/// most `longest` bytes; true with all but the last.
pub(crate) fn printable(raw: &[u8], longest: usize) -> Vec<(String, bool)> {
    let mut pieces = Vec::with_capacity(1);
    let mut text = String::with_capacity(raw.len());
    let mut push = |part: &str| {
        if text.len() + part.len() > longest {
            pieces.push((std::mem::take(&mut text), true));
        }
        text.push_str(part);
    };
    let mut utf8 = [0u8; 4];
    for chunk in raw.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() && c != '\t' {
                for byte in c.encode_utf8(&mut utf8).bytes() {
                    push(&format!("\\x{byte:02x}"));
                }
            } else {
                push(c.encode_utf8(&mut utf8));
            }
        }
        for byte in chunk.invalid() {
            push(&format!("\\x{byte:02x}"));
        }
    }
    pieces.push((text, false));
    pieces
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn all(input: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let mut lines = Lines::default();
        let mut got = Vec::new();
        for bytes in input {
            lines.feed(bytes, |l, cut| got.push((l.to_vec(), cut)));
        }
        lines.finish(|l, cut| got.push((l.to_vec(), cut)));
        got
    }

    #[test]
    fn lines_across_reads() {
        let got = all(&[b"one\ntw", b"o\r\n\nlast"]);
        let text: Vec<_> = got
            .iter()
            .map(|(l, _)| std::str::from_utf8(l).unwrap())
            .collect();
        assert_eq!(text, ["one", "two", "", "last"]);
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let text = "ä".repeat(MAX_LINE);
        let got = all(&[b"x", text.as_bytes(), b"\n"]);
        assert_eq!(got.len(), 3);
        assert!(got[0].1 && got[1].1 && !got[2].1);
        for (l, _) in &got {
            assert!(l.len() <= MAX_LINE && std::str::from_utf8(l).is_ok());
        }
    }

    #[test]
    fn nothing_dangerous_is_shown() {
        let show = |raw: &[u8]| {
            printable(raw, MAX_LINE)
                .into_iter()
                .map(|(t, _)| t)
                .collect::<Vec<_>>()
                .join("|")
        };
        assert_eq!(show(b"a\tb"), "a\tb");
        assert_eq!(show(b"\x1b[31m\x00\xff"), "\\x1b[31m\\x00\\xff");
        assert_eq!(show("\u{9b}ü".as_bytes()), "\\xc2\\x9bü");
        assert_eq!(show(b""), "");
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_and_every_piece_is_bounded(raw in proptest::collection::vec(any::<u8>(), 0..40_000), at in 0usize..40_000) {
            let at = at.min(raw.len());
            let got = all(&[&raw[..at], &raw[at..]]);
            prop_assert!(got.iter().all(|(l, _)| l.len() <= MAX_LINE));
            let mut whole: Vec<u8> = Vec::new();
            for (l, cut) in &got {
                whole.extend(l);
                if !cut { whole.push(b'\n'); }
            }
            // Only carriage returns before a line end may be missing, and the last line has got an end.
            let strip = |v: &[u8]| v.iter().copied().filter(|b| *b != b'\r').collect::<Vec<u8>>();
            let mut expected = strip(&raw);
            if !expected.is_empty() && expected.last() != Some(&b'\n') { expected.push(b'\n'); }
            let got_bytes = strip(&whole);
            if got_bytes != expected { prop_assert_eq!(got_bytes.strip_suffix(b"\n").unwrap_or(&got_bytes), &expected[..]); }
        }

        #[test]
        fn pieces_are_bounded_and_clean(raw in proptest::collection::vec(any::<u8>(), 0..3000)) {
            for (text, _) in printable(&raw, 1000) {
                prop_assert!(text.len() <= 1000);
                prop_assert!(text.chars().all(|c| c == '\t' || !c.is_control()));
            }
        }
    }
}
