//! Makes text that a tenant may have written harmless for a terminal.
//!
//! Neutralised are: all control characters (C0, DEL, C1: cursor movement, window titles, answer-back, key remapping), bytes
//! that are not UTF-8 (0x9b alone is CSI on some terminals), and invisible characters that reorder or hide text.
use std::borrow::Cow;
use std::fmt::Write as _;

/// True for a character that must not reach a terminal as it is.
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn escape(c: char, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = match c {
        '\n' => write!(out, "\\n"),
        '\r' => write!(out, "\\r"),
        '\t' => write!(out, "\\t"),
        c if (c as u32) < 0x100 => write!(out, "\\x{:02x}", c as u32),
        c => write!(out, "\\u{{{:x}}}", c as u32),
    };
}

/// The text as one harmless line.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_harmful(c) {
            escape(c, &mut out);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// JSON text with harmful characters as JSON escapes: still the same JSON.
pub(crate) fn clean_json(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) && !matches!(c, '\n' | '\r' | '\t') {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Cleans a stream that arrives in pieces cut anywhere; line feeds and tabs stay.
#[derive(Debug, Default)]
pub(crate) struct Cleaner {
    /// An unfinished UTF-8 character of the last piece, at most 3 bytes.
    rest: Vec<u8>,
}

impl Cleaner {
    /// The next piece, made harmless.
    pub(crate) fn push(&mut self, piece: &[u8]) -> String {
        self.rest.extend_from_slice(piece);
        let bytes = std::mem::take(&mut self.rest);
        let mut out = String::with_capacity(bytes.len());
        let mut left = &bytes[..];
        loop {
            match std::str::from_utf8(left) {
                Ok(text) => {
                    clean_lines(text, &mut out);
                    return out;
                }
                Err(error) => {
                    let (good, bad) = left.split_at(error.valid_up_to());
                    clean_lines(&String::from_utf8_lossy(good), &mut out);
                    let Some(length) = error.error_len() else {
                        self.rest = bad.to_vec();
                        return out;
                    };
                    hex(&bad[..length], &mut out);
                    left = &bad[length..];
                }
            }
        }
    }

    /// What is left when the stream ends.
    pub(crate) fn finish(&mut self) -> String {
        let mut out = String::new();
        hex(&std::mem::take(&mut self.rest), &mut out);
        out
    }
}

fn clean_lines(text: &str, out: &mut String) {
    for c in text.chars() {
        if is_harmful(c) && c != '\n' && c != '\t' {
            escape(c, out);
        } else {
            out.push(c);
        }
    }
}

fn hex(bytes: &[u8], out: &mut String) {
    for b in bytes {
        let _ = write!(out, "\\x{b:02x}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escape_sequences_are_shown_not_sent() {
        assert_eq!(clean("plain ünï 網"), "plain ünï 網");
        assert_eq!(clean("\x1b]0;owned\x07"), "\\x1b]0;owned\\x07");
        assert_eq!(clean("a\nb\r\t\u{9b}31m\u{7f}"), "a\\nb\\r\\t\\x9b31m\\x7f");
        assert_eq!(clean("\u{202e}moc.elpmaxe"), "\\u{202e}moc.elpmaxe");
    }

    #[test]
    fn json_stays_the_same_json() {
        let before =
            serde_json::to_vec(&serde_json::json!({"a": "\u{9b}1m\u{202e}\u{e0041}\x1b ok"}))
                .unwrap();
        let after = clean_json(&before);
        assert!(!after.chars().any(is_harmful));
        let (a, b): (serde_json::Value, serde_json::Value) = (
            serde_json::from_slice(&before).unwrap(),
            serde_json::from_str(&after).unwrap(),
        );
        assert_eq!(a, b);
    }

    #[test]
    fn a_character_cut_in_two_survives() {
        let mut cleaner = Cleaner::default();
        assert_eq!(cleaner.push(b"gr\xc3"), "gr");
        assert_eq!(cleaner.push(b"\xbc\xc3\x9fe\n"), "üße\n");
        assert_eq!(cleaner.push(b"\x9b31m\xe2\x82"), "\\x9b31m");
        assert_eq!(cleaner.finish(), "\\xe2\\x82");
        assert_eq!(cleaner.finish(), "");
    }

    proptest! {
        #[test]
        fn nothing_harmful_passes_however_it_is_cut(bytes: Vec<u8>, cuts in proptest::collection::vec(0usize..64, 0..8)) {
            let mut whole = Cleaner::default();
            let mut expected = whole.push(&bytes);
            expected += &whole.finish();
            prop_assert!(!expected.chars().any(|c| is_harmful(c) && c != '\n' && c != '\t'));
            let mut pieces = Cleaner::default();
            let (mut out, mut left) = (String::new(), &bytes[..]);
            for cut in cuts {
                let (now, later) = left.split_at(cut.min(left.len()));
                out += &pieces.push(now);
                left = later;
            }
            out += &pieces.push(left);
            out += &pieces.finish();
            prop_assert_eq!(out, expected);
        }
    }
}
