//! `/metrics`: a bounded number of lines, and all that was used is in them once.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;

use harness::inside::{ask, site};
use harness::{Host, seconds, wait_for};

const NAMES: [&str; 3] = ["a.example.com", "b.example.com", "c.example.com"];

/// Value by metric and labels.
fn metrics(host: &Host) -> BTreeMap<String, f64> {
    let answer = host.request("GET", "/metrics", b"");
    assert_eq!(answer.status, 200);
    let text = String::from_utf8(answer.body).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.map(|line| line.rsplit_once(' ').unwrap());
    let mut all = BTreeMap::new();
    for (key, value) in pairs {
        let before = all.insert(key.to_owned(), value.parse().unwrap());
        assert!(before.is_none(), "{key} twice");
    }
    all
}

fn of<'a>(all: &'a BTreeMap<String, f64>, name: &str) -> Vec<(&'a str, f64)> {
    let prefix = format!("fastcontainer_{name}{{");
    let lines = all.iter().filter(|(key, _)| key.starts_with(&prefix));
    lines.map(|(key, value)| (key.as_str(), *value)).collect()
}

#[test]
fn the_busiest_have_lines_and_the_rest_is_added_up() {
    let host = Host::new("[metrics]\nvhosts = 1\nowners = 1\n");
    for name in NAMES {
        site(&host, name, "");
        ask(&host, name, "burn/200", 60);
    }
    // Memory is of those that live, and known once they have been read.
    wait_for("memory of the living", seconds(30), || {
        of(&metrics(&host), "vhost_memory_bytes")
            .iter()
            .all(|(_, memory)| *memory > 0.0)
    });
    for name in NAMES {
        assert_eq!(host.verb(name, "stop").status, 200);
    }
    // All that has ended is in the books when this is answered.
    let used = host.request("GET", "/v1/usage", b"").json();
    let recorded: f64 = used["vhosts"]
        .as_array()
        .unwrap()
        .iter()
        .fold(0.0, |sum, v| {
            sum + v["total"]["cpu_seconds"].as_f64().unwrap()
        });
    let all = metrics(&host);
    let cpu = of(&all, "vhost_cpu_seconds_total");
    assert_eq!(cpu.len(), 2, "{cpu:?}");
    assert!(cpu.iter().any(|(key, _)| key.contains("vhost=\"(other)\"")));
    for lines in [cpu, of(&all, "owner_cpu_seconds_total")] {
        let sum: f64 = lines.iter().map(|(_, value)| value).sum();
        assert!((sum - recorded).abs() < 1e-6, "{lines:?}, {recorded}");
    }
    assert!((all["fastcontainer_all_cpu_seconds_total"] - recorded).abs() < 1e-6);
    assert!(recorded > 0.2 * 3.0);
    assert_eq!(all["fastcontainer_all_starts_total"], 3.0);
    assert_eq!(all["fastcontainer_owner_starts_total{owner=\"acme\"}"], 3.0);
    assert_eq!(all["fastcontainer_all_memory_bytes"], 0.0);
    host.finish();
}
