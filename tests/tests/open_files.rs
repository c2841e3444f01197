//! Open files of one process, changed on all processes of a running container.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fs;

use harness::inside::{self, CHECKER};
use harness::limits::{SITE, events, in_cgroup, may_raise_files, patch, set, text};
use harness::{Host, seconds, wait_for};
use serde_json::json;

/// A server with three children that wait, and one that has given up most of its files.
const FAMILY: &str = "sleep 1000 & sleep 1000 & sleep 1000 & (ulimit -n 20; exec sleep 2000) &";

/// Starts a site whose server has company.
fn site(host: &Host, company: &str, limits: &str) {
    let documents = host.documents(SITE);
    inside::put(&documents);
    let script = format!("#!/bin/sh\n{company}\nexec /site/checker serve 8080\n");
    fs::write(documents.join("run"), script).unwrap();
    define(host, limits);
    assert_eq!(host.dispatch(SITE).status, 200);
}

fn define(host: &Host, limits: &str) {
    let command = CHECKER.lines().last().unwrap();
    host.site(
        SITE,
        &format!(
            "command = [\"/bin/sh\", \"/site/run\"]\n{command}\n[start]\ntimeout = \"60s\"\n[limits]\n{limits}\n"
        ),
    );
}

/// Soft and hard limit of every process but its init; of those that end while they are looked at, none.
fn all(host: &Host) -> BTreeMap<i64, (u64, u64)> {
    let init = host.status(SITE)["init_pid"].as_i64().unwrap();
    let pids = in_cgroup(host, ["cgroup.procs", "tasks"]);
    let pids = pids.lines().map(|pid| pid.parse::<i64>().unwrap());
    let limits = |pid: i64| {
        let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
        let line = text
            .lines()
            .find(|line| line.starts_with("Max open files"))?;
        let mut words = line.split_whitespace().skip(3).map(|n| n.parse().unwrap());
        Some((pid, (words.next()?, words.next()?)))
    };
    pids.filter(|pid| *pid != init).filter_map(limits).collect()
}

/// The family's limits: those of the one who has less, and of all others.
fn family(host: &Host) -> ((u64, u64), (u64, u64)) {
    let all = all(host);
    assert_eq!(all.len(), 5, "{all:?}");
    let modest = |pid: &i64| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        words == b"sleep\x002000\x00"
    };
    let (some, others): (Vec<_>, Vec<_>) = all.iter().partition(|(pid, _)| modest(pid));
    assert!(others.iter().all(|one| one.1 == others[0].1), "{all:?}");
    (*some[0].1, *others[0].1)
}

/// With the family complete.
fn family_site(host: &Host, limits: &str) {
    site(host, FAMILY, limits);
    wait_for("its children", seconds(10), || {
        all(host).values().any(|own| *own == (20, 20)) && all(host).len() == 5
    });
}

fn pids(host: &Host) -> Vec<i64> {
    all(host).into_keys().collect()
}

