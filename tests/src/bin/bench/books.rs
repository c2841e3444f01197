//! The books: short-lived containers with work that they count themselves, while the agent is killed again and again.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use harness::http::{self, Answer};
use harness::inside::site;
use harness::{Host, wait_for};
use serde_json::Value;

use crate::Effort;
use crate::report::{Figures, Row};

const LIVES: usize = 200;
const KILLS: usize = 20;
/// From the begin of one life to that of the next.
const APART: Duration = Duration::from_secs(3);
/// Lives that may be under way at a time, and sites: each has one life after the other.
const WORKERS: usize = 4;
const SITES: usize = 40;
/// What each does.
const BURN_MS: u32 = 1000;
/// Pieces of 64 KiB, past the page cache.
const WRITE_PIECES: u32 = 128;
/// For how long one request may find no agent, or one that is just beginning.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the workload has counted.
#[derive(Debug, Default, Clone, Copy)]
struct Counted {
    lives: usize,
    cpu: f64,
    bytes: f64,
}

fn name(life: usize) -> String {
    format!("n{}.example.com", life % SITES)
}

/// Asks until there is an agent that does it.
fn insist(socket: &Path, path: &str, body: &str) -> Answer {
    let mut done = None;
    wait_for(path, PATIENCE, || {
        let answer = http::request(socket, "POST", path, body.as_bytes());
        done = answer.ok().filter(|answer| answer.status == 200);
        done.is_some()
    });
    done.unwrap()
}

fn tell(upstream: &str, what: &str) -> f64 {
    let answer = http::get(upstream, &format!("/{what}"), PATIENCE).unwrap();
    String::from_utf8(answer.body).unwrap().parse().unwrap()
}

/// One container's life: started by a request, works, and is stopped.
fn live(socket: &Path, vhost: &str, counted: &mut Counted) {
    let body = format!("{{\"vhost\":\"{vhost}\"}}");
    let upstream = insist(socket, "/v1/dispatch", &body).upstream();
    counted.bytes += tell(&upstream, &format!("put/{WRITE_PIECES}"));
    counted.cpu += tell(&upstream, &format!("burn/{BURN_MS}")) / 1e6;
    insist(socket, &format!("/v1/vhosts/{vhost}/stop"), "");
    counted.lives += 1;
}

/// Every fourth life, each not before its time.
fn work(socket: &Path, first: usize, lives: usize, began: Instant) -> Counted {
    let mut counted = Counted::default();
    for life in (first..lives).step_by(WORKERS) {
        let at = began + APART * u32::try_from(life).unwrap();
        thread::sleep(at.saturating_duration_since(Instant::now()));
        live(socket, &name(life), &mut counted);
    }
    counted
}

fn recorded(host: &Host, key: &str) -> f64 {
    let all = host.request("GET", "/v1/usage?since=1h", b"").json();
    let vhosts = all["vhosts"].as_array().unwrap().iter();
    let total = vhosts.map(|vhost: &Value| vhost["total"][key].as_f64().unwrap());
    total.sum()
}

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let (lives, kills) = (effort.rounds(LIVES), effort.rounds(KILLS));
    let host = Host::as_installed("");
    for n in 0..SITES.min(lives) {
        // A limit that is never reached: it shows that these documents lie on a disk, else nothing is written to one.
        let limits = "[limits]\nio = { write = \"900MB/s\" }\n[idle]\ntimeout = \"10m\"\n";
        site(&host, &name(n), limits);
    }
    let socket: PathBuf = host.socket();
    let began = Instant::now();
    let workers: Vec<_> = (0..WORKERS)
        .map(|first| {
            let socket = socket.clone();
            thread::spawn(move || work(&socket, first, lives, began))
        })
        .collect();
    let between = APART * u32::try_from(lives / kills).unwrap();
    for _ in 0..kills {
        thread::sleep(between);
        host.crash_and_restart();
    }
    let mut counted = Counted::default();
    for worker in workers {
        let one = worker.join().unwrap();
        counted.lives += one.lives;
        counted.cpu += one.cpu;
        counted.bytes += one.bytes;
    }
    let took = began.elapsed().as_secs_f64();
    let cpu = recorded(&host, "cpu_seconds");
    let bytes = recorded(&host, "io_write_bytes");
    let came = recorded(&host, "starts") - recorded(&host, "failed_starts");
    host.finish();
    let off = |recorded: f64, counted: f64| (recorded / counted - 1.0) * 100.0;
    let (cpu_off, bytes_off) = (off(cpu, counted.cpu), off(bytes, counted.bytes));
    let what = format!(
        "{lives} short lives in {took:.0} s, the agent killed {kills} times: recorded against what they counted"
    );
    let one = |who: &str, unit, value| Figures::new(who, unit, vec![value]);
    vec![
        Row::new(&what)
            .with(one("CPU time counted by the sites", "s", counted.cpu))
            .with(one("CPU time recorded", "s", cpu))
            .with(one("bytes written, counted", "MB", counted.bytes / 1e6))
            .with(one("bytes written, recorded", "MB", bytes / 1e6))
            .with(one("CPU time, off by", "%", cpu_off))
            .with(one("bytes written, off by", "%", bytes_off))
            .at_most("CPU time off by %", cpu_off.abs(), 1.0)
            .at_most("bytes written off by %", bytes_off.abs(), 1.0)
            .at_most("lives off by", (came - counted.lives as f64).abs(), 0.0),
    ]
}
