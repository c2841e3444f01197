//! Classes: what is promised is counted, kept by the kernel, and never more than the host has.
#![allow(clippy::unwrap_used, missing_docs)]

mod changes;
mod cpus;
mod latency;
mod memory;

use std::fs;
use std::path::Path;

use harness::limits::text;
use harness::{Answer, Host, STATIC, cgroup_roots, seconds, wait_for};
use serde_json::{Value, json};

const A: &str = "a.example.com";
const B: &str = "b.example.com";
const C: &str = "c.example.org";
const GUARANTEED: &str = "[limits]\nclass = \"guaranteed\"\n";

/// Percent of a core of all processors together.
fn cores() -> u64 {
    let online = fs::read_to_string("/proc/stat").unwrap();
    let cpus = online.lines().filter(|l| l.starts_with("cpu")).count() - 1;
    100 * cpus as u64
}

fn define(host: &Host, name: &str, owner: &str, limits: &str) {
    let documents = host.documents(name).display().to_string();
    let text = format!(
        "owner = {owner:?}\ndocuments = {documents:?}\n{STATIC}\n{limits}\n[idle]\ntimeout = \"1h\"\n"
    );
    host.define(name, &text);
}

fn put(host: &Host, name: &str, query: &str, limits: &Value) -> Answer {
    let body = json!({
        "owner": "acme", "documents": host.documents(name), "listen": "tcp:8080", "limits": limits,
        "command": ["/usr/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/site"],
    });
    host.request(
        "PUT",
        &format!("/v1/vhosts/{name}{query}"),
        body.to_string().as_bytes(),
    )
}

fn promises(host: &Host) -> Value {
    host.request("GET", "/v1/status", b"").json()["promises"].clone()
}

/// A file of a group below the agent's; the first that there is.
fn file(host: &Host, group: &str, names: &[&str]) -> Option<String> {
    let roots = cgroup_roots();
    let paths = names.iter().flat_map(|name| {
        let below = move |root: &String| {
            Path::new(root)
                .join(&host.cgroup_parent)
                .join(group)
                .join(name)
        };
        roots.iter().map(below)
    });
    let text = paths
        .filter_map(|path| fs::read_to_string(path).ok())
        .next();
    text.map(|text| text.trim().to_owned())
}

/// `cpu.idle` of a group, and its weight where it has one, in v2's terms.
fn rank(host: &Host, group: &str) -> (bool, u64) {
    let idle = file(host, group, &["cpu.idle"]).unwrap() == "1";
    let weight = match file(host, group, &["cpu.weight"]) {
        Some(weight) => weight.parse().unwrap(),
        None => {
            let shares: u64 = file(host, group, &["cpu.shares"]).unwrap().parse().unwrap();
            (shares * 100 + 512) / 1024
        }
    };
    (idle, if idle { 0 } else { weight })
}

fn oom_order(host: &Host, vhost: &str) -> i32 {
    let pid = host.status(vhost)["pid"].as_i64().unwrap();
    let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    text.trim().parse().unwrap()
}

