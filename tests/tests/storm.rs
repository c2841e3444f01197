//! Many sites asked for at once: owners take turns, and what waits too long is not begun.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::Path;
use std::thread;

use harness::sites::{put, script};
use harness::{Answer, Host, http, seconds, time_scale, wait_for};
use serde_json::Value;

/// One start at a time, so that the order is that of the queue.
const ONE: &str = "[starts]\nparallel = 1\n";
const SERVE: &str = "exec busybox httpd -f -p 8080 -h /site";

fn name(owner: &str, n: usize) -> String {
    format!("{owner}{n}.example.com")
}

/// Defines sites that run `command`, all with the same documents; in force when this returns.
fn define(host: &Host, documents: &Path, owner: &str, count: usize, command: &str) {
    for n in 0..count {
        let text = format!(
            "name = \"{}\"\nowner = \"{owner}\"\ndocuments = {documents:?}\n{}[start]\ntimeout = \"{}s\"\n",
            name(owner, n),
            script(command),
            seconds(30).as_secs()
        );
        fs::write(host.dir.join(format!("vhosts.d/{owner}{n}.toml")), text).unwrap();
    }
    wait_for("they are in force", seconds(20), || {
        let last = format!("/v1/vhosts/{}", name(owner, count - 1));
        host.request("GET", &last, b"").status == 200
    });
}

/// Asks for a site as a visitor does.
fn ask(host: &Host, vhost: String) -> thread::JoinHandle<Answer> {
    let socket = host.socket();
    let body = format!("{{\"vhost\":\"{vhost}\"}}");
    thread::spawn(move || http::request(&socket, "POST", "/v1/dispatch", body.as_bytes()).unwrap())
}

/// `starts` of the host's status.
fn starts(host: &Host, key: &str) -> u64 {
    let status = host.request("GET", "/v1/status", b"").json();
    status["starts"][key].as_u64().unwrap()
}

/// All sites in the order in which they became ready.
fn ready(host: &Host) -> Vec<String> {
    let events = host.request("GET", "/v1/events?follow=false", b"").body;
    let events = String::from_utf8(events).unwrap();
    let events = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    events
        .filter(|event| event["cause"] == "ready")
        .map(|event| event["vhost"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_storm_of_one_owner_delays_others_by_a_start_each() {
    let host = Host::new(ONE);
    let documents = host.documents("shared");
    // They take up the places until all have come.
    let wait = format!("until [ -e /site/go ]; do sleep 0.1; done; {SERVE}");
    let crowd = if time_scale() == 1 { 60 } else { 12 };
    define(&host, &documents, "crowd", crowd, &wait);
    define(&host, &documents, "other", 3, SERVE);
    let mut answers = Vec::new();
    for n in 0..crowd {
        answers.push(ask(&host, name("crowd", n)));
        wait_for("it is under way", seconds(10), || {
            host.state(&name("crowd", n)) == "starting"
        });
    }
    let before = starts(&host, "waiting");
    assert!(before > 5, "{before} of {crowd} wait");
    for n in 0..3 {
        answers.push(ask(&host, name("other", n)));
        wait_for("it is under way", seconds(10), || {
            host.state(&name("other", n)) == "starting"
        });
    }
    put(&documents, "go", "");
    for answer in answers {
        let answer = answer.join().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let ready = ready(&host);
    assert_eq!(ready.len(), crowd + 3);
    let others: Vec<_> = ready.iter().filter(|n| n.starts_with("other")).collect();
    assert_eq!(others, [0, 1, 2].map(|n| name("other", n)).each_ref());
    let last = ready.iter().rposition(|n| n.starts_with("other")).unwrap();
    let behind = (ready.len() - 1 - last) as u64;
    // One start of the crowd for each of theirs, and who was under way already or passed while they came.
    assert!(
        behind + 3 + 3 >= before,
        "{behind} came behind them, {before} waited: {ready:?}"
    );
    assert_eq!((starts(&host, "taken"), starts(&host, "waiting")), (0, 0));
    host.finish();
}

#[test]
fn what_has_waited_for_its_time_is_answered_and_not_begun() {
    let host = Host::new(ONE);
    let documents = host.documents("shared");
    // Each has the place for a second.
    define(&host, &documents, "acme", 8, "sleep 1000");
    host.site(
        "late.example.com",
        "command = [\"/usr/bin/busybox\", \"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/site\"]\nlisten = \
         \"tcp:8080\"\n[start]\ntimeout = \"1s\"\n",
    );
    let mut held = Vec::new();
    for n in 0..8 {
        held.push(ask(&host, name("acme", n)));
    }
    wait_for("all are under way", seconds(10), || {
        (0..8).all(|n| host.state(&name("acme", n)) == "starting")
    });
    let answer = host.dispatch("late.example.com");
    let problem = answer.json();
    assert_eq!(
        (
            answer.status,
            &problem["type"],
            answer.header("retry-after")
        ),
        (503, &Value::from("overloaded"), Some("1")),
        "{answer:?}"
    );
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("went first for 1.0 s"), "{detail}");
    let status = host.status("late.example.com");
    assert_eq!(
        (&status["starts"], &status["failures"], &status["state"]),
        (&0.into(), &0.into(), &"stopped".into()),
        "{status}"
    );
    let snapshot = host.snapshot();
    assert!(
        !snapshot.cgroups.iter().any(|c| c.contains("late")),
        "{snapshot:?}"
    );
    // Who is stopped while it waits is out of the queue as well.
    for n in 0..8 {
        assert_eq!(host.verb(&name("acme", n), "stop").status, 200);
    }
    assert_eq!((starts(&host, "taken"), starts(&host, "waiting")), (0, 0));
    for answer in held {
        assert_eq!(answer.join().unwrap().status, 503);
    }
    assert_eq!(host.dispatch("late.example.com").status, 200);
    host.finish();
}
