//! What fastctl makes of what the agent tells about the host.
#![allow(clippy::unwrap_used)]
use std::path::Path;

use serde_json::{Value, json};

use super::testing::FakeAgent;
use super::tests::fastctl;

fn status(change: impl FnOnce(&mut Value)) -> String {
    let mut status = json!({"draining": false, "vhosts": {"total": 12, "running": 3, "failed": 0, "stuck": 0}, "problems": [],
        "machine": {"cpus": 2, "load": [0.5, 0.4, 0.3],
            "memory": {"total_bytes": 4u64 << 30, "available_bytes": 3u64 << 30},
            "pressure": {"cpu": {"some": {"avg10": 1.5}}, "memory": {"some": {"avg10": 0.0}}, "io": {"some": {"avg10": 45.0}}}}});
    change(&mut status);
    status.to_string()
}

fn check(body: String, words: &[&str]) -> (u8, String) {
    let agent = FakeAgent::answering("200 OK", "", body);
    let (code, out, err) = fastctl(&agent.socket, &[&["check"], words].concat());
    assert_eq!(err, "");
    assert_eq!(out.lines().count(), 1, "{out}");
    (code, out)
}

#[test]
fn check_is_one_line_with_performance_data() {
    let (code, out) = check(status(|_| ()), &["sites", "definitions", "cpu", "free"]);
    assert_eq!(
        (code, out.as_str()),
        (
            0,
            "FASTCONTAINER OK: 12 sites, 3 running; definitions in force; waiting for a CPU 2 % of the time; \
             3G of 4G memory available | broken=0;0;;0 failed=0;;;0 stuck=0;;;0 running=3;;;0 total=12;;;0 mistakes=0;0;;0 \
             cpu_pressure=1.5%;60;90;0;100 memory_available=75%;10:;5:;0;100\n"
        )
    );
}

#[test]
fn check_tells_the_worst_first_and_leaves_out_what_is_well() {
    let body = status(|s| {
        s["problems"] = json!([{"file": "bad.toml", "message": "unknown key | cpus"}]);
        s["machine"]["memory"]["available_bytes"] = json!(100 << 20);
    });
    let (code, out) = check(body, &[]);
    assert_eq!(code, 2);
    assert!(
        out.starts_with("FASTCONTAINER CRITICAL: 100M of 4G memory available; not in force: bad.toml: unknown key / cpus; \
                         waiting for storage 45 % of the time | agent="),
        "{out}"
    );
}

#[test]
fn thresholds_are_those_that_were_given() {
    let io = |words: &[&str]| check(status(|_| ()), &[words, &["io"]].concat()).0;
    assert_eq!(io(&[]), 1);
    assert_eq!(io(&["-w", "45"]), 0);
    assert_eq!(io(&["-w", "44"]), 1);
    assert_eq!(io(&["-w", "30", "-c", "40"]), 2);
    assert_eq!(io(&["-c", "@40:50"]), 2);
    assert_eq!(io(&["-w", "50:"]), 1);
}

#[test]
fn broken_sites_are_named() {
    for (failed, stuck, words, code) in [
        (1, 0, &["sites"][..], 1),
        (1, 1, &["sites"], 2),
        (1, 1, &["-w", "5", "sites"], 0),
        (5, 0, &["-c", "4", "sites"], 2),
    ] {
        let agent = FakeAgent::new(2, move |n, request| match n {
            0 => request.answer(
                "200 OK",
                "",
                &status(|s| {
                    s["vhosts"]["failed"] = json!(failed);
                    s["vhosts"]["stuck"] = json!(stuck);
                }),
            ),
            _ => request.answer(
                "200 OK",
                "",
                r#"{"vhosts":[{"vhost":"b.example.com","state":"failed"}]}"#,
            ),
        });
        let (got, out, _) = fastctl(&agent.socket, &[&["check"], words].concat());
        assert_eq!(got, code, "{out}");
        assert!(out.contains("(b.example.com)"), "{out}");
        assert_eq!(agent.asked()[1].line, "GET /v1/vhosts?state=failed,stuck");
    }
}

#[test]
fn what_is_not_told_is_unknown() {
    let old = || status(|s| s["machine"] = Value::Null);
    assert_eq!(check(old(), &["cpu"]).0, 3);
    // A warning is worth more than not to know.
    let (code, _) = check(
        status(|s| s["machine"]["pressure"] = Value::Null),
        &["-c", "1", "io"],
    );
    assert_eq!(code, 3);
    let body = status(|s| {
        s["machine"]["pressure"] = Value::Null;
        s["draining"] = json!(true);
    });
    assert_eq!(check(body, &["agent", "cpu"]).0, 1);
}

