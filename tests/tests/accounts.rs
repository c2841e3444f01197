//! The books: what a site used is what is recorded, whatever happens to the agent meanwhile.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::thread;

use harness::client::as_user;
use harness::inside::site;
use harness::sites::script;
use harness::{Answer, Host, STATIC, http, rounds, seconds, skip, wait_for};
use serde_json::Value;

const SITE: &str = "a.example.com";
const ACME: u32 = 71_201;
const BOLT: u32 = 71_202;

/// What is recorded of the site, in the last hour.
fn usage(host: &Host) -> Value {
    let answer = host.request("GET", &format!("/v1/usage?vhost={SITE}&since=1h"), b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["vhosts"][0].clone()
}

fn number(usage: &Value, key: &str) -> f64 {
    usage[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{key}: {usage}"))
}

/// Asks the site itself: there need not be an agent.
fn tell(upstream: &str, what: &str) -> f64 {
    let answer = http::get(upstream, &format!("/{what}"), seconds(60)).unwrap();
    let text = String::from_utf8(answer.body).unwrap();
    text.parse().unwrap_or_else(|_| panic!("{what}: {text}"))
}

/// What the sites of a test have counted themselves.
#[derive(Debug, Default)]
struct Counted {
    lives: f64,
    cpu: f64,
    bytes: f64,
}

impl Counted {
    /// What is recorded is that, and what a start costs beside: init, and what it does before the command runs.
    fn check(&self, host: &Host, start: f64, with_io: bool) {
        let recorded = usage(host);
        let cpu = number(&recorded, "cpu_seconds");
        println!("{self:?}, a start costs {start:.4} s, recorded: {recorded}");
        assert!(cpu >= self.cpu * 0.99, "CPU time is missing");
        let most = self.cpu * 1.01 + self.lives * start * 2.0;
        assert!(cpu <= most, "CPU time was counted twice");
        assert_eq!(number(&recorded, "starts"), self.lives);
        if with_io {
            let written = number(&recorded, "io_write_bytes");
            assert!((written / self.bytes - 1.0).abs() <= 0.01, "{written}");
        }
        for (key, total) in recorded["total"].as_object().unwrap() {
            assert_eq!(&recorded[key], total, "{key} of an hour and of all time");
        }
        let points = recorded["series"].as_array().unwrap();
        let sum: f64 = points.iter().map(|p| number(p, "cpu_seconds")).sum();
        assert!((sum - cpu).abs() < 1e-6, "the series adds up to {sum}");
    }
}

/// Lives that do nothing, and what the dearest start of them cost: CPU time that is recorded, but not the command's. An agent
/// that has just begun has nothing made ahead, and more of a start is the container's then.
fn idle_lives(host: &Host) -> (Counted, f64) {
    let mut counted = Counted::default();
    let mut dearest: f64 = 0.0;
    let mut recorded = usage(host)["cpu_seconds"].as_f64().unwrap_or(0.0);
    for _ in 0..3 {
        host.crash_and_restart();
        let own = tell(&host.dispatch(SITE).upstream(), "burn/0") / 1e6;
        assert_eq!(host.verb(SITE, "stop").status, 200);
        let now = number(&usage(host), "cpu_seconds");
        let start = now - recorded - own;
        assert!(
            start >= 0.0,
            "of {own} s only {} s were recorded",
            now - recorded
        );
        (recorded, dearest) = (now, dearest.max(start));
        counted.cpu += own;
        counted.lives += 1.0;
    }
    (counted, dearest)
}

#[test]
fn the_books_add_up_though_the_agent_is_killed() {
    let host = Host::new("");
    // A limit that is never reached shows whether these documents lie on a disk at all.
    site(&host, SITE, "[limits]\nio = { write = \"900MB/s\" }\n");
    let answer = host.dispatch(SITE);
    let with_io = answer.status == 200;
    if !with_io {
        assert!(String::from_utf8_lossy(&answer.body).contains("no block device"));
        skip("this directory's file system is on no disk");
        return host.finish();
    }
    host.verb(SITE, "stop");
    let (mut counted, start) = idle_lives(&host);
    // The one that has shown it.
    counted.lives += 1.0;
    for end in ["stop", "agent dies first", "nobody there"] {
        let upstream = host.dispatch(SITE).upstream();
        let mut own = 0.0;
        for _ in 0..3 {
            let work = {
                let upstream = upstream.clone();
                thread::spawn(move || (tell(&upstream, "put/32"), tell(&upstream, "burn/500")))
            };
            host.crash_and_restart();
            let (bytes, cpu) = work.join().unwrap();
            counted.bytes += bytes;
            own = cpu / 1e6;
        }
        counted.cpu += own;
        counted.lives += 1.0;
        match end {
            "stop" => assert_eq!(host.verb(SITE, "stop").status, 200),
            "agent dies first" => {
                host.crash_and_restart();
                assert_eq!(host.verb(SITE, "stop").status, 200);
            }
            _ => {
                let main = u32::try_from(host.status(SITE)["pid"].as_u64().unwrap()).unwrap();
                host.signal_agent(libc::SIGKILL);
                harness::send_signal(main, libc::SIGKILL);
                wait_for("its end", seconds(10), || {
                    host.run_dir
                        .join("sites")
                        .join(SITE)
                        .join("exit")
                        .metadata()
                        .is_ok_and(|f| f.len() > 0)
                });
                host.start();
                host.wait_state(SITE, "stopped", 10);
            }
        }
    }
    counted.check(&host, start, with_io);
    host.finish();
}

#[test]
fn short_lives_are_counted_to_the_last() {
    let host = Host::new("");
    site(&host, SITE, "");
    let (mut counted, start) = idle_lives(&host);
    for round in 0..rounds(12, 4) {
        let upstream = host.dispatch(SITE).upstream();
        counted.cpu += tell(&upstream, "burn/100") / 1e6;
        counted.lives += 1.0;
        assert_eq!(host.verb(SITE, "stop").status, 200);
        // What was promised with the answer is kept.
        if round % 2 == 0 {
            host.crash_and_restart();
        }
    }
    counted.check(&host, start, false);
    // Each start was timed once, though agents came and went.
    let times = &usage(&host)["start_times"];
    assert_eq!(number(times, "starts"), counted.lives, "{times}");
    let (mean, most) = (number(times, "mean_ms"), number(times, "max_ms"));
    assert!(0.0 < mean && mean <= most, "{times}");
    let parts = times["mean_phases"].as_object().unwrap();
    let parts: f64 = parts.values().map(|part| part.as_f64().unwrap()).sum();
    assert!(0.0 < parts && parts <= mean * 1.01, "{times}");
    host.finish();
}

#[test]
fn a_start_that_fails_is_recorded_with_what_it_used() {
    let host = Host::new("");
    host.site(
        SITE,
        &script("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exit 3"),
    );
    assert_eq!(host.dispatch(SITE).status, 503);
    let used = usage(&host);
    assert_eq!(
        (
            number(&used, "starts"),
            number(&used, "failed_starts"),
            number(&used, "awake_seconds")
        ),
        (1.0, 1.0, 0.0),
        "{used}"
    );
    assert!(number(&used, "cpu_seconds") > 0.01, "{used}");
    host.finish();
}

#[test]
fn a_living_site_is_seen_while_it_lives() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    for _ in 0..3 {
        host.get(SITE, "/");
    }
    wait_for("a sample", seconds(20), || {
        let used = usage(&host);
        number(&used, "dispatches") == 3.0 && number(&used, "net_rx_bytes") > 0.0
    });
    let used = usage(&host);
    assert_eq!(number(&used, "starts"), 1.0);
    for key in [
        "cpu_seconds",
        "memory_peak_bytes",
        "memory_current_bytes",
        "net_tx_bytes",
        "pids_peak",
    ] {
        assert!(number(&used, key) > 0.0, "{key}: {used}");
    }
    // Measured apart, soon after it was read for the first time, and told with a later reading.
    wait_for("its private memory", seconds(120), || {
        host.get(SITE, "/");
        number(&usage(&host), "memory_private_bytes") > 0.0
    });
    let used = usage(&host);
    assert!(number(&used, "memory_private_bytes") < 4e6, "{used}");
    let page = host.ctl(&["usage", SITE]);
    let text = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(
        page.status.success()
            && text.contains("a.example.com of acme")
            && text.contains("a start took"),
        "{text}"
    );
    assert_eq!(host.verb(SITE, "stop").status, 200);
    assert!(number(&usage(&host), "awake_seconds") > 0.0);
    let sheet = host.ctl(&["usage", "--csv", "--owner", "acme"]);
    let text = String::from_utf8_lossy(&sheet.stdout).into_owned();
    assert_eq!(text.lines().count(), 2, "{text}");
    host.finish();
}

fn ask(host: &Host, uid: u32, query: &str) -> Answer {
    let socket = host.socket();
    as_user(uid, uid, &[], || {
        http::request(&socket, "GET", &format!("/v1/usage{query}"), b"")
    })
    .unwrap()
}

#[test]
fn an_owner_sees_nothing_of_others() {
    let host = Host::new(&format!(
        "[owner.acme]\nuid = {ACME}\n[owner.bolt]\nuid = {BOLT}\n"
    ));
    for (name, owner) in [(SITE, "acme"), ("b.example.com", "bolt")] {
        let documents = host.documents(name).display().to_string();
        host.define(
            name,
            &format!("owner = {owner:?}\ndocuments = {documents:?}\n{STATIC}"),
        );
        host.get(name, "/");
        assert_eq!(host.verb(name, "stop").status, 200);
    }
    let names = |answer: &Answer, key: &str| -> Vec<String> {
        assert_eq!(answer.status, 200, "{answer:?}");
        let all = answer.json();
        let list = all[format!("{key}s")].as_array().unwrap();
        list.iter()
            .map(|v| v[key].as_str().unwrap().to_owned())
            .collect()
    };
    for query in ["", "?owner=acme", "?vhost=a.example.com", "?since=400d"] {
        let answer = ask(&host, ACME, query);
        assert_eq!(names(&answer, "vhost"), [SITE], "{query}");
        assert_eq!(names(&answer, "owner"), ["acme"], "{query}");
        assert!(
            !String::from_utf8_lossy(&answer.body).contains("bolt"),
            "{query}"
        );
    }
    for (query, status) in [
        ("?owner=bolt", 403),
        ("?vhost=b.example.com", 403),
        ("?vhost=c.example.com", 404),
        ("?since=soon", 400),
        ("?since=24h&step=1s", 400),
    ] {
        assert_eq!(ask(&host, ACME, query).status, status, "{query}");
    }
    let all = host.request("GET", "/v1/usage", b"");
    assert_eq!(names(&all, "owner"), ["acme", "bolt"]);
    // The history of a site that is not there any more is still its owner's.
    fs::remove_file(host.dir.join("vhosts.d/b.example.com.toml")).unwrap();
    wait_for("it is gone", seconds(10), || {
        host.status("b.example.com")["status"] == 404
    });
    assert_eq!(
        names(&ask(&host, BOLT, "?vhost=b.example.com"), "vhost"),
        ["b.example.com"]
    );
    assert_eq!(ask(&host, ACME, "?vhost=b.example.com").status, 404);
    host.finish();
}

#[test]
fn a_damaged_database_does_not_keep_the_agent_from_serving() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    host.signal_agent(libc::SIGTERM);
    let path = host.dir.join("state/usage.redb");
    fs::write(&path, "this is no database").unwrap();
    host.start();
    wait_for("it says so", seconds(10), || {
        host.log().contains("usage.redb.bad-")
    });
    assert_eq!(host.get(SITE, "/").status, 200);
    assert_eq!(host.verb(SITE, "stop").status, 200);
    assert_eq!(number(&usage(&host), "starts"), 1.0);
    host.finish();
}

