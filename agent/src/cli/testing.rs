//! Helpers of the tests: an output that can be read, and an agent that answers what it was told to.
#![allow(clippy::unwrap_used)]
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A writer whose content can be read and waited for.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<(Mutex<Vec<u8>>, Condvar)>);

impl Shared {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().unwrap().clone()).unwrap()
    }

    pub(crate) fn wait_for(&self, part: &str) {
        let has = |bytes: &Vec<u8>| bytes.windows(part.len()).any(|w| w == part.as_bytes());
        let guard = self.0.0.lock().unwrap();
        let (guard, waited) = self
            .0
            .1
            .wait_timeout_while(guard, Duration::from_secs(20), |bytes| !has(bytes))
            .unwrap();
        let seen = String::from_utf8_lossy(&guard).into_owned();
        assert!(!waited.timed_out(), "{part:?} never came, only {seen:?}");
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.0.lock().unwrap().extend_from_slice(bytes);
        self.0.1.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the agent was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// `GET /v1/vhosts`
    pub(crate) line: String,
    pub(crate) body: String,
}

/// One request and its connection, to be answered.
pub(crate) struct Request {
    pub(crate) stream: UnixStream,
}

impl Request {
    /// Answers with a status, a content type and a body of known length.
    pub(crate) fn answer(mut self, status: &str, headers: &str, body: &str) {
        let length = body.len();
        // The client may be gone already: that is what some tests are about.
        let _ = self.stream.write_all(
            format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}").as_bytes(),
        );
    }

    /// Begins an answer of chunks.
    pub(crate) fn begin_chunks(&mut self) {
        self.stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .unwrap();
    }

    /// One chunk; empty ends the answer.
    pub(crate) fn chunk(&mut self, data: &[u8]) {
        let mut bytes = format!("{:x}\r\n", data.len()).into_bytes();
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(b"\r\n");
        let _ = self.stream.write_all(&bytes);
    }
}

/// An agent: answers as many requests as it was told to, one after another.
pub(crate) struct FakeAgent {
    _dir: tempfile::TempDir,
    pub(crate) socket: PathBuf,
    thread: Option<JoinHandle<Vec<Asked>>>,
}

impl FakeAgent {
    /// `answer` gets the number of the request.
    pub(crate) fn new(
        requests: usize,
        mut answer: impl FnMut(usize, Request) + Send + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let thread = std::thread::spawn(move || {
            (0..requests)
                .map(|n| {
                    let (stream, _) = listener.accept().unwrap();
                    let asked = read_request(&stream);
                    answer(n, Request { stream });
                    asked
                })
                .collect()
        });
        Self {
            _dir: dir,
            socket,
            thread: Some(thread),
        }
    }

    /// Always the same answer.
    pub(crate) fn answering(
        status: &'static str,
        headers: &'static str,
        body: impl Into<String>,
    ) -> Self {
        let body = body.into();
        Self::new(1, move |_, request| request.answer(status, headers, &body))
    }

    /// What it was asked, after all requests have come.
    pub(crate) fn asked(mut self) -> Vec<Asked> {
        self.thread.take().unwrap().join().unwrap()
    }
}

fn read_request(stream: &UnixStream) -> Asked {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let length = head.iter().find_map(|l| {
        let (name, value) = l.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    Asked {
        line: head[0].trim_end_matches(" HTTP/1.1").to_owned(),
        body: String::from_utf8(body).unwrap(),
    }
}
