//! Limits of disk space, as the site itself and others on its file system feel them.
#![allow(clippy::unwrap_used, missing_docs)]

mod count;
mod holds;
mod life;

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::inside::{ask, checker, site};
use harness::limits::{SITE, events, patch, set, text};
use harness::quotas::Quotas;
use harness::sites::put;
use harness::{Host, OWNER, STATIC, http, run, seconds, wait_for};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

fn used(host: &Host) -> u64 {
    host.status(SITE)["usage"]["disk_bytes"].as_u64().unwrap()
}

/// Writes until it is refused: all of the limit is used, and nothing more.
fn fill_up(host: &Host, limit: u64) {
    let said = ask(host, SITE, "fill/40000", 300);
    let (_, errno) = said.split_once(' ').unwrap();
    assert!(
        [libc::EDQUOT, libc::ENOSPC]
            .map(|e| e.to_string())
            .contains(&errno.to_owned()),
        "{said}"
    );
    let used = used(host);
    assert!(
        used <= limit && limit - used < 16 << 10,
        "{used} of {limit}: {said}"
    );
}

/// Project and flags of a file, as the kernel says.
fn project(path: &Path) -> (u32, bool) {
    let said = run("lsattr", &["-pd", path.to_str().unwrap()]);
    let mut words = said.split_whitespace();
    let id = words.next().unwrap().parse().unwrap();
    (id, words.next().unwrap().contains('P'))
}

/// 25 MB, as the site's owner writes them from outside: whether all of it has found room, and how much did.
fn upload(documents: &Path, name: &str) -> (bool, u64) {
    let path = documents.join(name);
    let script = format!("head -c 25M /dev/zero > {}", path.display());
    let done = Command::new("/bin/sh")
        .args(["-c", &script])
        .uid(OWNER)
        .gid(OWNER)
        .status();
    (done.unwrap().success(), fs::metadata(path).unwrap().len())
}

fn kept(host: &Host, name: &str) -> Option<Value> {
    let path = host.dir.join(format!("state/disk/{name}.json"));
    fs::read(path)
        .ok()
        .map(|text| serde_json::from_slice(&text).unwrap())
}

#[test]
fn where_there_are_no_quotas_it_is_refused_before_anything_changes() {
    let host = Host::new("");
    let documents = site(&host, SITE, "");
    for running in [false, true] {
        if running {
            assert_eq!(host.dispatch(SITE).status, 200);
        }
        let before = host.status(SITE);
        let answer = patch(&host, &json!({"pids": 50, "disk": "5G"}));
        let said = answer.json()["detail"].as_str().unwrap().to_owned();
        assert_eq!(answer.status, 409, "{said}");
        for part in [
            format!("cannot limit disk of {SITE}: "),
            format!("{} is on ", documents.display()),
            "without project quotas; ".to_owned(),
        ] {
            assert!(said.contains(&part), "{said}");
        }
        let after = host.status(SITE);
        assert_eq!(
            (&before["limits"], &before["pid"]),
            (&after["limits"], &after["pid"])
        );
        assert_eq!(after["overrides"], json!({}));
        // Asked only, it is refused as it would be.
        let asked = host.ctl(&["set", SITE, "pids=50", "disk=5G", "--dry-run"]);
        let (dry, bare) = (text(&asked), said.split(": ").last().unwrap());
        assert!(!asked.status.success() && dry.contains(bare), "{dry}");
        let asked = host.ctl(&["set", SITE, "pids=50", "disk=max", "--dry-run"]);
        assert!(asked.status.success(), "{}", text(&asked));
        // There is nothing to be lifted.
        set(&host, &["disk=max"]);
        set(&host, &["disk=default"]);
    }
    // One that says so in its definition does not start, and says why.
    host.site(
        "b.example.com",
        &format!("{STATIC}[limits]\ndisk = \"5G\"\n"),
    );
    assert_eq!(host.dispatch("b.example.com").status, 503);
    let why = host.status("b.example.com")["last_failure"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(why.contains("cannot limit disk of b.example.com"), "{why}");
    assert!(kept(&host, SITE).is_none() && kept(&host, "b.example.com").is_none());
    host.finish();
}
