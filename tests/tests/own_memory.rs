//! The memory of the agent itself.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;

use harness::client::Client;
use harness::{Host, seconds, wait_for};

const CROWD: usize = 700;

/// kB that no file is behind.
fn own(host: &Host) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kb = line.unwrap().split_ascii_whitespace().nth(1);
    kb.unwrap().parse().unwrap()
}

#[test]
fn what_a_crowd_took_is_given_back() {
    // Long enough for all of them to have come.
    let host = Host::new("[api]\nhead_timeout = \"60s\"\n");
    let before = own(&host);
    let mut crowd: Vec<Client> = (0..CROWD)
        .map(|_| Client::connect(&host.socket()).unwrap())
        .collect();
    for (n, client) in crowd.iter_mut().enumerate() {
        let path = format!("/v1/vhosts/n{n}.example.com");
        client.send("GET", &path, "", b"").unwrap();
    }
    for client in &mut crowd {
        assert_eq!(client.answer().unwrap().status, 404);
    }
    let most = own(&host);
    assert!(most > before + 6 * 1024, "{before} kB, {most} kB: no crowd");
    drop(crowd);
    // The agent looks every 30 s.
    wait_for("most of it is given back", seconds(90), || {
        own(&host) < (before + most) / 2
    });
    host.finish();
}
