//! Limits that somebody writes into the kernel by hand are told of, and mended when that is asked for.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::{Command, Output};
use std::time::Instant;

use harness::inside::site;
use harness::limits::{SITE, by_hand, events, in_cgroup, set, text};
use harness::{Host, http, seconds, wait_for};
use serde_json::{Value, json};

const QUOTA: [&str; 2] = ["cpu.max", "cpu.cfs_quota_us"];
const MEMORY: [&str; 2] = ["memory.max", "memory.limit_in_bytes"];
const PIDS: [&str; 2] = ["pids.max", "pids.max"];
const BY_HAND: &str = "limits by hand";
const GROUP: &str = "acme/a.example.com";

fn quota(host: &Host) -> String {
    let text = in_cgroup(host, QUOTA);
    text.split(' ').next().unwrap().to_owned()
}

/// Key, found and wanted of what the status tells.
fn drift(host: &Host) -> Vec<[String; 3]> {
    let status = host.status(SITE);
    let all = status["drift"]
        .as_array()
        .unwrap_or_else(|| panic!("{status}"));
    let word = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
    all.iter()
        .map(|one| ["key", "found", "wanted"].map(|key| word(one, key)))
        .collect()
}

fn check(all: &Value, name: &str) -> Value {
    let mut checks = all["checks"].as_array().unwrap().iter();
    let check = checks.find(|check| check["name"] == name);
    check.unwrap_or_else(|| panic!("{all}")).clone()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    text(output)
}

#[test]
fn what_was_written_by_hand_is_told_and_mended() {
    let host = Host::new("");
    site(
        &host,
        SITE,
        "[limits]\ncpu = \"20%\"\nmemory = \"64M\"\npids = 20\negress = \"10Mbit\"\n",
    );
    assert_eq!(host.dispatch(SITE).status, 200);
    set(&host, &["pids=30"]);
    assert!(drift(&host).is_empty());
    let mend = |more: &[&str]| said(&host.ctl(&[&["set", SITE, "--mend"], more].concat()));
    assert!(mend(&[]).contains("nothing to mend"));

    by_hand(&host, GROUP, QUOTA, "50000");
    by_hand(&host, GROUP, MEMORY, "134217728");
    by_hand(&host, GROUP, PIDS, "max");
    let init = host.status(SITE)["init_pid"].to_string();
    let lifted = Command::new("nsenter")
        .args([
            "--net", "--target", &init, "tc", "qdisc", "del", "dev", "eth0", "root",
        ])
        .output();
    said(&lifted.unwrap());
    let wrong = [
        ["cpu", "50%", "20%"],
        ["memory", "128M", "64M"],
        ["pids", "max", "30"],
        ["egress", "max", "10Mbit/s"],
    ];
    assert_eq!(drift(&host), wrong);
    let status = host.status(SITE);
    // Both are told: what is in force, and that it should not be.
    assert_eq!(status["limits"]["cpu"], "50%");
    let file = status["drift"][0]["file"].as_str().unwrap();
    assert!(
        QUOTA
            .iter()
            .any(|name| file.ends_with(&format!("{GROUP}/{name}"))),
        "{file}"
    );
    assert!(std::fs::metadata(file).is_ok(), "{file}");
    let page = said(&host.ctl(&["status", SITE]));
    assert!(page.contains("cpu is 50% instead of 20% in /"), "{page}");
    let checks = host.request("GET", "/v1/doctor", b"").json();
    // Its network's traffic is limited, so the doctor must find that this can be done.
    assert_eq!(check(&checks, "tc-tbf")["result"], "ok");
    let check = check(&checks, BY_HAND);
    assert_eq!(check["result"], "warn");
    let detail = check["detail"].as_str().unwrap();
    assert!(
        detail.contains("a.example.com: memory is 128M instead of 64M"),
        "{detail}"
    );

    let before = mend(&["--dry-run"]);
    assert_eq!(drift(&host), wrong, "a dry run mends nothing");
    let after = mend(&[]);
    assert_eq!(after, before);
    for [key, found, wanted] in wrong {
        let line = after
            .lines()
            .find(|line| line.starts_with(&format!("{key}:")))
            .unwrap();
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        assert_eq!(words, [found, "→", wanted], "{after}");
    }
    assert!(drift(&host).is_empty());
    assert_eq!(quota(&host), "20000");
    assert_eq!(in_cgroup(&host, MEMORY), (64u64 << 20).to_string());
    assert_eq!(in_cgroup(&host, PIDS), "30");
    assert_eq!(host.status(SITE)["limits"]["egress"], "10Mbit/s");
    assert_eq!(host.status(SITE)["pid"], status["pid"]);
    let told = events(&host, "limits");
    let told = told.last().unwrap();
    assert_eq!(told["cause"], "mended");
    assert_eq!(
        told["changes"][0],
        json!({"key": "cpu", "old": "50%", "new": "20%"})
    );

    // Whoever takes the container over writes what should be.
    by_hand(&host, GROUP, QUOTA, "50000");
    host.crash_and_restart();
    wait_for("the quota is back", seconds(10), || quota(&host) == "20000");
    wait_for("nothing is left to mend", seconds(10), || {
        drift(&host).is_empty()
    });
    // One that sleeps has nothing to be mended; a request for something else beside is refused.
    assert_eq!(host.verb(SITE, "stop").status, 200);
    assert!(mend(&[]).contains("nothing to mend"));
    let path = format!("/v1/vhosts/{SITE}/limits?mend=true");
    assert_eq!(
        host.request("PATCH", &path, b"{\"cpu\": \"30%\"}").status,
        400
    );
    assert_eq!(host.request("PATCH", &(path + "&for=10m"), b"").status, 400);
    host.finish();
}

