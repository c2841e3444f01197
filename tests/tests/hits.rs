//! What is told of a site that comes up against its limits: time, amount and limit, not too often, and counted.
#![allow(clippy::unwrap_used, missing_docs)]

use harness::inside::{ask, site};
use harness::limits::{SITE, events};
use harness::{Host, seconds, wait_for};
use serde_json::Value;

/// Seconds of the day of an event.
fn at(event: &Value) -> f64 {
    let time = event["time"].as_str().unwrap();
    let (_, clock) = time.trim_end_matches('Z').split_once('T').unwrap();
    clock
        .split(':')
        .fold(0.0, |all, part| all * 60.0 + part.parse::<f64>().unwrap())
}

fn amounts(host: &Host, kind: &str) -> f64 {
    let all = events(host, kind);
    all.iter()
        .map(|event| event["amount"].as_f64().unwrap())
        .sum()
}

fn told(host: &Host, kind: &str, unit: &str, limit: &str) {
    wait_for(&format!("{kind} is told"), seconds(30), || {
        !events(host, kind).is_empty()
    });
    for event in events(host, kind) {
        assert_eq!(
            (&event["unit"], &event["limit"]),
            (&unit.into(), &limit.into()),
            "{event}"
        );
        assert_eq!(event["owner"], "acme");
        assert!(event["amount"].as_f64().unwrap() > 0.0, "{event}");
    }
}

fn metric(host: &Host, name: &str) -> f64 {
    let answer = host.request("GET", "/metrics", b"");
    let text = String::from_utf8(answer.body).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("fastcontainer_{name} ")));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    line.split_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn every_kind_is_told_and_counted() {
    let host = Host::new("");
    let limits = "[limits]\nmemory = \"32M\"\npids = 20\negress = \"1Mbit\"\n";
    site(&host, SITE, limits);
    // Nobody who keeps within the limits hears of them.
    site(&host, "b.example.com", limits);
    assert_eq!(host.dispatch("b.example.com").status, 200);
    assert!(ask(&host, SITE, "fork/100", 60).starts_with("18 "));
    assert_eq!(
        ask(&host, SITE, "fill/65536", 300),
        format!("{} 0", 64 << 20)
    );
    ask(&host, SITE, "flood/4000", 60);
    told(&host, "fork_refused", "times", "20");
    told(&host, "reclaimed", "times", "32M");
    told(&host, "egress_dropped", "packets", "1Mbit/s");
    let usage = host.status(SITE)["usage"].clone();
    for (kind, counted, total) in [
        ("fork_refused", "forks_refused", "forks_refused_total"),
        ("reclaimed", "memory_reclaims", "memory_reclaims_total"),
        (
            "egress_dropped",
            "egress_dropped_packets",
            "egress_dropped_packets_total",
        ),
    ] {
        let sum = amounts(&host, kind);
        assert!(
            sum <= usage[counted].as_f64().unwrap(),
            "{kind}: {sum} of {usage}"
        );
        assert!(metric(&host, total) >= sum, "{total}");
    }
    for name in ["throttled_seconds_total", "disk_full_total"] {
        assert_eq!(metric(&host, name), 0.0, "{name}");
    }
    let all = host.ctl(&["--json", "events"]);
    let all = String::from_utf8(all.stdout).unwrap();
    let quiet = |line: &str| !line.contains("\"amount\"") || !line.contains("b.example.com");
    assert!(all.lines().all(quiet), "{all}");
    host.finish();
}

#[test]
fn who_is_throttled_all_the_time_is_told_so_every_ten_seconds() {
    let host = Host::new("");
    site(&host, SITE, "[limits]\ncpu = \"20%\"\n");
    let end = std::time::Instant::now() + seconds(120);
    while events(&host, "throttled").len() < 2 {
        assert!(
            std::time::Instant::now() < end,
            "{:?}",
            events(&host, "throttled")
        );
        ask(&host, SITE, "burn/500", 120);
    }
    told(&host, "throttled", "seconds", "20%");
    let times: Vec<f64> = events(&host, "throttled").iter().map(at).collect();
    for pair in times.windows(2) {
        assert!((pair[1] - pair[0]).rem_euclid(86_400.0) >= 9.9, "{times:?}");
    }
    // All of it, in the end.
    let kernels = || {
        host.status(SITE)["usage"]["throttled_seconds"]
            .as_f64()
            .unwrap()
    };
    wait_for("the rest is told", seconds(60), || {
        (amounts(&host, "throttled") - kernels()).abs() < 0.15
    });
    let (total, sum) = (
        metric(&host, "throttled_seconds_total"),
        amounts(&host, "throttled"),
    );
    assert!((total - sum).abs() < 0.15, "{total} {sum}");
    // The next agent tells what comes from then on, and nothing twice.
    host.crash_and_restart();
    let before = kernels();
    wait_for("it is told again", seconds(60), || {
        ask(&host, SITE, "burn/200", 120);
        !events(&host, "throttled").is_empty()
    });
    let (sum, more) = (amounts(&host, "throttled"), kernels() - before);
    assert!(sum <= more + 0.15, "{sum} of {more}");
    host.finish();
}
