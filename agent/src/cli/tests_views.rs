//! What fastctl prints for what the agent answers.
#![allow(clippy::unwrap_used)]
use std::path::Path;

use serde_json::{Value, json};

use super::testing::FakeAgent;
use super::tests::{fastctl, fastctl_on};

#[test]
fn dispatch_prints_the_upstream_first() {
    let body = r#"{"vhost":"a","upstream":"10.88.0.6:8080","state":"running","cold":true,"start_ms":37.25,
        "phases":{"spawn":0.61,"exec":1.4,"listen":35.2}}"#;
    let agent = FakeAgent::answering("200 OK", "", body);
    let (code, out, _) = fastctl(&agent.socket, &["dispatch", "a"]);
    assert_eq!(code, 0);
    assert_eq!(
        out,
        "10.88.0.6:8080\ncold, started in 37.2 ms\n  spawn     0.61 ms\n  exec      1.40 ms\n  listen    35.2 ms\n"
    );
    let asked = agent.asked();
    assert_eq!(
        (asked[0].line.as_str(), asked[0].body.as_str()),
        ("POST /v1/dispatch", r#"{"vhost":"a"}"#)
    );
    let agent = FakeAgent::answering("200 OK", "", body);
    assert_eq!(
        fastctl(&agent.socket, &["--json", "dispatch", "a"]).1,
        format!("{body}\n")
    );
}

pub(super) fn listing() -> String {
    json!({"vhosts": [
        {"vhost": "www.example.com", "owner": "acme", "state": "running", "pid": 10, "uptime_s": 7980, "upstream": "10.88.0.6:8080",
         "usage": {"cpu_seconds": 12.34, "memory_bytes": 47_395_635, "pids": 12}},
        {"vhost": "blog.example.org", "owner": "bob", "state": "stopped", "usage": {"cpu_seconds": 9.0}},
        {"vhost": "a-site-with-a-rather-long-name.customers.example.net", "owner": "acme", "state": "failed",
         "upstream": "unix:/run/fastcontainer/sites/x/app.sock"},
    ], "problems": [{"file": "bad.toml", "message": "unknown key cpus, did you mean cpu?"}]})
    .to_string()
}

#[test]
fn the_list_is_sorted_and_fits_80_columns() {
    let agent = FakeAgent::answering("200 OK", "", listing());
    let (code, out, err) = fastctl_on(true, &agent.socket, &["list"]);
    assert_eq!(code, 0);
    let plain: Vec<String> = out
        .lines()
        .map(|l| {
            l.split('\x1b')
                .map(|p| {
                    p.split_once('m')
                        .filter(|_| p.starts_with('['))
                        .map_or(p, |x| x.1)
                })
                .collect()
        })
        .collect();
    assert!(plain.iter().all(|l| l.chars().count() <= 80), "{plain:#?}");
    assert!(
        plain[1].starts_with("a-s") && plain[2].starts_with("blog") && plain[3].starts_with("www"),
        "{plain:#?}"
    );
    assert!(out.contains("\x1b[32mrunning\x1b[0m"), "{out:?}");
    assert_eq!(
        err,
        "fastctl: not in force: bad.toml: unknown key cpus, did you mean cpu?\n"
    );
}

#[test]
fn the_list_can_be_filtered_also_as_json() {
    let agent = FakeAgent::answering("200 OK", "", listing());
    let (_, out, _) = fastctl(
        &agent.socket,
        &["list", "--owner", "acme", "--state", "running"],
    );
    assert_eq!(
        out,
        "VHOST            OWNER  STATE       UP  CPU    MEM  PIDS  UPSTREAM\n\
         www.example.com  acme   running  2h13m  12s  45.2M    12  10.88.0.6:8080\n"
    );
    let agent = FakeAgent::answering("200 OK", "", listing());
    let (_, out, _) = fastctl(&agent.socket, &["list", "--json", "--owner", "bob"]);
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["vhosts"].as_array().unwrap().len(), 1);
    assert_eq!(value["vhosts"][0]["vhost"], "blog.example.org");
    let agent = FakeAgent::answering("200 OK", "", listing());
    assert_eq!(
        fastctl(&agent.socket, &["list", "--json"]).1,
        listing() + "\n"
    );
}

#[test]
fn set_sends_a_patch_and_shows_old_and_new() {
    let body = r#"{"vhost":"a","changes":[{"key":"cpu","old":"20%","new":"50%"},{"key":"io.write","old":null,"new":"2MB/s"}],"limits":{}}"#;
    let agent = FakeAgent::answering("200 OK", "", body);
    let (code, out, _) = fastctl(
        &agent.socket,
        &["set", "a", "cpu=50%", "io.write=2MB/s", "--dry-run"],
    );
    assert_eq!(
        (code, out.as_str()),
        (0, "cpu:      20% → 50%\nio.write: -   → 2MB/s\n")
    );
    let asked = agent.asked();
    assert_eq!(asked[0].line, "PATCH /v1/vhosts/a/limits?dry_run=true");
    let sent: Value = serde_json::from_str(&asked[0].body).unwrap();
    assert_eq!(sent, json!({"cpu": "50%", "io": {"write": "2MB/s"}}));
    let body = r#"{"changes":[],"temporary":{"cpu":{"value":"50%","until":"2026-11-22T12:00:00Z","left_s":600,"then":"20%"}}}"#;
    let agent = FakeAgent::answering("200 OK", "", body);
    let (_, out, _) = fastctl(&agent.socket, &["set", "a", "cpu=50%", "--for", "10m"]);
    assert!(
        out.ends_with("cpu is 50% until 2026-11-22T12:00:00Z (10m00s left), then 20%\n"),
        "{out}"
    );
    assert_eq!(
        agent.asked()[0].line,
        "PATCH /v1/vhosts/a/limits?for=600000ms"
    );
}

