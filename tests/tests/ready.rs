//! Inits made ahead of need that do not do what they were made for.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::Path;

use harness::{Host, STATIC, seconds, send_signal, skip, wait_for};

const SITE: &str = "a.example.com";

/// The children of a process.
fn children(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let ppid = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.split(' ').nth(1));
        ppid.and_then(|ppid| ppid.parse().ok()) == Some(parent)
    };
    let names = fs::read_dir("/proc").unwrap().flatten();
    let pids = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_child).collect()
}

/// A host whose only init made ahead does not move; None where none are made.
fn with_a_stopped_init() -> Option<(Host, u32)> {
    let host = Host::new("[pool]\ninits = 1\n");
    let spawner = children(host.pid())[0];
    // The agent says why it has none made.
    if host.log().contains("without favordynmods") {
        skip("joining a cgroup takes too long here");
        host.finish();
        return None;
    }
    host.site(SITE, &format!("{STATIC}[start]\ntimeout = \"3s\"\n"));
    let mut ready = Vec::new();
    wait_for("an init is made ahead", seconds(10), || {
        ready = children(spawner);
        ready.len() == 1
    });
    send_signal(ready[0], libc::SIGSTOP);
    Some((host, ready[0]))
}

fn exists(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap()
}

#[test]
fn a_start_that_times_out_ends_its_init_wherever_that_is() {
    let Some((host, init)) = with_a_stopped_init() else {
        return;
    };
    let answer = host.dispatch(SITE);
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(!exists(init), "it keeps an address that is given away");
    wait_for("the next start", seconds(10), || {
        host.dispatch(SITE).status == 200
    });
    host.finish();
}

#[test]
fn a_start_that_is_broken_off_ends_its_init_wherever_that_is() {
    let Some((host, init)) = with_a_stopped_init() else {
        return;
    };
    let socket = host.socket();
    let asker = std::thread::spawn(move || {
        let body = format!("{{\"vhost\":{SITE:?}}}");
        harness::http::request(&socket, "POST", "/v1/dispatch", body.as_bytes())
    });
    // The cgroup is made when an init has its request.
    wait_for("an init has it", seconds(10), || {
        let site = Path::new(&host.cgroup_parent).join("acme").join(SITE);
        let roots = harness::cgroup_roots();
        roots
            .iter()
            .any(|root| Path::new(root).join(&site).exists())
    });
    let stopped = host.verb(SITE, "stop");
    assert_eq!(stopped.json()["state"], "stopped", "{stopped:?}");
    assert_eq!(asker.join().unwrap().unwrap().status, 503);
    wait_for("its init has ended", seconds(10), || !exists(init));
    assert_eq!(host.get(SITE, "/").status, 200);
    host.finish();
}
