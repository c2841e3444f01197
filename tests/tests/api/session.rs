//! A session of `exec`, frame by frame.

use super::*;

pub(crate) const STDIN: u8 = 0;
pub(crate) const STDOUT: u8 = 1;
pub(crate) const STDERR: u8 = 2;
pub(crate) const EXIT: u8 = 3;
pub(crate) const WINDOW: u8 = 4;
pub(crate) const STDIN_CLOSED: u8 = 5;

/// A session.
pub(crate) struct Session {
    pub(crate) client: Client,
    bytes: Vec<u8>,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Session {
    pub(crate) fn ask(socket: &Path, vhost: &str, asked: &Value) -> (Client, String) {
        let mut client = Client::connect(socket).unwrap();
        let path = format!("/v1/vhosts/{vhost}/exec");
        client
            .send(
                "POST",
                &path,
                "Connection: Upgrade\r\nUpgrade: fastcontainer-exec\r\n",
                &body(asked),
            )
            .unwrap();
        let head = client.head().unwrap();
        (client, head)
    }

    pub(crate) fn begin(socket: &Path, asked: &Value) -> Self {
        let (client, head) = Self::ask(socket, "a.example.com", asked);
        assert_eq!(harness::client::status(&head), 101, "{head}");
        Self::of(client)
    }

    pub(crate) fn of(client: Client) -> Self {
        Self {
            client,
            bytes: Vec::new(),
            out: Vec::new(),
            err: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, kind: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
        let frame = [&[kind][..], &length, payload].concat();
        self.client.stream().write_all(&frame).unwrap();
    }

    /// Reads one frame; the exit code if it was that.
    pub(crate) fn step(&mut self) -> Option<i32> {
        loop {
            if let Some((head, rest)) = self.bytes.split_at_checked(5) {
                let length = u32::from_le_bytes(head[1..].try_into().unwrap()) as usize;
                if rest.len() >= length {
                    let (kind, payload) = (head[0], rest[..length].to_vec());
                    self.bytes.drain(..5 + length);
                    match kind {
                        STDOUT => self.out.extend(payload),
                        STDERR => self.err.extend(payload),
                        EXIT => return Some(i32::from_le_bytes(payload.try_into().unwrap())),
                        other => panic!("a frame of kind {other}"),
                    }
                    return None;
                }
            }
            self.bytes.extend(
                self.client
                    .take()
                    .expect("the command's end is told before the connection's"),
            );
        }
    }

    /// Reads until the command has said something.
    pub(crate) fn until(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.out).contains(text) {
            assert_eq!(
                self.step(),
                None,
                "ended: {:?} {:?}",
                String::from_utf8_lossy(&self.out),
                String::from_utf8_lossy(&self.err)
            );
        }
    }

    /// Reads to the end: code, output, errors.
    pub(crate) fn end(mut self) -> (i32, String, String) {
        loop {
            if let Some(code) = self.step() {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                return (code, text(&self.out), text(&self.err));
            }
        }
    }
}
