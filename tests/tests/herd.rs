//! Many requests at once for a site that is not there yet.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Barrier;
use std::thread;

use harness::http;
use harness::sites::{apache, put, script};
use harness::{Answer, Host, Snapshot, seconds, wait_for};

const CLIENTS: usize = 200;

/// Dispatches from as many clients at once.
fn herd(host: &Host, vhost: &str, meanwhile: impl FnOnce()) -> Vec<Answer> {
    let (barrier, socket) = (Barrier::new(CLIENTS + 1), host.socket());
    let body = format!("{{\"vhost\":\"{vhost}\"}}");
    thread::scope(|scope| {
        let ask = || {
            barrier.wait();
            http::request(&socket, "POST", "/v1/dispatch", body.as_bytes()).unwrap()
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        barrier.wait();
        meanwhile();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    })
}

#[test]
fn apache_is_started_once() {
    let host = Host::new("");
    apache(&host, "php.example.com", "[start]\ntimeout = \"120s\"\n");
    let answers = herd(&host, "php.example.com", || {});
    assert_eq!(
        answers.iter().filter(|answer| answer.status == 200).count(),
        CLIENTS,
        "{:?}",
        answers[0]
    );
    let upstream = answers[0].upstream();
    thread::scope(|scope| {
        let pages: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| http::get(&upstream, "/", seconds(20))))
            .collect();
        for page in pages {
            let page = page.join().unwrap().unwrap();
            assert_eq!(
                (page.status, String::from_utf8_lossy(&page.body).as_ref()),
                (200, "php apache2handler as 1001\n")
            );
        }
    });
    let status = host.status("php.example.com");
    assert_eq!(
        (status["starts"].as_u64(), status["dispatches"].as_u64()),
        (Some(1), Some(CLIENTS as u64))
    );
    host.finish();
}

#[test]
fn a_start_that_crashes_is_told_to_each_and_tried_once() {
    let host = Host::new("");
    let wait_then_fail =
        "until [ -e /site/go ]; do sleep 0.02; done; echo cannot reach the database >&2; exit 3";
    let documents = host.site(
        "a.example.com",
        &format!("{}[start]\ntimeout = \"60s\"\n", script(wait_then_fail)),
    );
    let before = host.snapshot();
    let answers = herd(&host, "a.example.com", || {
        wait_for("all are held", seconds(30), || {
            host.status("a.example.com")["dispatches"] == CLIENTS
        });
        put(&documents, "go", "");
    });
    for answer in &answers {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(answer.header("retry-after"), Some("1"));
        let problem = answer.json();
        assert_eq!(
            (problem["type"].as_str(), problem["vhost"].as_str()),
            (Some("start-failed"), Some("a.example.com"))
        );
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains("cannot reach the database"),
            "{problem}"
        );
    }
    let status = host.status("a.example.com");
    assert_eq!(
        (status["starts"].as_u64(), status["failures"].as_u64()),
        (Some(1), Some(1))
    );
    assert_eq!(status["state"], "failed");
    wait_for("nothing is left", seconds(10), || {
        let now = host.snapshot();
        // The agent makes network namespaces ahead, with one link each.
        Snapshot {
            links: before.links.clone(),
            ..now.clone()
        } == Snapshot {
            cgroups: now.cgroups.clone(),
            ..before.clone()
        } && now
            .cgroups
            .iter()
            .all(|path| !path.contains("a.example.com"))
    });
    host.finish();
}

#[test]
fn a_start_that_never_listens_is_ended_in_time() {
    let host = Host::new("");
    host.site(
        "a.example.com",
        &format!(
            "{}[start]\ntimeout = \"1s\"\n",
            script("echo thinking; sleep 1000")
        ),
    );
    let answers = herd(&host, "a.example.com", || {});
    for answer in &answers {
        // The last of them may have come after the time was over.
        let kind = answer.json()["type"].as_str().unwrap().to_owned();
        assert!(
            matches!(
                (answer.status, kind.as_str()),
                (504, "start-timeout") | (503, "backing-off")
            ),
            "{answer:?}"
        );
    }
    let first = answers
        .iter()
        .find(|answer| answer.status == 504)
        .expect("one at least has waited");
    let detail = first.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("did not listen on tcp:8080 within 1.0 s") && detail.contains("thinking"),
        "{detail}"
    );
    assert_eq!(host.status("a.example.com")["failures"], 1);
    assert_eq!(host.snapshot().processes.len(), 0);
    host.finish();
}
