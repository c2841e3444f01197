//! A whole agent for one test: real daemon, real kernel, in a network namespace, cgroup and directory of its own.
//!
//! ```no_run
//! let host = harness::Host::new("");
//! host.site("a.example.com", harness::STATIC);
//! let answer = host.dispatch("a.example.com");
//! assert_eq!(answer.status, 200);
//! host.finish();
//! ```
//!
//! [`Host::finish`] ends everything and fails the test if anything is left: a process, cgroup, link, mount, rule or
//! file. The programs come from `FASTCONTAINER_BIN` (a directory) or from where cargo has put them.

pub mod client;
pub mod connect;
mod host;
pub mod http;
pub mod inside;
mod leak;
pub mod limits;
mod programs;
pub mod quotas;
pub mod sites;
pub mod swap;
pub mod traffic;
pub mod world;
pub mod worst;

pub use host::{Host, OWNER, STATIC, outside_address, run, send_signal};
pub use http::Answer;
pub use leak::{Snapshot, cgroup_roots, descriptors};
pub use programs::{Programs, programs};

use std::time::{Duration, Instant};

/// How much slower this machine is than a real one: 1, or what the VM sets (`FASTCONTAINER_TIME_SCALE`).
pub fn time_scale() -> u32 {
    std::env::var("FASTCONTAINER_TIME_SCALE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1)
}

/// A limit of time for something that should take `seconds` on a real machine.
pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds) * time_scale()
}

/// How often to do what a real machine does `native` times: less often on a slower one, but at least `least` times, below
/// which the test would mean nothing any more.
pub fn rounds(native: u32, least: u32) -> u32 {
    (native / time_scale()).max(least).min(native)
}

/// Waits until `done` says so, asking every few milliseconds; panics with `what` after `limit`.
pub fn wait_for(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    // Where asking takes long, asking all the time would slow down what is waited for.
    let pause = Duration::from_millis(5) * time_scale().min(6);
    while !done() {
        assert!(Instant::now() < end, "{what}: not within {limit:?}");
        std::thread::sleep(pause);
    }
}

/// Says that a test cannot run here; counted by scripts/test.
pub fn skip(why: &str) {
    println!("SKIPPED: {why}");
}