#[test]
fn more_than_the_host_has_is_refused_with_the_arithmetic() {
    let host = Host::new("[reserve]\ncpu = \"10%\"\n");
    let (all, room) = (cores(), cores() * 9 / 10);
    define(&host, A, "acme", &format!("{GUARANTEED}cpu = \"30%\""));
    assert_eq!(promises(&host)["cpu"]["promised"], "30%");
    let before = promises(&host);
    let too_much = json!({"class": "guaranteed", "cpu": format!("{}%", all - 30)});
    for query in ["?dry_run=true", ""] {
        let answer = put(&host, B, query, &too_much);
        assert_eq!(answer.status, 409, "{query}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        let arithmetic = format!(
            "30% promised to others + {}% = {all}%, and there are {all}% - {}% reserve = {room}%, {}% too much",
            all - 30,
            all - room,
            all - room
        );
        assert!(detail.contains(&arithmetic), "{detail}");
    }
    assert_eq!(
        host.request("GET", &format!("/v1/vhosts/{B}"), b"").status,
        404
    );
    assert_eq!(promises(&host), before);
    // As much as there is fits, and not a point more, whether it runs or sleeps.
    assert_eq!(host.dispatch(A).status, 200);
    for (cpu, fits) in [(room + 1, false), (room, true)] {
        let output = host.ctl(&["set", A, &format!("cpu={cpu}%")]);
        assert_eq!(output.status.success(), fits, "{}", text(&output));
        let wanted = if fits { cpu } else { 30 };
        assert_eq!(host.status(A)["limits"]["cpu"], format!("{wanted}%"));
        assert_eq!(promises(&host)["cpu"]["promised"], format!("{wanted}%"));
    }
    let nothing = json!({"class": "guaranteed", "cpu": "1%"});
    assert_eq!(put(&host, B, "", &nothing).status, 409);
    // Best effort may have as much as it likes.
    assert_eq!(
        put(&host, B, "", &json!({"cpu": format!("{all}%")})).status,
        200
    );
    assert!(!host.ctl(&["set", B, "class=guaranteed"]).status.success());
    // What is given up can be promised to somebody else.
    let tried = host.ctl(&["set", "--dry-run", A, "class=best-effort"]);
    assert!(tried.status.success(), "{}", text(&tried));
    assert!(!host.ctl(&["set", B, "class=guaranteed"]).status.success());
    assert!(host.ctl(&["set", A, "class=best-effort"]).status.success());
    assert!(
        host.ctl(&["set", B, "class=guaranteed", "cpu=20%"])
            .status
            .success()
    );
    assert_eq!(promises(&host)["cpu"]["promised"], "20%");
    let page = text(&host.ctl(&["status", B]));
    assert!(page.contains("guaranteed (CPU 20% promised)"), "{page}");
    for verb in ["status", "capacity"] {
        let page = text(&host.ctl(&[verb]));
        assert!(
            page.contains(&format!("20% of {all}% - ")),
            "{verb}: {page}"
        );
    }
    let list = text(&host.ctl(&["list"]));
    assert!(
        list.contains("CLASS") && list.contains("guaranteed"),
        "{list}"
    );
    // Who goes takes the promise along.
    assert_eq!(
        host.request("DELETE", &format!("/v1/vhosts/{B}"), b"")
            .status,
        200
    );
    assert_eq!(promises(&host)["cpu"]["promised"], "0%");
    assert_eq!(
        put(&host, C, "", &json!({"class": "guaranteed"})).status,
        400
    );
    host.finish();
}

#[test]
fn an_owners_sites_are_promised_no_more_than_the_budget() {
    let host = Host::new("");
    define(&host, A, "acme", &format!("{GUARANTEED}cpu = \"20%\""));
    let budget = |words: &[&str]| host.ctl(&[&["owner", "budget", "acme"], words].concat());
    assert!(!budget(&["cpu=10%"]).status.success());
    assert!(budget(&["cpu=50%"]).status.success());
    let output = host.ctl(&["set", A, "cpu=60%"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("0% + 60% = 60%, 10% too much"), "{said}");
    assert!(host.ctl(&["set", A, "cpu=50%"]).status.success());
    assert_eq!(
        put(&host, B, "", &json!({"class": "guaranteed", "cpu": "1%"})).status,
        409
    );
    host.finish();
}

#[test]
fn what_does_not_fit_at_the_agents_start_is_reported_and_runs_as_best_effort() {
    let host = Host::new("");
    let most = cores() * 8 / 10;
    define(&host, A, "acme", &format!("{GUARANTEED}cpu = \"{most}%\""));
    host.signal_agent(libc::SIGTERM);
    let documents = host.documents(B);
    let definition = Host::definition(
        &documents,
        &format!("{STATIC}{GUARANTEED}cpu = \"{most}%\""),
    );
    fs::write(
        host.dir.join("vhosts.d/b.example.com.toml"),
        format!("name = {B:?}\n{definition}"),
    )
    .unwrap();
    host.start();
    let problems = host.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].contains("treated as best effort: more CPU would be promised"),
        "{problems:?}"
    );
    for (site, kept) in [(A, true), (B, false)] {
        assert_eq!(host.dispatch(site).status, 200);
        let status = host.status(site);
        assert_eq!(
            (&status["class"], status["promised"].is_object()),
            (&json!("guaranteed"), kept)
        );
        // After those who waited for it have been answered.
        wait_for("its place in the order of ends", seconds(5), || {
            (oom_order(&host, site) == 0) == kept
        });
    }
    let page = text(&host.ctl(&["status", B]));
    assert!(page.contains("the promise is not kept"), "{page}");
    assert!(rank(&host, "acme/b.example.com").0);
    // Limits that have nothing to do with it can be changed all the same.
    assert!(host.ctl(&["set", B, "pids=100"]).status.success());
    // Once there is room it is kept.
    assert!(host.ctl(&["set", A, "class=best-effort"]).status.success());
    assert!(host.problems().is_empty());
    assert!(host.status(B)["promised"].is_object());
    assert_eq!(rank(&host, "acme/b.example.com"), (false, 10_000));
    assert!(rank(&host, "acme/a.example.com").0);
    host.finish();
}