/// What the kernel has counted of it so far.
fn counted(host: &Host, key: &str) -> f64 {
    number(&host.status(SITE)["usage"], key)
}

#[test]
fn what_it_does_without_the_agent_is_recorded_while_it_lives_be_it_little_or_much() {
    let host = Host::new("");
    // Of one owner, of whom one counter tells whether any of them has run.
    for name in ["b.example.com", "c.example.com", SITE] {
        site(&host, name, "[idle]\ntimeout = \"1h\"\n");
        assert_eq!(host.dispatch(name).status, 200);
    }
    let upstream = host.dispatch(SITE).upstream();
    wait_for("its first reading", seconds(20), || {
        number(&usage(&host), "dispatches") == 2.0
    });
    for what in ["burn/100", "burn/0"] {
        let before = number(&usage(&host), "net_rx_bytes");
        tell(&upstream, what);
        let missing = |key| (counted(&host, key) - number(&usage(&host), key)).abs();
        // No more than a little is left out for longer than it takes to look at all.
        wait_for(&format!("the time of {what}"), seconds(20), || {
            missing("cpu_seconds") < 0.005
        });
        wait_for(&format!("all of {what}"), seconds(50), || {
            let all = ["cpu_seconds", "net_rx_bytes", "net_tx_bytes"];
            all.into_iter().all(|key| missing(key) == 0.0)
        });
        assert!(number(&usage(&host), "net_rx_bytes") > before, "{what}");
    }
    host.finish();
}
