//! Who is idle, who is too old, and that no request is lost over it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::http;
use harness::{Host, STATIC, seconds, wait_for};
use rustix::fd::AsFd;

const SITE: &str = "a.example.com";

/// For as long as something must not happen.
fn throughout(time: Duration, mut holds: impl FnMut()) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        holds();
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_open_connection_keeps_it() {
    let host = Host::new("");
    host.site(SITE, &format!("{STATIC}[idle]\ntimeout = \"1s\"\n"));
    let upstream = host.dispatch(SITE).upstream();
    let pid = host.status(SITE)["pid"].clone();
    let connection = TcpStream::connect(&upstream).unwrap();
    throughout(Duration::from_secs(4), || {
        let status = host.status(SITE);
        assert_eq!(
            (&status["state"], &status["pid"]),
            (&"running".into(), &pid)
        );
    });
    drop(connection);
    let began = Instant::now();
    host.wait_state(SITE, "stopped", 10);
    assert!(
        began.elapsed() > Duration::from_millis(500),
        "idle only from the end of the connection on"
    );
    host.finish();
}

#[test]
fn a_slow_download_keeps_it() {
    let host = Host::new("");
    let documents = host.site(SITE, &format!("{STATIC}[idle]\ntimeout = \"1s\"\n"));
    harness::sites::put(&documents, "big", &"x".repeat(16 << 20));
    let upstream = host.dispatch(SITE).upstream();
    let mut stream = TcpStream::connect(&upstream).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(stream.as_fd(), 4096).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /big HTTP/1.0\r\n\r\n").unwrap();
    // Not read for longer than the idle time, then all of it.
    throughout(Duration::from_secs(3), || {
        assert_eq!(host.state(SITE), "running")
    });
    let answer = http::read_answer(stream).unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 16 << 20));
    host.wait_state(SITE, "stopped", 10);
    host.finish();
}

#[test]
fn action_freeze_freezes_and_a_request_thaws() {
    let host = Host::new("");
    host.site(
        SITE,
        &format!("{STATIC}[idle]\ntimeout = \"1s\"\naction = \"freeze\"\n"),
    );
    host.dispatch(SITE).upstream();
    let pid = host.status(SITE)["pid"].clone();
    for _ in 0..2 {
        host.wait_state(SITE, "frozen", 10);
        assert_eq!(host.get(SITE, "/").status, 200);
        assert_eq!(host.status(SITE)["pid"], pid);
    }
    assert_eq!(host.status(SITE)["starts"], 1);
    host.finish();
}

/// Ends the clients, also when the test fails.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Clients that dispatch and fetch, with pauses of so many ms and a bit; none may ever be refused or cut off.
fn clients(host: &Host, pauses: &[u64], enough: impl Fn() -> bool) -> usize {
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let socket = host.socket();
    thread::scope(|scope| {
        let ended = Ended(&stop);
        for (number, pause) in pauses.iter().enumerate() {
            let (stop, served, socket) = (&stop, &served, &socket);
            scope.spawn(move || {
                let _all_end_with_one = Ended(stop);
                let mut step = number as u64;
                while !stop.load(Ordering::Relaxed) {
                    let body = format!("{{\"vhost\":\"{SITE}\"}}");
                    let upstream = http::request(socket, "POST", "/v1/dispatch", body.as_bytes())
                        .unwrap()
                        .upstream();
                    let page = http::get(&upstream, "/", seconds(10));
                    let page = page
                        .unwrap_or_else(|error| panic!("a request was lost: {upstream}: {error}"));
                    assert_eq!(page.status, 200);
                    served.fetch_add(1, Ordering::Relaxed);
                    step += 1;
                    thread::sleep(Duration::from_micros(pause * 1000 + step * 7919 % 20_000));
                }
            });
        }
        wait_for("the site has been ended often enough", seconds(30), || {
            stop.load(Ordering::Relaxed) || enough()
        });
        drop(ended);
    });
    served.into_inner()
}