#[test]
fn who_yields_to_whom_is_looked_at_too() {
    let host = Host::new("");
    let (yields, other) = ("b.example.com", "c.example.com");
    site(
        &host,
        SITE,
        "[limits]\nclass = \"guaranteed\"\ncpu = \"10%\"\n",
    );
    site(&host, yields, "");
    let documents = host.documents(other);
    let text = Host::definition(&documents, harness::STATIC).replace("acme", "other");
    host.define(other, &text);
    for name in [SITE, yields, other] {
        assert_eq!(host.dispatch(name).status, 200);
    }
    let drift = |name: &str| {
        let status = host.status(name);
        let word = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
        let all = status["drift"].as_array().unwrap().iter();
        all.map(|one| ["key", "found", "wanted"].map(|key| word(one, key)))
            .collect::<Vec<_>>()
    };
    let idle = ["cpu.idle"; 2];
    for (name, group, key, found, wanted) in [
        (SITE, GROUP, "cpu_idle", "1", "0"),
        (yields, "acme/b.example.com", "cpu_idle", "0", "1"),
        (other, "other", "owner.cpu_idle", "0", "1"),
    ] {
        assert!(drift(name).is_empty(), "{:?}", drift(name));
        by_hand(&host, group, idle, found);
        assert_eq!(drift(name), [[key, found, wanted].map(str::to_owned)]);
        let said = said(&host.ctl(&["set", name, "--mend"]));
        assert!(
            said.contains(&format!("{key}: {found} → {wanted}")),
            "{said}"
        );
        assert!(drift(name).is_empty(), "{:?}", drift(name));
    }
    host.finish();
}

#[test]
fn the_budget_above_is_looked_at_too_and_lending_is_no_drift() {
    let host = Host::new("");
    site(&host, SITE, "");
    site(&host, "b.example.com", "");
    said(&host.ctl(&["owner", "budget", "acme", "cpu=60%", "memory=256M"]));
    said(&host.ctl(&[
        "owner",
        "split",
        "acme",
        "--lending",
        "a.example.com=30%",
        "b.example.com=70%",
    ]));
    assert_eq!(host.dispatch("b.example.com").status, 200);
    let upstream = host.dispatch(SITE).upstream();
    // What the busy one is lent changes all the time, and all the time it is as told.
    let (mut lent, end) = (false, Instant::now() + seconds(30));
    while !lent {
        assert!(Instant::now() < end, "nothing was lent");
        let upstream = upstream.clone();
        let busy = std::thread::spawn(move || http::get(&upstream, "/cpu/1500", seconds(60)));
        while !busy.is_finished() {
            assert!(drift(&host).is_empty(), "{:?}", drift(&host));
            lent |= quota(&host).parse::<u64>().unwrap() > 18_000;
        }
        assert_eq!(busy.join().unwrap().unwrap().status, 200);
    }

    by_hand(&host, "acme", MEMORY, "536870912");
    by_hand(&host, "acme", QUOTA, "90000");
    by_hand(&host, GROUP, QUOTA, "80000");
    let all = drift(&host);
    let keys: Vec<&str> = all.iter().map(|[key, ..]| key.as_str()).collect();
    // Who lends has written the site's own again by now, or has not.
    assert!(
        keys == ["cpu", "owner.cpu", "owner.memory"] || keys == ["owner.cpu", "owner.memory"],
        "{all:?}"
    );
    assert!(
        all.contains(&["owner.cpu", "90%", "60%"].map(str::to_owned)),
        "{all:?}"
    );
    let mended = said(&host.ctl(&["set", SITE, "--mend"]));
    assert!(mended.contains("owner.memory: 512M → 256M"), "{mended}");
    assert!(drift(&host).is_empty(), "{:?}", drift(&host));
    // What no budget has goes back to what a new group has.
    by_hand(&host, "acme", ["cpu.idle"; 2], "1");
    by_hand(&host, "acme", PIDS, "500");
    let mended = said(&host.ctl(&["set", SITE, "--mend"]));
    for line in ["owner.cpu_idle: 1   → 0", "owner.pids:     500 → max"] {
        assert!(mended.contains(line), "{mended}");
    }
    assert!(drift(&host).is_empty(), "{:?}", drift(&host));
    let owner = host.request("GET", "/v1/owners/acme", b"").json();
    assert_eq!(
        owner["in_force"],
        json!({"cpu": "60%", "memory": "256M", "io": null})
    );
    host.finish();
}
