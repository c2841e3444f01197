//! A connection to the agent that is kept, and connections as other users.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{Gid, Uid};

use crate::http::Answer;

/// A kept connection.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(crate::seconds(60)))?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// The connection itself.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends one request.
    pub fn send(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> io::Result<()> {
        let mut bytes = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        self.stream.write_all(&bytes)
    }

    /// Sends one request and reads its answer.
    pub fn request(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        self.send(method, path, "", body)?;
        self.answer()
    }

    /// Reads one answer with a Content-Length; what follows it stays for the next call.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let head = self.head()?;
        let length = header(&head, "content-length")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        while self.buffer.len() < length {
            self.more()?;
        }
        let body = self.buffer.drain(..length).collect();
        Ok(Answer {
            status: status(&head),
            head,
            body,
        })
    }

    /// Reads the head of an answer; its body is left to [`Self::take`].
    pub fn head(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 4);
                return Ok(head);
            }
            self.more()?;
        }
    }

    /// What has been read and not been used yet, after waiting for at least one byte.
    pub fn take(&mut self) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() {
            self.more()?;
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    fn more(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.buffer.extend_from_slice(&bytes[..count]);
                Ok(())
            }
        }
    }
}

/// The status of an answer's head.
pub fn status(head: &str) -> u16 {
    head.split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Runs `work` on a thread with other ids: the kernel tells them to whom that thread connects (SO_PEERCRED), while
/// the rest of this process stays root.
pub fn as_user<T: Send>(uid: u32, gid: u32, groups: &[u32], work: impl FnOnce() -> T + Send) -> T {
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::thread::set_thread_groups(&groups).expect("other groups");
            rustix::thread::set_thread_res_gid(gid, gid, gid).expect("another gid");
            rustix::thread::set_thread_res_uid(uid, uid, uid).expect("another uid");
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