#[test]
fn no_agent_is_critical_and_wrong_usage_unknown() {
    let nowhere = Path::new("/nonexistent/agent.sock");
    let (code, out, err) = fastctl(nowhere, &["check"]);
    assert_eq!((code, err.as_str()), (2, ""));
    assert!(
        out.starts_with("FASTCONTAINER CRITICAL: cannot reach the agent"),
        "{out}"
    );
    for words in [
        &["check", "-w", "5"][..],
        &["check", "-w", "5", "cpu", "io"],
        &["check", "-w", "x", "cpu"],
        &["--timeout", "5s", "check", "nonsense"],
        &["check", "--nonsense"],
    ] {
        let (code, out, _) = fastctl(nowhere, words);
        assert_eq!(code, 3, "{words:?}");
        assert!(
            out.starts_with("FASTCONTAINER UNKNOWN: ") && out.lines().count() == 1,
            "{out}"
        );
    }
    let refused = FakeAgent::answering("403 Forbidden", "", r#"{"title":"no"}"#);
    assert_eq!(fastctl(&refused.socket, &["check"]).0, 3);
    let refused = FakeAgent::answering("403 Forbidden", "", r#"{"title":"no"}"#);
    let (code, out, _) = fastctl(&refused.socket, &["--json", "check"]);
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, value["state"].as_str()), (3, Some("UNKNOWN")));
}

#[test]
fn capacity_shows_its_arithmetic() {
    let body = r#"{"capacity":{"more":125,"by_memory":125,"arithmetic":["memory: 1 / 2 = 125","CPU: \u001b[2J"]}}"#;
    let agent = FakeAgent::answering("200 OK", "", body);
    let (code, out, _) = fastctl(&agent.socket, &["capacity", "--reserve", "1G"]);
    assert_eq!(
        (code, out.as_str()),
        (
            0,
            "125 more sites like these fit\n  memory: 1 / 2 = 125\n  CPU: \\x1b[2J\n"
        )
    );
    assert_eq!(agent.asked()[0].line, "GET /v1/capacity?reserve=1073741824");
    let none = FakeAgent::answering("200 OK", "", r#"{"capacity":{"more":null}}"#);
    let (_, out, _) = fastctl(&none.socket, &["capacity"]);
    assert_eq!(out, "unknown how many more sites fit\n");
}

#[test]
fn diagnose_tells_who_and_shows_why() {
    let body = json!({"verdicts": [
            {"kind": "cpu-bound", "vhost": "a.example.com", "owner": "acme", "text": "a.example.com used 96 %\u{1b}[2J"}],
        "sample": {"seconds": 1.0, "load": [2.0, 1.0, 0.5], "runnable": 3, "blocked": 1,
            "cpus": [{"user": 90.0, "system": 8.0, "iowait": 0.0, "steal": 0.0, "idle": 2.0}],
            "memory": {"total_bytes": 4u64 << 30, "available_bytes": 3u64 << 30},
            "stalled": {"cpu": 70.0, "memory": 0.0, "io": 1.0},
            "sites": [{"vhost": "b", "owner": "bob"}, {"vhost": "a.example.com", "owner": "acme", "cpu": 192.0, "written": 2048.0}]}});
    let agent = FakeAgent::answering("200 OK", "", body.to_string());
    let (code, out, err) = fastctl(&agent.socket, &["diagnose", "--window", "500ms"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "CPU-bound: a.example.com used 96 %\\x1b[2J

load      2.00 1.00 0.50; 3 runnable, 1 blocked
cpu0       90 % user,   8 % system,   0 % waiting for I/O,   0 % stolen,   2 % idle
memory    1G of 4G used (page cache not counted), 3G available
swap      0B of 0B used, 0 pages/s in, 0 pages/s out
waiting   70 % of the time for a CPU, 0 % for memory, 1 % for storage

VHOST          OWNER   CPU  LIMIT  HELD  READ  WRITE  MEM  BLOCKED
a.example.com  acme   192%      -    0%  0B/s   2K/s   0B        0
b              bob      0%      -    0%  0B/s   0B/s   0B        0
"
    );
    assert_eq!(agent.asked()[0].line, "GET /v1/diagnose?window=500ms");
}
