//! First requests for very many sites at once: whether all are answered, how long that takes, and in which order.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use harness::Host;
use harness::client::Client;
use harness::sites;
use serde_json::Value;

use crate::Effort;
use crate::live::{define, define_small, name};
use crate::report::{Figures, Row};

const SITES: usize = 1000;
const APACHES: usize = 200;
const LOADING: usize = 100;
const OWNERS: usize = 20;

/// Computes for a while before it listens, as an application that loads its framework.
const LOADS: &str = r#"
command = ["/bin/sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exec busybox httpd -f -p 8080"]
listen = "tcp:8080"
[start]
timeout = "60s"
"#;

/// Asks for all sites at once, each on a connection of its own. For each when it was asked for and answered.
fn storm(host: &Host, sites: &[String]) -> Vec<(Instant, Instant)> {
    let mut clients: Vec<_> = sites
        .iter()
        .map(|_| Client::connect(&host.socket()).unwrap())
        .collect();
    let sent = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for (client, site) in clients.iter_mut().zip(sites) {
            let body = format!("{{\"vhost\":\"{site}\"}}");
            sent.lock().unwrap().push(Instant::now());
            client
                .send("POST", "/v1/dispatch", "", body.as_bytes())
                .unwrap();
        }
        let answers: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                let builder = thread::Builder::new().stack_size(64 << 10);
                let wait = || {
                    let answer = client.answer().unwrap();
                    (answer.status, Instant::now())
                };
                builder.spawn_scoped(scope, wait).unwrap()
            })
            .collect();
        let answered = answers.into_iter().map(|thread| {
            let (status, at) = thread.join().unwrap();
            assert_eq!(status, 200);
            at
        });
        let answered: Vec<_> = answered.collect();
        sent.into_inner()
            .unwrap()
            .into_iter()
            .zip(answered)
            .collect()
    })
}

/// When the agent began with a start and when its server listened, in seconds.
fn began_and_ready(host: &Host, site: &str) -> (f64, f64) {
    let file = host.run_dir.join(format!("sites/{site}/container.json"));
    let record: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let ready = record["ready_at"].as_f64().unwrap();
    let took = record["phases"]["total"].as_f64().unwrap();
    (ready - took / 1e3, ready)
}

/// By how many that came later within its owner a start was overtaken, at most.
fn overtaken(starts: &[(f64, f64)]) -> usize {
    let of_owner = |owner| starts.iter().skip(owner).step_by(OWNERS);
    let over = |owner| {
        of_owner(owner).map(move |(began, ready)| {
            let later = of_owner(owner).filter(|other| other.0 > *began && other.1 < *ready);
            later.count()
        })
    };
    (0..OWNERS).flat_map(over).max().unwrap_or_default()
}

fn row(what: &str, times: &[(Instant, Instant)], starts: &[(f64, f64)]) -> Row {
    let first = times[0].0;
    let last = times.iter().map(|(_, at)| *at).max().unwrap_or(first);
    let latencies: Vec<Duration> = times.iter().map(|(sent, at)| *at - *sent).collect();
    let latencies = Figures::millis("request to answer", &latencies);
    let longest = latencies.max();
    let over = overtaken(starts) as f64;
    Row::new(&format!("{} first requests at once, {what}", times.len()))
        .with(latencies)
        .with(Figures::millis("all of them", &[last - first]))
        .with(Figures::new(
            "overtaken within the owner",
            "starts",
            vec![over],
        ))
        .at_most("longest ms", longest, 30_000.0)
        .at_most("overtaken by starts of the owner", over, 8.0)
}

/// With the sites that `define` has defined, as many as `count`.
fn measured(what: &str, count: usize, define: impl FnOnce(&Host)) -> Row {
    let host = Host::as_installed("");
    define(&host);
    let sites: Vec<_> = (0..count).map(name).collect();
    let times = storm(&host, &sites);
    let starts: Vec<_> = sites
        .iter()
        .map(|site| began_and_ready(&host, site))
        .collect();
    host.finish();
    row(what, &times, &starts)
}

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let [small, apaches, loading] = [SITES, APACHES, LOADING].map(|full| effort.rounds(full));
    vec![
        measured("static server", small, |host| {
            define_small(host, small, OWNERS);
        }),
        measured("Apache + PHP", apaches, |host| {
            let documents = host.documents("shared");
            sites::apache_files(&documents);
            define(host, &documents, apaches, OWNERS, sites::APACHE);
        }),
        measured("a server that loads for long", loading, |host| {
            let documents = host.documents("shared");
            define(host, &documents, loading, OWNERS, LOADS);
        }),
    ]
}