fn inside(host: &Host) -> String {
    let output = host.ctl(&["exec", SITE, "--", "sh", "-c", "ulimit -Sn; ulimit -Hn"]);
    text(&output)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn fewer_are_in_force_at_once_for_every_process() {
    let host = Host::new("");
    family_site(&host, "nofile = 200");
    let (before, status) = (pids(&host), host.status(SITE));
    assert_eq!(status["limits"]["nofile"], 200);
    assert_eq!(family(&host), ((20, 20), (200, 200)));
    let said = set(&host, &["nofile=100", "pids=30"]);
    assert!(said.contains("200 → 100"), "{said}");
    assert_eq!(family(&host), ((20, 20), (100, 100)));
    assert_eq!(inside(&host), "100 100");
    assert_eq!(pids(&host), before);
    let after = host.status(SITE);
    assert_eq!(
        (&after["pid"], &after["init_pid"]),
        (&status["pid"], &status["init_pid"])
    );
    assert_eq!(after["limits"]["nofile"], 100);
    assert_eq!(after["drift"], json!([]));
    // Below what one of them has, too, and what the next agent does not know it finds out.
    host.crash_and_restart();
    set(&host, &["nofile=16"]);
    assert_eq!(family(&host), ((16, 16), (16, 16)));
    let told = events(&host, "limits");
    let last = &told.last().unwrap()["changes"];
    assert_eq!(last, &json!([{"key": "nofile", "old": "100", "new": "16"}]));
    assert_eq!(pids(&host), before);
    host.finish();
}

#[test]
fn what_a_server_has_given_up_it_does_not_get_back_from_the_next_agent() {
    let host = Host::new("");
    site(&host, "ulimit -n 50", "nofile = 200");
    let main = |host: &Host| all(host)[&host.status(SITE)["pid"].as_i64().unwrap()];
    let (before, limits) = (pids(&host), main(&host));
    assert_eq!(limits, (50, 50));
    host.crash_and_restart();
    set(&host, &["cpu=50%"]);
    assert_eq!((pids(&host), main(&host)), (before.clone(), limits));
    // Nor do limits that were set live.
    set(&host, &["nofile=100"]);
    host.crash_and_restart();
    set(&host, &["cpu=60%"]);
    assert_eq!((pids(&host), main(&host)), (before, limits));
    assert_eq!(inside(&host), "100 100");
    host.finish();
}

#[test]
fn more_than_the_kernel_grants_are_refused_before_anything_is_written() {
    let host = Host::new("");
    host.site(SITE, "command = [\"/bin/true\"]\nlisten = \"tcp:8080\"\n");
    let before = host.status(SITE);
    for words in [
        &["nofile=9000000000000", "--dry-run"][..],
        &["nofile=9000000000000"],
    ] {
        let output = host.ctl(&[&["set", SITE][..], words].concat());
        assert!(!output.status.success(), "{}", text(&output));
        assert!(text(&output).contains("fs.nr_open"), "{}", text(&output));
    }
    assert_eq!(host.status(SITE)["limits"], before["limits"]);
    host.finish();
}

#[test]
fn more_are_in_force_at_once_or_refused_with_nothing_changed() {
    let host = Host::new("");
    family_site(&host, "nofile = 200\npids = 50");
    let (before, status) = (pids(&host), host.status(SITE));
    if may_raise_files() {
        set(&host, &["nofile=5000", "pids=60"]);
        assert_eq!(family(&host), ((20, 20), (4096, 5000)));
        assert_eq!(inside(&host), "4096 5000");
        assert_eq!(host.status(SITE)["limits"]["nofile"], 5000);
        // What this kernel does not grant: all is as it was.
        let words = ["set", SITE, "nofile=9000000000000", "pids=70"];
        let output = host.ctl(&words);
        assert!(!output.status.success(), "{}", text(&output));
        assert_eq!(family(&host), ((20, 20), (4096, 5000)));
        assert_eq!(host.status(SITE)["limits"]["pids"], 60);
        by_hand_and_mended(&host);
    } else {
        for dry_run in [&["--dry-run"][..], &[]] {
            let words = ["set", SITE, "nofile=5000", "pids=60"];
            let output = host.ctl(&[&words[..], dry_run].concat());
            let said = text(&output);
            assert!(!output.status.success(), "{said}");
            for part in ["from 200 to 5000", "CAP_SYS_RESOURCE", "fastctl stop"] {
                assert!(said.contains(part), "{part} in {said}");
            }
        }
        let after = host.status(SITE);
        for key in ["limits", "overrides", "drift"] {
            assert_eq!(after[key], status[key], "{key}");
        }
        assert_eq!(family(&host), ((20, 20), (200, 200)));
    }
    assert_eq!(pids(&host), before);
    // What it says helps.
    assert_eq!(host.verb(SITE, "stop").status, 200);
    set(&host, &["nofile=6000"]);
    assert_eq!(host.dispatch(SITE).status, 200);
    assert_eq!(inside(&host), "4096 6000");
    host.finish();
}

fn by_hand_and_mended(host: &Host) {
    let pid = host.status(SITE)["pid"].to_string();
    harness::run("prlimit", &["--pid", &pid, "--nofile=7000:7000"]);
    let drift = host.status(SITE)["drift"].clone();
    assert_eq!(
        (&drift[0]["key"], &drift[0]["found"]),
        (&json!("nofile"), &json!("7000"))
    );
    let output = host.ctl(&["set", SITE, "--mend"]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(host.status(SITE)["drift"], json!([]));
    assert_eq!(host.status(SITE)["limits"]["nofile"], 5000);
}

#[test]
fn for_a_time_only_what_can_be_taken_back() {
    let host = Host::new("");
    family_site(&host, "nofile = 200");
    let path = format!("/v1/vhosts/{SITE}/limits?for=3s");
    let for_a_time = |files: u64| {
        host.request(
            "PATCH",
            &path,
            json!({"nofile": files}).to_string().as_bytes(),
        )
    };
    let answer = for_a_time(100);
    if may_raise_files() {
        assert_eq!(answer.status, 200, "{}", answer.json());
        assert_eq!(family(&host), ((20, 20), (100, 100)));
    } else {
        assert_eq!(answer.status, 409, "{}", answer.json());
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("raise it again"), "{detail}");
    }
    wait_for("the old limit", seconds(30), || {
        family(&host).1 == (200, 200) && host.status(SITE)["temporary"] == json!({})
    });
    assert_eq!(family(&host), ((20, 20), (200, 200)));
    // More while it sleeps, for the next start: that can be taken back everywhere.
    assert_eq!(host.verb(SITE, "stop").status, 200);
    assert_eq!(for_a_time(300).status, 200);
    assert_eq!(host.dispatch(SITE).status, 200);
    wait_for("the old limit", seconds(30), || {
        let main = host.status(SITE)["pid"].as_i64().unwrap();
        all(&host).get(&main) == Some(&(200, 200))
    });
    host.finish();
}

#[test]
fn no_process_is_born_past_the_change() {
    let host = Host::new("");
    // Each process begets the next and ends: four chains that nobody overtakes by looking for them.
    site(
        &host,
        "c() { c & }; c; c; c; c; sleep 1000 &",
        "nofile = 1000\npids = 60\ncpu = \"60%\"",
    );
    let before = host.status(SITE);
    for files in [800, 600, 400, 200, 100] {
        set(&host, &[&format!("nofile={files}")]);
        for _ in 0..20 {
            let all = all(&host);
            assert!(
                !all.is_empty() && all.values().all(|own| *own == (files, files)),
                "{all:?}"
            );
        }
        assert_eq!(inside::ask(&host, SITE, "pid", 60), "2");
    }
    let after = host.status(SITE);
    assert_eq!(
        (&after["pid"], &after["state"]),
        (&before["pid"], &json!("running"))
    );
    host.finish();
}

#[test]
fn a_frozen_site_stays_frozen() {
    let host = Host::new("");
    family_site(&host, "nofile = 200");
    assert_eq!(host.verb(SITE, "freeze").status, 200);
    assert_eq!(patch(&host, &json!({"nofile": 100})).status, 200);
    assert_eq!(family(&host).1, (100, 100));
    assert_eq!(host.state(SITE), "frozen");
    assert!(in_cgroup(&host, ["cgroup.events", "cgroup.events"]).contains("frozen 1"));
    assert_eq!(host.dispatch(SITE).status, 200);
    assert_eq!(inside::ask(&host, SITE, "pid", 60), "2");
    host.finish();
}

#[test]
fn another_definition_is_followed_live_or_with_another_container() {
    let host = Host::new("");
    family_site(&host, "nofile = 200");
    let before = pids(&host);
    define(&host, "nofile = 150");
    wait_for("fewer files", seconds(20), || family(&host).1 == (150, 150));
    assert_eq!(pids(&host), before);
    let first = host.status(SITE)["pid"].clone();
    define(&host, "nofile = 300");
    wait_for("more files", seconds(60), || {
        host.dispatch(SITE).status == 200 && inside(&host) == "300 300"
    });
    assert_eq!(host.status(SITE)["pid"] == first, may_raise_files());
    host.finish();
}