#[test]
fn signal_and_rm_are_silent() {
    let agent = FakeAgent::new(2, |_, request| request.answer("200 OK", "", "{}"));
    assert_eq!(
        fastctl(&agent.socket, &["signal", "a", "sighup"]),
        (0, String::new(), String::new())
    );
    assert_eq!(
        fastctl(&agent.socket, &["remove", "a"]),
        (0, String::new(), String::new())
    );
    let asked = agent.asked();
    assert_eq!(
        (asked[0].line.as_str(), asked[0].body.as_str()),
        ("POST /v1/vhosts/a/signal", r#"{"signal":"HUP"}"#)
    );
    assert_eq!(asked[1].line, "DELETE /v1/vhosts/a");
}

#[test]
fn get_gives_what_apply_takes() {
    let answer = r#"{"vhost":"a","state":"running","definition":{"name":"a","limits":{"cpu":"20%"},"command":["x","-y"],"disk":null}}"#;
    let agent = FakeAgent::answering("200 OK", "", answer);
    let (_, toml, _) = fastctl(&agent.socket, &["get", "a"]);
    assert_eq!(
        toml,
        "name = \"a\"\ncommand = [\"x\", \"-y\"]\n\n[limits]\ncpu = \"20%\"\n"
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.toml");
    std::fs::write(&file, toml).unwrap();
    let agent = FakeAgent::new(2, |_, request| {
        request.answer("200 OK", "", r#"{"vhost":"a","result":"changed","changes":[{"key":"limits.cpu","old":"10%","new":"20%"}]}"#);
    });
    let (code, out, err) = fastctl(&agent.socket, &["apply", "-f", file.to_str().unwrap()]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, "~ a  changed\n    limits.cpu: 10% → 20%\n", "")
    );
    let asked = agent.asked();
    assert_eq!(asked[0].line, "PUT /v1/vhosts/a?dry_run=true");
    assert_eq!(asked[1].line, "PUT /v1/vhosts/a");
    assert_eq!(
        asked[0].body,
        r#"{"command":["x","-y"],"limits":{"cpu":"20%"},"name":"a"}"#
    );
}

#[test]
fn status_is_a_page() {
    let body = json!({"vhost": "www.example.com", "owner": "acme", "state": "running", "wanted": "up", "pid": 4711, "uptime_s": 7980.2,
        "upstream": "10.88.0.6:8080", "limits": {"cpu": "20%", "memory": "256M", "pids": 128, "io": {"write": "2MB/s"}, "disk": null},
        "usage": {"cpu_seconds": 12.34, "memory_bytes": 47_395_635, "pids": 12, "io_write_bytes": 2048},
        "last_exit": {"code": 0, "at": "2026-11-22T05:51:02Z"}, "last_start": {"start_ms": 37.2, "phases": {"spawn": 0.6}}});
    let agent = FakeAgent::answering("200 OK", "", body.to_string());
    let (code, out, _) = fastctl(&agent.socket, &["status", "www.example.com"]);
    assert_eq!(code, 0);
    assert_eq!(
        out,
        "www.example.com  running
  wanted      up
  owner       acme
  pid         4711
  uptime      2h13m
  upstream    10.88.0.6:8080
  cpu         12s used  limit 20%
  memory      45.2M     of 256M (18 %)
  pids        12        of 128
  io                    limit write 2MB/s
  io write    2K
  last exit   code 0, at 2026-11-22T05:51:02Z
  last start  37.2 ms
  phases      spawn 0.60 ms
"
    );
}

#[test]
fn the_host_is_a_page_too() {
    let body = json!({"host": "web1", "version": "0.1.0", "uptime_s": 30, "draining": true,
        "cgroup": {"version": 2, "controllers": ["cpu", "memory"], "parent": "fastcontainer"},
        "vhosts": {"total": 5, "running": 2, "down": 0, "stopped": 3}, "problems": []});
    let agent = FakeAgent::answering("200 OK", "", body.to_string());
    let (_, out, _) = fastctl(&agent.socket, &["status"]);
    assert_eq!(
        out,
        "web1  draining
  version      0.1.0
  uptime       30s
  cgroup       2  fastcontainer
  controllers  cpu memory
  vhosts       5
    running    2
    stopped    3
"
    );
}

#[test]
fn doctor_works_with_and_without_an_agent() {
    let body = r#"{"checks":[{"name":"kernel","result":"ok","detail":"6.1","advice":null},
        {"name":"cgroup","result":"fail","detail":"no memory controller","advice":"boot with cgroup_enable=memory"}]}"#;
    let agent = FakeAgent::answering("200 OK", "", body);
    let (code, out, _) = fastctl(&agent.socket, &["doctor"]);
    assert_eq!(code, 1);
    assert_eq!(
        out,
        "ok    kernel  6.1\nFAIL  cgroup  no memory controller\n              → boot with cgroup_enable=memory\n2 checks, 0 warnings, 1 failures\n"
    );
    let (code, out, err) = fastctl(Path::new("/nonexistent/agent.sock"), &["doctor", "--json"]);
    assert_eq!(code, 4);
    assert!(err.contains("cannot reach the agent"), "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert!(
        report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["name"] == "kernel"),
        "{out}"
    );
}
