//! The API against everything that may come in on its socket.
#![allow(clippy::unwrap_used, missing_docs)]

mod bodies;
mod connections;
mod exec;
mod exec_idle;
mod names;
mod noise;
mod owners;
mod requests;
mod rights;
mod session;
mod shutdown;
mod streams;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use harness::client::Client;
use harness::{Answer, Host, seconds, time_scale};
use serde_json::{Value, json};

/// Small, fast and the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % limit
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most + 1);
        (0..length)
            .map(|_| u8::try_from(self.next() >> 56).unwrap())
            .collect()
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

/// Resident memory of a process, kB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_ascii_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

/// Sends bytes, says that nothing follows, and reads whatever comes until the agent closes.
fn exchange(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(seconds(30))).unwrap();
    // Refused or answered before all of it was taken: what has been answered can still be read.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "{error}: {bytes:?}"
        );
    }
    answer
}

/// An error answer as it has to be.
fn assert_problem(answer: &Answer, status: u16) {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status, status, "{}\n{text}", answer.head);
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{text}"
    );
    let problem = answer.json();
    assert_eq!(problem["status"].as_u64(), Some(status.into()), "{problem}");
    for key in ["type", "title", "detail"] {
        assert!(
            problem[key].as_str().is_some_and(|text| !text.is_empty()),
            "no {key}: {problem}"
        );
    }
}

fn body(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// A client like any other, who asks on and on while something else happens.
struct Neighbour {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Neighbour {
    /// Begins to dispatch a running vhost and to ask for its status, in turn, on one kept connection.
    fn begin(socket: PathBuf, vhost: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut client = Client::connect(&socket).unwrap();
            let asked = body(&json!({"vhost": vhost}));
            let mut times = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                for (method, path, body) in [
                    ("POST", "/v1/dispatch", &asked[..]),
                    ("GET", "/v1/status", b""),
                ] {
                    let began = Instant::now();
                    let answer = client.request(method, path, body).unwrap();
                    times.push(began.elapsed());
                    assert_eq!(answer.status, 200);
                }
                // A client, not a flood of its own.
                std::thread::sleep(Duration::from_millis(1));
            }
            times
        });
        Self { stop, thread }
    }

    /// Ends it; its 99th percentile.
    fn end(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let mut times = self.thread.join().unwrap();
        times.sort_unstable();
        let p99 = times[times.len() * 99 / 100];
        println!(
            "{} answers meanwhile: p50 {:?} p99 {p99:?} max {:?}",
            times.len(),
            times[times.len() / 2],
            times[times.len() - 1]
        );
        p99
    }
}

/// How long other clients may wait; a machine that is emulated only shows that they do not wait for ever.
fn assert_prompt(p99: Duration) {
    let limit = match time_scale() {
        1 => Duration::from_millis(10),
        _ => Duration::from_secs(15),
    };
    assert!(
        p99 < limit,
        "other clients waited {p99:?} at the 99th percentile, more than {limit:?}"
    );
}

/// An agent with one running static site.
fn host_with_site(config: &str) -> Host {
    let host = Host::new(config);
    host.site("a.example.com", harness::STATIC);
    host.dispatch("a.example.com").upstream();
    host
}
