//! Who makes the host slow is named, and what is wrong is told to Nagios.
#![allow(clippy::unwrap_used, missing_docs)]

use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use harness::sites::script;
use harness::{Host, STATIC, seconds, wait_for};
use serde_json::Value;

const QUIET: &str = "quiet.example.com";
const BURNER: &str = "burner.example.com";
const WRITER: &str = "writer.example.com";

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The exit code of `fastctl check` and its line.
fn check(host: &Host, words: &[&str]) -> (i32, String) {
    let output = host.ctl(&[&["check"], words].concat());
    assert_eq!(output.status.signal(), None, "{output:?}");
    let line = text(&output);
    assert_eq!(line.lines().count(), 1, "{output:?}");
    (output.status.code().unwrap(), line)
}

fn diagnose(host: &Host) -> Value {
    let output = host.ctl(&["--json", "diagnose"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn is_told(report: &Value, kind: &str, vhost: &str) -> bool {
    let verdicts = report["verdicts"].as_array().unwrap();
    verdicts
        .iter()
        .any(|v| v["kind"] == kind && v["vhost"] == vhost)
}

/// A site whose server listens while `busy` goes on beside it.
fn beside_a_server(busy: &str) -> String {
    script(&format!("{busy}\nexec busybox httpd -f -p 8080 -h /site"))
}

#[test]
fn the_cpu_burner_is_named_and_the_quiet_site_is_not() {
    let host = Host::new("");
    host.site(QUIET, STATIC);
    host.site(
        BURNER,
        &beside_a_server("for i in $(seq $(($(nproc) * 4))); do while :; do :; done & done"),
    );
    host.dispatch(QUIET).upstream();
    host.dispatch(BURNER).upstream();
    let mut last = Value::Null;
    wait_for("the burner is named", seconds(20), || {
        last = diagnose(&host);
        is_told(&last, "cpu-bound", BURNER)
    });
    let verdicts = last["verdicts"].as_array().unwrap();
    assert!(verdicts.iter().all(|v| v["vhost"] != QUIET), "{last}");
    let sites = last["sample"]["sites"].as_array().unwrap();
    let names: Vec<&str> = sites.iter().map(|s| s["vhost"].as_str().unwrap()).collect();
    assert_eq!(names, [BURNER, QUIET]);
    assert!(sites[0]["cpu"].as_f64() > Some(20.0), "{last}");
    assert!(sites[1]["cpu"].as_f64() < Some(20.0), "{last}");
    let page = text(&host.ctl(&["diagnose", "--window", "500ms"]));
    assert!(page.contains("page cache not counted"), "{page}");
    // As shown by the list of those that are live, whose rates `top` computes.
    let top = text(&host.ctl(&["top"]));
    assert!(top.contains(BURNER) && top.contains(QUIET), "{top}");
    let limited = host.ctl(&["set", BURNER, "cpu=10%"]);
    assert!(limited.status.success(), "{limited:?}");
    wait_for("it is told to be held back", seconds(20), || {
        is_told(&diagnose(&host), "throttled", BURNER)
    });
    host.finish();
}

#[test]
fn the_disk_writer_is_named() {
    let host = Host::new("");
    host.site(QUIET, STATIC);
    // Several at once, so that there is always one who waits.
    host.site(
        WRITER,
        &beside_a_server(
            "for i in 1 2 3 4; do while :; do dd if=/dev/zero of=/site/big$i bs=64k count=64 oflag=dsync conv=notrunc 2>/dev/null; done & done",
        ),
    );
    host.dispatch(QUIET).upstream();
    host.dispatch(WRITER).upstream();
    let mut last = Value::Null;
    wait_for("the writer's writing is seen", seconds(20), || {
        last = diagnose(&host);
        let sites = last["sample"]["sites"].as_array().unwrap();
        let written = |name: &str| {
            let site = sites.iter().find(|s| s["vhost"] == name);
            site.and_then(|s| s["written"].as_f64()).unwrap_or(0.0)
        };
        written(WRITER) > 1e5 && written(QUIET) < written(WRITER) / 10.0
    });
    // Whether that makes anybody wait depends on the storage: where somebody does, and the writer gets something done,
    // it is known for whom.
    let mut slow = false;
    for _ in 0..5 {
        let report = diagnose(&host);
        let stalled = report["sample"]["stalled"]["io"].as_f64().unwrap_or(0.0);
        let sites = report["sample"]["sites"].as_array().unwrap();
        let writer = sites.iter().find(|s| s["vhost"] == WRITER).unwrap();
        if stalled >= 50.0 && writer["written"].as_f64() > Some(200e3) {
            slow = true;
            let swaps = report["verdicts"][0]["kind"] == "swapping";
            assert!(is_told(&report, "io-bound", WRITER) || swaps, "{report}");
        }
    }
    if !slow {
        harness::skip("nobody waits for this storage, however much is written");
    }
    host.finish();
}

#[test]
fn check_tells_nagios() {
    let host = Host::new("");
    host.site(QUIET, STATIC);
    host.dispatch(QUIET).upstream();
    let well = ["sites", "definitions", "-w", "0"];
    assert_eq!(check(&host, &well[..2]).0, 0, "{}", host.log());
    let (code, line) = check(&host, &well);
    assert_eq!(code, 3, "{line}");
    let (code, line) = check(&host, &["-c", "0.0000001", "agent"]);
    assert_eq!(code, 2, "{line}");
    let (code, line) = check(&host, &["-w", "~:100", "free"]);
    assert!(code == 0 && line.contains("memory_available="), "{line}");
    // A site that fails.
    host.site(
        "bad.example.com",
        "command = [\"/bin/false\"]\nlisten = \"tcp:8080\"\n",
    );
    assert_ne!(host.dispatch("bad.example.com").status, 200);
    let (code, line) = check(&host, &["sites"]);
    assert_eq!(code, 1, "{line}");
    assert!(
        line.contains("1 failed (bad.example.com)") && line.contains("failed=1;"),
        "{line}"
    );
    assert_eq!(check(&host, &["-c", "0", "sites"]).0, 2);
    // A definition with a mistake.
    std::fs::write(host.dir.join("vhosts.d/typo.toml"), "nam = \"x\"\n").unwrap();
    wait_for("the mistake is known", seconds(10), || {
        !host.problems().is_empty()
    });
    let (code, line) = check(&host, &["definitions"]);
    assert!(code == 1 && line.contains("typo.toml"), "{line}");
    // No agent.
    host.signal_agent(libc::SIGTERM);
    let (code, line) = check(&host, &[]);
    assert_eq!(code, 2, "{line}");
    assert!(
        line.starts_with("FASTCONTAINER CRITICAL: cannot reach"),
        "{line}"
    );
    host.start();
    assert_ne!(check(&host, &["agent"]).0, 3);
    host.finish();
}

#[test]
fn what_sleeps_is_not_among_the_live() {
    let host = Host::new("");
    for name in [QUIET, BURNER] {
        host.site(name, STATIC);
        host.dispatch(name).upstream();
    }
    assert_eq!(host.verb(BURNER, "stop").status, 200);
    let names = |query: &str| -> Vec<String> {
        let answer = host
            .request("GET", &format!("/v1/vhosts?{query}"), b"")
            .json();
        let vhosts = answer["vhosts"].as_array().unwrap().iter();
        vhosts
            .map(|v| v["vhost"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names("state=running,frozen"), [QUIET]);
    assert_eq!(names("state=stopped"), [BURNER]);
    assert_eq!(host.verb(QUIET, "freeze").status, 200);
    assert!(names("state=running").is_empty());
    assert_eq!(names("state=running,frozen"), [QUIET]);
    // Also those that this agent did not start.
    host.crash_and_restart();
    assert_eq!(names("state=running,frozen"), [QUIET]);
    assert_eq!(host.verb(QUIET, "thaw").status, 200);
    assert_eq!(names("state=running"), [QUIET]);
    assert_eq!(
        host.request("GET", "/v1/vhosts?state=asleep", b"").status,
        400
    );
    let answer = host.request("GET", "/v1/vhosts?state=running&host=true", b"");
    let answer = answer.json();
    assert!(answer["machine"]["memory"]["available_bytes"].as_u64() > Some(0));
    assert!(answer["at_s"].as_f64() > Some(0.0));
    host.finish();
}

#[test]
fn capacity_is_measured_on_those_that_live() {
    let host = Host::new("");
    let unknown = host.request("GET", "/v1/capacity", b"").json();
    assert!(unknown["capacity"]["more"].is_null(), "{unknown}");
    // 40 MB that are its own, beside a server that has next to none.
    let hog = "python3 -c 'x = bytearray(b\"x\" * 40000000); import time; print(\"held\", flush=True); time.sleep(1e6)' &";
    host.site(BURNER, &beside_a_server(hog));
    host.dispatch(BURNER).upstream();
    let mut last = Value::Null;
    wait_for("what it holds is seen", seconds(20), || {
        last = host.request("GET", "/v1/capacity?reserve=64M", b"").json();
        last["measured"]["private_bytes"].as_u64() > Some(40_000_000)
    });
    let (capacity, measured) = (&last["capacity"], &last["measured"]);
    let each = capacity["private_bytes_per_site"].as_u64().unwrap();
    assert!((40_000_000..90_000_000).contains(&each), "{last}");
    let available = measured["memory"]["available_bytes"].as_u64().unwrap();
    let fit = available.saturating_sub(64 << 20) / each;
    assert_eq!(capacity["by_memory"].as_u64(), Some(fit), "{last}");
    let page = text(&host.ctl(&["capacity"]));
    assert!(
        page.contains("private memory per site, measured on 1 of 1 live sites"),
        "{page}"
    );
    host.finish();
}

#[test]
fn only_operators_see_what_all_sites_do() {
    let host = Host::new("[owner.acme]\nuid = 1001\n");
    host.site(QUIET, STATIC);
    host.dispatch(QUIET).upstream();
    let socket = host.socket();
    let ask = |path: &str| {
        let request = || harness::http::request(&socket, "GET", path, b"").unwrap();
        harness::client::as_user(1001, 1001, &[], request)
    };
    for path in ["/v1/diagnose", "/v1/capacity"] {
        assert_eq!(ask(path).status, 403, "{path}");
    }
    let theirs = ask("/v1/vhosts?state=running&host=true").json();
    assert_eq!(theirs["vhosts"][0]["vhost"], QUIET);
    for bad in [
        "diagnose?window=1ms",
        "diagnose?window=1h",
        "diagnose?window=x",
        "capacity?reserve=x",
    ] {
        assert_eq!(
            host.request("GET", &format!("/v1/{bad}"), b"").status,
            400,
            "{bad}"
        );
    }
    host.finish();
}
