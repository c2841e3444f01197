//! Every limit, from the start on and changed live to more and to less, by its effect as it is measured inside the container
//! with the container's own means: CPU within 5 %, I/O and network within 10 %, everything that is counted exactly.
//!
//! The same programs run on this host and in the virtual machine, that is on both versions of control groups. Where one of
//! them has no such limit, its clear refusal is what is asserted. Each family of limits prints its part of the table; that
//! none is missing is shown here.
#![allow(clippy::unwrap_used, missing_docs)]

mod cpu;
mod disk;
mod files;
mod io;
mod io_weight;
mod memory;
mod network;
mod pids;
mod swap;
mod table;

use harness::Host;
use harness::inside::site;
use harness::limits::{SITE, patch};
use serde_json::{Value, json};

/// A definition's part.
fn limits(text: &str) -> String {
    format!("[limits]\n{text}\n")
}

/// Whether the memory controller is on cgroup v2; the others are where it is.
fn is_v2() -> bool {
    let controllers = |root: &String| {
        let path = std::path::Path::new(root).join("cgroup.controllers");
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let mut roots = harness::cgroup_roots().into_iter();
    roots.any(|root| controllers(&root).contains("memory"))
}

/// What cannot be had on this host is refused with a reason, and nothing changes.
fn refused(host: &Host, body: &Value, reason: &str) {
    let before = host.status(SITE)["limits"].clone();
    let answer = patch(host, body);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert_eq!(answer.status, 409, "{body}: {detail}");
    assert!(detail.contains(reason), "{body}: {detail}");
    assert_eq!(host.status(SITE)["limits"], before, "{body}");
}

/// A site that says so in its definition does not start, and says why.
fn refused_at_start(host: &Host, text: &str, reason: &str) {
    site(host, "refused.example.com", &limits(text));
    assert_eq!(host.dispatch("refused.example.com").status, 503);
    let status = host.status("refused.example.com");
    let why = status["last_failure"].as_str().unwrap().to_owned();
    assert!(why.contains(reason), "{why}");
}

#[test]
fn no_limit_is_missing() {
    let host = Host::new("");
    site(&host, SITE, "");
    let answer = patch(&host, &json!({"nonsense": 1}));
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    let (_, all) = detail.split_once("(valid here: ").expect(&detail);
    let mut known: Vec<&str> = all.trim_end_matches(')').split(", ").collect();
    // What a class promises is shown where there are others to take it away.
    known.retain(|limit| *limit != "class");
    let mut shown = [
        &cpu::LIMITS[..],
        &memory::LIMITS,
        &swap::LIMITS,
        &pids::LIMITS,
        &io::LIMITS,
        &network::LIMITS,
        &disk::LIMITS,
        &files::LIMITS,
    ]
    .concat();
    known.sort_unstable();
    shown.sort_unstable();
    assert_eq!(known, shown);
    host.finish();
}
