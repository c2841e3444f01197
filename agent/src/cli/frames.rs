//! Frames of `exec`, both ways over one connection: kind (1 byte), length (4 bytes, little endian), payload of at most 64 KiB.
//!
//! Pure: bytes in, frames out. fastctl and the agent share it.

/// Longest payload.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// Bytes before the payload.
const HEADER: usize = 5;
/// Protocol name of the `Upgrade` header.
pub const PROTOCOL: &str = "fastcontainer-exec";

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// To the command's standard input.
    Stdin(Vec<u8>),
    /// From the command's standard output (or its terminal).
    Stdout(Vec<u8>),
    /// From the command's standard error.
    Stderr(Vec<u8>),
    /// The command has ended with this code (128 + N if by signal N); nothing follows.
    Exit(i32),
    /// The terminal has this size now.
    Window {
        /// Lines.
        rows: u16,
        /// Characters a line.
        cols: u16,
    },
    /// Standard input has ended.
    StdinClosed,
}

/// Bytes that are no frame; the connection is of no use after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No frame has this kind.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// Longer than allowed, or of the wrong length for its kind.
    #[error("a frame of kind {kind} with {length} bytes")]
    Length {
        /// The kind.
        kind: u8,
        /// The length it claims.
        length: usize,
    },
}

impl Frame {
    fn kind(&self) -> u8 {
        match self {
            Frame::Stdin(_) => 0,
            Frame::Stdout(_) => 1,
            Frame::Stderr(_) => 2,
            Frame::Exit(_) => 3,
            Frame::Window { .. } => 4,
            Frame::StdinClosed => 5,
        }
    }

    /// Appends the frame's bytes; data longer than [`MAX_PAYLOAD`] becomes several frames.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Stdin(data) | Frame::Stdout(data) | Frame::Stderr(data) => {
                for piece in data.chunks(MAX_PAYLOAD) {
                    put(self.kind(), piece, out);
                }
            }
            Frame::Exit(code) => put(self.kind(), &code.to_le_bytes(), out),
            Frame::Window { rows, cols } => {
                let [a, b] = rows.to_le_bytes();
                let [c, d] = cols.to_le_bytes();
                put(self.kind(), &[a, b, c, d], out);
            }
            Frame::StdinClosed => put(self.kind(), &[], out),
        }
    }

    fn decode(kind: u8, payload: &[u8]) -> Result<Self, FrameError> {
        let wrong = FrameError::Length {
            kind,
            length: payload.len(),
        };
        match (kind, payload) {
            (0, data) => Ok(Frame::Stdin(data.to_vec())),
            (1, data) => Ok(Frame::Stdout(data.to_vec())),
            (2, data) => Ok(Frame::Stderr(data.to_vec())),
            (3, &[a, b, c, d]) => Ok(Frame::Exit(i32::from_le_bytes([a, b, c, d]))),
            (4, &[a, b, c, d]) => Ok(Frame::Window {
                rows: u16::from_le_bytes([a, b]),
                cols: u16::from_le_bytes([c, d]),
            }),
            (5, []) => Ok(Frame::StdinClosed),
            (3..=5, _) => Err(wrong),
            _ => Err(FrameError::Kind(kind)),
        }
    }
}

fn put(kind: u8, payload: &[u8], out: &mut Vec<u8>) {
    // At most MAX_PAYLOAD, so the length fits.
    out.push(kind);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
}

/// Puts frames together from bytes that arrive in pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// How much of the buffer has been given out.
    used: usize,
}

impl Decoder {
    /// Takes what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; None if more bytes are needed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let left = &self.buffer[self.used..];
        let Some((&[kind, a, b, c, d], rest)) = left.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        // Checked before waiting for the payload, so that a bad length costs no memory.
        if kind > 5 {
            return Err(FrameError::Kind(kind));
        }
        if length > MAX_PAYLOAD {
            return Err(FrameError::Length { kind, length });
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = Frame::decode(kind, payload)?;
        self.used += HEADER + length;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn data() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 1..300)
    }

    fn frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            data().prop_map(Frame::Stdin),
            data().prop_map(Frame::Stdout),
            data().prop_map(Frame::Stderr),
            any::<i32>().prop_map(Frame::Exit),
            any::<(u16, u16)>().prop_map(|(rows, cols)| Frame::Window { rows, cols }),
            Just(Frame::StdinClosed),
        ]
    }

    fn decode_in_pieces(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, FrameError> {
        let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
        for part in bytes.chunks(piece) {
            decoder.push(part);
            while let Some(frame) = decoder.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(frames in proptest::collection::vec(frame(), 0..20), piece in 1usize..400) {
            let mut bytes = Vec::new();
            frames.iter().for_each(|f| f.encode(&mut bytes));
            prop_assert_eq!(decode_in_pieces(&bytes, piece).unwrap(), frames);
        }

        #[test]
        fn garbage_is_an_error_or_waits_but_never_panics(bytes: Vec<u8>, piece in 1usize..40) {
            let _ = decode_in_pieces(&bytes, piece);
        }
    }

    #[test]
    fn layout_on_the_wire() {
        let mut out = Vec::new();
        Frame::Exit(-2).encode(&mut out);
        Frame::Window { rows: 24, cols: 80 }.encode(&mut out);
        Frame::StdinClosed.encode(&mut out);
        Frame::Stdin(b"hi".to_vec()).encode(&mut out);
        assert_eq!(
            out,
            b"\x03\x04\0\0\0\xfe\xff\xff\xff\x04\x04\0\0\0\x18\0\x50\0\x05\0\0\0\0\0\x02\0\0\0hi"
        );
    }

    #[test]
    fn long_data_is_split_and_too_long_a_frame_refused() {
        let mut out = Vec::new();
        Frame::Stdout(vec![7; MAX_PAYLOAD + 1]).encode(&mut out);
        let frames = decode_in_pieces(&out, 10_000).unwrap();
        let lengths: Vec<usize> = frames
            .iter()
            .map(|f| match f {
                Frame::Stdout(data) => data.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lengths, [MAX_PAYLOAD, 1]);
        let mut decoder = Decoder::default();
        decoder.push(&[1, 1, 0, 1, 0]);
        assert_eq!(
            decoder.next_frame(),
            Err(FrameError::Length {
                kind: 1,
                length: MAX_PAYLOAD + 1
            })
        );
        let mut decoder = Decoder::default();
        decoder.push(&[6, 0, 0, 0, 0]);
        assert_eq!(decoder.next_frame(), Err(FrameError::Kind(6)));
        let mut decoder = Decoder::default();
        decoder.push(&[3, 1, 0, 0, 0, 9]);
        assert_eq!(
            decoder.next_frame(),
            Err(FrameError::Length { kind: 3, length: 1 })
        );
    }
}