#[test]
fn who_is_promised_nothing_yields_among_owners_and_among_their_sites() {
    let host = Host::new("");
    for (site, owner) in [(A, "acme"), (B, "acme"), (C, "bolt")] {
        define(&host, site, owner, "");
        assert_eq!(host.dispatch(site).status, 200);
    }
    let (a, b, c) = (
        "acme/a.example.com",
        "acme/b.example.com",
        "bolt/c.example.org",
    );
    let groups = ["acme", "bolt", a, b, c];
    let ranks = || groups.map(|group| rank(&host, group));
    assert_eq!(ranks(), [(false, 100); 5]);
    let weight = (20 * 10_000u64).div_ceil(cores());
    let promised = [
        (false, weight),
        (true, 0),
        (false, 10_000),
        (true, 0),
        (false, 100),
    ];
    assert!(
        host.ctl(&["set", A, "class=guaranteed", "cpu=20%"])
            .status
            .success()
    );
    assert_eq!(ranks(), promised);
    assert!(oom_order(&host, A) == 0 && oom_order(&host, B) == 500);
    // Whoever starts later, and after another agent has taken over, finds the same.
    for site in [A, B, C] {
        assert_eq!(host.verb(site, "restart").status, 200);
    }
    assert_eq!(ranks(), promised);
    assert!(oom_order(&host, A) == 0 && oom_order(&host, C) == 500);
    host.crash_and_restart();
    wait_for("the next agent has the same in force", seconds(10), || {
        ranks() == promised
    });
    // A weight of one's own is kept, beside the guaranteed as a small one.
    assert!(host.ctl(&["set", B, "cpu_weight=400"]).status.success());
    assert_eq!(rank(&host, b), (false, 4));
    assert!(host.ctl(&["set", B, "cpu_weight=default"]).status.success());
    assert_eq!(ranks(), promised);
    assert!(host.ctl(&["set", A, "class=best-effort"]).status.success());
    assert_eq!(ranks(), [(false, 100); 5]);
    assert_eq!(oom_order(&host, A), 500);
    // An agent that finds the marks of another one but no promise any more lifts them.
    // Also of an owner who has a budget beside.
    assert!(host.ctl(&["set", A, "class=guaranteed"]).status.success());
    let budget = host.ctl(&["owner", "budget", "acme", "memory=1G"]);
    assert!(budget.status.success(), "{}", text(&budget));
    host.signal_agent(libc::SIGKILL);
    fs::remove_file(host.dir.join(format!("state/vhosts/{A}.json"))).unwrap();
    host.start();
    wait_for("nobody yields any more", seconds(10), || {
        ranks() == [(false, 100); 5]
    });
    host.finish();
}

#[test]
fn a_division_goes_on_beside_a_guarantee() {
    let host = Host::new("");
    for site in [A, B] {
        define(&host, site, "acme", "");
        assert_eq!(host.dispatch(site).status, 200);
    }
    let (a, b) = ("acme/a.example.com", "acme/b.example.com");
    assert!(
        host.ctl(&["owner", "budget", "acme", "cpu=100%"])
            .status
            .success()
    );
    let split = host.ctl(&[
        "owner",
        "split",
        "acme",
        "--hard",
        &format!("{A}=60%"),
        &format!("{B}=40%"),
    ]);
    assert!(split.status.success(), "{}", text(&split));
    assert_eq!(
        (rank(&host, a), rank(&host, b)),
        ((false, 6_000), (false, 4_000))
    );
    assert!(
        host.ctl(&["set", A, "class=guaranteed", "cpu=50%"])
            .status
            .success()
    );
    assert_eq!(
        (rank(&host, a), rank(&host, b)),
        ((false, 10_000), (false, 40))
    );
    assert_eq!(host.status(B)["limits"]["cpu"], "40%");
    assert!(host.ctl(&["set", A, "class=default"]).status.success());
    assert_eq!(
        (rank(&host, a), rank(&host, b)),
        ((false, 6_000), (false, 4_000))
    );
    host.finish();
}
