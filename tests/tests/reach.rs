//! What a site's network policy opens, and what it never does.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use harness::{Host, OWNER, outside_address, run};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use std::os::unix::fs::chown;

use harness::inside::{Line, ask, report, site};

/// Addresses of the world behind the host, each with a server on ports 53 and 80.
const METADATA: &str = "169.254.169.254";
const ELSEWHERE: &str = "203.0.113.2";

/// A network namespace that plays the outside; it is gone with its thread.
struct Outside {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Outside {
    fn new() -> Self {
        outside_address([203, 0, 113, 1].into());
        let (tell, told) = channel();
        let (stop, stopped) = channel::<()>();
        let (ready, is_ready) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(nix::unistd::gettid().as_raw()).unwrap();
            // Err: the test has failed meanwhile.
            if stopped.recv().is_err() {
                return;
            }
            run("ip", &["link", "set", "far", "up"]);
            for address in [ELSEWHERE, METADATA] {
                run(
                    "ip",
                    &["addr", "add", &format!("{address}/24"), "dev", "far"],
                );
            }
            run("ip", &["route", "add", "default", "via", "203.0.113.1"]);
            for port in [53, 80] {
                let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
                // Ends with the process; its namespace does when the last socket is closed.
                std::thread::spawn(move || {
                    for stream in listener.incoming() {
                        let _ = stream.and_then(|mut stream| stream.write_all(b"outside"));
                    }
                });
            }
            ready.send(()).unwrap();
            let _ = stopped.recv();
        });
        let thread_id = told.recv().unwrap();
        run(
            "ip",
            &["link", "set", "far", "netns", &thread_id.to_string()],
        );
        stop.send(()).unwrap();
        is_ready.recv().unwrap();
        run("ip", &["route", "add", "169.254.0.0/16", "dev", "outside"]);
        run("sysctl", &["-qw", "net.ipv4.ip_forward=1"]);
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn end(mut self) {
        run("ip", &["link", "del", "outside"]);
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Which of `addresses` a site with this policy reaches.
fn reached(host: &Host, name: &str, policy: &str, addresses: &[String]) -> Vec<String> {
    let documents = site(host, name, policy);
    let targets = documents.join("targets");
    fs::write(
        &targets,
        json!({"open": addresses, "interfaces": "eth0 lo"}).to_string(),
    )
    .unwrap();
    chown(&targets, Some(OWNER), Some(OWNER)).unwrap();
    let lines = report(&ask(host, name, "report", 120));
    let open = |line: &&Line| line.ok && line.check.starts_with("allowed ");
    lines
        .iter()
        .filter(open)
        .map(|line| line.check["allowed ".len()..].to_owned())
        .collect()
}

#[test]
fn only_what_is_allowed_can_be_reached() {
    let host = Host::new("");
    let outside = Outside::new();
    let service = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = service.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in service.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(b"host"));
        }
    });
    let gateway = format!("10.88.255.254:{port}");
    let address = format!("203.0.113.1:{port}");
    let elsewhere = format!("{ELSEWHERE}:80");
    let (metadata, resolver) = (format!("{METADATA}:80"), format!("{METADATA}:53"));
    let all = [&gateway, &address, &elsewhere, &metadata, &resolver].map(Clone::clone);
    let nothing = reached(&host, "none.example.com", "", &all);
    assert_eq!(nothing, [""; 0], "without a policy");
    // To the outside, but not to what a cloud tells its machines about themselves; names can be resolved there.
    let out = reached(
        &host,
        "out.example.com",
        "[network]\noutbound = true\n",
        &all,
    );
    assert_eq!(out, [elsewhere.clone(), resolver], "outbound");
    let allow = format!("[network]\nallow = [\"{address}\", \"{metadata}\"]\n");
    assert_eq!(
        reached(&host, "some.example.com", &allow, &all),
        [address, metadata],
        "allow"
    );
    outside.end();
    host.finish();
}