#[test]
fn no_request_is_lost_when_idleness_ends_it() {
    let host = Host::new("");
    host.site(SITE, &format!("{STATIC}[idle]\ntimeout = \"1s\"\n"));
    let served = clients(&host, &[990], || {
        host.status(SITE)["starts"].as_u64() >= Some(4)
    });
    assert!(served >= 4);
    host.finish();
}

#[test]
fn no_request_is_lost_when_age_ends_it() {
    let host = Host::new("");
    host.site(
        SITE,
        &format!("{STATIC}[idle]\ntimeout = \"never\"\nmax_lifetime = \"1s\"\n"),
    );
    let served = clients(&host, &[1010], || {
        host.status(SITE)["starts"].as_u64() >= Some(4)
    });
    assert!(served >= 4);
    host.finish();
}

#[test]
fn no_request_is_lost_over_restarts_by_the_operator() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    let served = clients(&host, &[0, 5, 10], || {
        assert_eq!(host.verb(SITE, "restart").status, 200);
        host.status(SITE)["starts"].as_u64() >= Some(5)
    });
    assert!(served > 0);
    host.finish();
}

#[test]
fn no_request_is_lost_when_its_definition_changes() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    let change = std::cell::Cell::new(0);
    let served = clients(&host, &[0, 5, 10], || {
        let starts = host.status(SITE)["starts"].as_u64().unwrap();
        if starts > change.get() {
            change.set(starts);
            host.site(
                SITE,
                &format!("{STATIC}env = {{ CHANGE = \"{starts}\" }}\n"),
            );
        }
        starts >= 4
    });
    assert!(served > 0);
    host.finish();
}

#[test]
fn the_last_request_it_may_have_is_noticed_at_once() {
    let host = Host::new("");
    host.site(
        SITE,
        &format!("{STATIC}[idle]\ntimeout = \"1h\"\nmax_requests = 3\n"),
    );
    let pid = |host: &Host| host.status(SITE)["pid"].clone();
    host.dispatch(SITE).upstream();
    // That was before it listened, and does not count.
    let first = pid(&host);
    for _ in 0..3 {
        assert_eq!(pid(&host), first);
        assert_eq!(host.get(SITE, "/").status, 200);
    }
    let asked = Instant::now();
    host.wait_state(SITE, "stopped", 10);
    assert!(asked.elapsed() < seconds(5), "{:?}", asked.elapsed());
    host.finish();
}

#[test]
fn another_idle_time_or_age_holds_at_once() {
    let host = Host::new("");
    for (idle, cause) in [
        ("timeout = \"1s\"", "idle"),
        ("timeout = \"1h\"\nmax_lifetime = \"1s\"", "age"),
    ] {
        host.site(SITE, &format!("{STATIC}[idle]\ntimeout = \"1h\"\n"));
        host.dispatch(SITE).upstream();
        let changed = Instant::now();
        host.site(SITE, &format!("{STATIC}[idle]\n{idle}\n"));
        host.wait_state(SITE, "stopped", 10);
        assert!(
            changed.elapsed() < seconds(5),
            "{cause}: {:?}",
            changed.elapsed()
        );
        // And for the next one.
        host.dispatch(SITE).upstream();
        let woken = Instant::now();
        host.wait_state(SITE, "stopped", 10);
        assert!(
            woken.elapsed() < seconds(5),
            "{cause}: {:?}",
            woken.elapsed()
        );
    }
    host.finish();
}

#[test]
fn its_idle_time_begins_anew_when_an_operator_thaws_it() {
    let host = Host::new("");
    host.site(SITE, &format!("{STATIC}[idle]\ntimeout = \"4s\"\n"));
    host.dispatch(SITE).upstream();
    assert_eq!(host.verb(SITE, "freeze").status, 200);
    throughout(Duration::from_secs(2), || {
        assert_eq!(host.state(SITE), "frozen")
    });
    assert_eq!(host.verb(SITE, "thaw").status, 200);
    throughout(Duration::from_secs(3), || {
        assert_eq!(host.state(SITE), "running")
    });
    host.wait_state(SITE, "stopped", 10);
    host.finish();
}
