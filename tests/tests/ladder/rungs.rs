//! An agent that is killed, a change of limits, an end and a stop on every rung; and up and down under load.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use harness::limits::{SITE, set};
use harness::swap::Swap;
use harness::{Host, STATIC, http, rounds, seconds, wait_for};
use serde_json::Value;

use super::{body, holder, pid};

/// Brings the site onto a rung, from wherever it is.
fn bring(host: &Host, rung: &str) -> Value {
    assert_eq!(host.get(SITE, "/").status, 200);
    let pid = pid(host);
    host.wait_state(SITE, rung, 150);
    pid
}

/// A host whose site freezes after a second, and is reclaimed soon or never.
fn on(rung: &str) -> Host {
    let host = Host::new("");
    let after = if rung == "reclaimed" {
        "500ms"
    } else {
        "never"
    };
    holder(
        &host,
        SITE,
        &format!("timeout = \"1s\"\nreclaim_after = \"{after}\"\nstop_after = \"never\"\n"),
    );
    host
}

fn everything_on(rung: &str) {
    let host = on(rung);
    // kill -9 of the agent: the next one knows where it was, and a request finds the same process.
    let first = bring(&host, rung);
    host.crash_and_restart();
    assert_eq!((host.state(SITE).as_str(), &pid(&host)), (rung, &first));
    assert_eq!(body(&host, "/memory"), "whole");
    assert_eq!(
        (host.state(SITE), pid(&host)),
        ("running".into(), first.clone())
    );
    // A change of limits holds, and does not wake it.
    assert_eq!(bring(&host, rung), first);
    set(&host, &["memory=300M", "cpu=50%", "pids=40"]);
    let status = host.status(SITE);
    assert_eq!(
        (
            &status["state"],
            &status["limits"]["memory"],
            &status["limits"]["pids"]
        ),
        (&rung.into(), &"300M".into(), &40.into()),
        "{status}"
    );
    assert_eq!(body(&host, "/memory"), "whole");
    // An operator's command wakes it, too.
    assert_eq!(bring(&host, rung), first);
    let said = host.ctl(&["exec", SITE, "--", "echo", "awake"]);
    assert_eq!(String::from_utf8_lossy(&said.stdout), "awake\n", "{said:?}");
    // Killed: nobody inside can tell while it is frozen, but the next request gets a new one.
    assert_eq!(bring(&host, rung), first);
    harness::send_signal(
        u32::try_from(first.as_u64().unwrap()).unwrap(),
        libc::SIGKILL,
    );
    wait_for("it is dead", seconds(10), || {
        let stat = std::fs::read_to_string(format!("/proc/{first}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z "))
    });
    assert_eq!(body(&host, "/memory"), "whole");
    assert_ne!(pid(&host), first);
    // A stop asks it to end, which it can hear.
    let second = bring(&host, rung);
    assert_eq!(host.verb(SITE, "stop").json()["state"], "stopped");
    let exit = host.status(SITE)["last_exit"].clone();
    assert_eq!(
        (&exit["cause"], &exit["signal"]),
        (&"stopped".into(), &15.into()),
        "{exit}"
    );
    // Down, and restart.
    assert_ne!(bring(&host, rung), second);
    assert_eq!(host.verb(SITE, "restart").json()["state"], "running");
    bring(&host, rung);
    assert_eq!(host.verb(SITE, "down").json()["state"], "down");
    assert_eq!(host.dispatch(SITE).status, 503);
    host.finish();
}

#[test]
fn whatever_happens_to_a_frozen_site() {
    everything_on("frozen");
}

#[test]
fn whatever_happens_to_a_reclaimed_site() {
    let Some(_swap) = Swap::new() else {
        return;
    };
    everything_on("reclaimed");
}

#[test]
fn a_frozen_site_costs_no_processor_time_and_is_no_time_awake() {
    let host = on("frozen");
    bring(&host, "frozen");
    let used = |host: &Host| host.status(SITE)["usage"]["cpu_seconds"].as_f64().unwrap();
    // Its last moments are counted when their processors turn to something else.
    let mut before = used(&host);
    wait_for("all that it has used is counted", seconds(10), || {
        thread::sleep(Duration::from_millis(200));
        std::mem::replace(&mut before, used(&host)) == before
    });
    thread::sleep(Duration::from_secs(4));
    assert_eq!(used(&host), before);
    let lived = host.status(SITE)["uptime_s"].as_f64().unwrap();
    assert_eq!(host.verb(SITE, "stop").json()["state"], "stopped");
    let usage = || {
        let path = format!("/v1/usage?vhost={SITE}");
        host.request("GET", &path, b"").json()["vhosts"][0]["awake_seconds"].as_f64()
    };
    wait_for("its end is accounted", seconds(150), || usage().is_some());
    let rested = lived - usage().unwrap();
    assert!(rested > 3.0, "of {lived} s it has rested {rested} s");
    host.finish();
}

#[test]
fn no_request_fails_while_it_is_frozen_and_thawed_all_the_time() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    host.dispatch(SITE).upstream();
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let times = rounds(400, 60);
    let socket = host.socket();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                let (over, served, socket) = (&over, &served, &socket);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        assert_eq!(host_get(socket), 200);
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        // Ends the clients, also when the test fails.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let ended = Over(&over);
        let mut frozen = 0;
        while frozen < times && clients.iter().all(|client| !client.is_finished()) {
            // Thawed by a request meanwhile, or by the next line.
            let answer = host.verb(SITE, "freeze");
            assert_eq!(answer.status, 200);
            frozen += u32::from(answer.json()["state"] == "frozen");
            assert_eq!(host.verb(SITE, "thaw").status, 200);
        }
        drop(ended);
    });
    assert!(served.into_inner() > times as usize / 4);
    assert_eq!(host.status(SITE)["starts"], 1);
    host.finish();
}

/// Dispatches and fetches.
fn host_get(socket: &std::path::Path) -> u16 {
    let body = format!("{{\"vhost\":\"{SITE}\"}}");
    let upstream = http::request(socket, "POST", "/v1/dispatch", body.as_bytes())
        .unwrap()
        .upstream();
    let page = http::get(&upstream, "/", seconds(20));
    page.unwrap_or_else(|error| panic!("a request was lost: {upstream}: {error}"))
        .status
}
