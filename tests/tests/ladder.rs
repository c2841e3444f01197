//! The idle ladder: down by time, up with a request, and whatever happens on each rung of it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use harness::limits::{SITE, events, set};
use harness::swap::Swap;
use harness::{Host, STATIC, http, rounds, seconds, sites, wait_for};
use serde_json::Value;

/// Megabytes that the site has for itself.
const MEGABYTES: u64 = 64;

/// A site that holds memory and says whether it is all still as it was.
const HOLDER: &str = "\
import http.server
PAGES = 64 << 8
memory = bytearray(PAGES << 12)
for page in range(PAGES):
    memory[page << 12 : (page << 12) + 8] = page.to_bytes(8, 'little')
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        whole = all(memory[p << 12 : (p << 12) + 8] == p.to_bytes(8, 'little') for p in range(PAGES))
        body = (b'whole' if whole else b'broken') if self.path == '/memory' else b'here'
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(('0.0.0.0', 8080), Handler).serve_forever()
";

/// `idle` is the rest of `[idle]`.
fn holder(host: &Host, name: &str, idle: &str) {
    let documents = host.documents(name);
    sites::put(&documents, "app.py", HOLDER);
    host.site(
        name,
        &format!(
            "command = [\"python3\", \"/site/app.py\"]\nlisten = \"tcp:8080\"\n\
             [start]\ntimeout = \"60s\"\n[idle]\naction = \"ladder\"\n{idle}"
        ),
    );
}

fn body(host: &Host, path: &str) -> String {
    String::from_utf8(host.get(SITE, path).body).unwrap()
}

fn pid(host: &Host) -> Value {
    let pid = host.status(SITE)["pid"].clone();
    assert!(pid.is_u64(), "it has a process");
    pid
}

/// The last of them.
fn reclaimed(host: &Host) -> Value {
    wait_for("its memory has been given back", seconds(150), || {
        !events(host, "reclaim").is_empty()
    });
    events(host, "reclaim").pop().unwrap()
}

#[test]
fn goes_down_by_time_gives_its_memory_back_and_comes_up_with_a_request() {
    let Some(_swap) = Swap::new() else {
        return;
    };
    let host = Host::new("");
    holder(
        &host,
        SITE,
        "timeout = \"1s\"\nreclaim_after = \"1s\"\nstop_after = \"3s\"\n",
    );
    assert_eq!(body(&host, "/memory"), "whole");
    let first = pid(&host);
    host.wait_state(SITE, "reclaimed", 150);
    assert_eq!(pid(&host), first);
    let told = reclaimed(&host);
    let bytes = |key: &str| told[key].as_u64().unwrap();
    let given = bytes("before_bytes").saturating_sub(bytes("after_bytes"));
    assert!(
        given >= (MEGABYTES << 20) * 6 / 10,
        "of {MEGABYTES} MiB only {given} bytes: {told}"
    );
    // Where it is listed.
    let listed = host
        .request("GET", "/v1/vhosts?state=reclaimed", b"")
        .json();
    assert_eq!(listed["vhosts"][0]["vhost"], SITE, "{listed}");
    let states = host.request("GET", "/v1/status", b"").json();
    assert_eq!(states["vhosts"]["reclaimed"], 1, "{states}");
    // Up: the same process with the same memory.
    assert_eq!(host.dispatch(SITE).json()["cold"], false);
    assert_eq!(body(&host, "/memory"), "whole");
    assert_eq!(
        (pid(&host), host.state(SITE)),
        (first, "running".to_owned())
    );
    // And all the way down.
    host.wait_state(SITE, "stopped", 150);
    let status = host.status(SITE);
    assert_eq!(status["last_exit"]["cause"], "stopped", "{status}");
    let down: Vec<String> = events(&host, "state")
        .iter()
        .map(|event| event["to"].as_str().unwrap().to_owned())
        .collect();
    let way = ["running", "frozen", "reclaimed", "stopping", "stopped"];
    assert_eq!(down[down.len() - 5..], way, "{down:?}");
    host.finish();
}

#[test]
fn without_swap_it_stays_frozen() {
    if std::fs::read_to_string("/proc/swaps")
        .unwrap()
        .lines()
        .count()
        > 1
    {
        harness::skip("this host has swap now");
        return;
    }
    let host = Host::new("");
    let idle = "[idle]\naction = \"ladder\"\ntimeout = \"1s\"\nreclaim_after = \"1s\"\nstop_after = \"2s\"\n";
    host.site(SITE, &format!("{STATIC}{idle}"));
    assert_eq!(host.get(SITE, "/").status, 200);
    host.wait_state(SITE, "stopped", 150);
    if events(&host, "reclaim").is_empty() {
        let all = events(&host, "state");
        assert!(
            all.iter().all(|event| event["to"] != "reclaimed"),
            "{all:?}"
        );
    }
    host.finish();
}

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
    let before = used(&host);
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

/// More than it may have, over and over, with swap to put it to: whoever wants memory has to wait then.
const SQUEEZE: &str = "\
import http.server, mmap, threading
memory = mmap.mmap(-1, 96 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
on = threading.Event()
def squeeze():
    while True:
        on.wait()
        for page in range(0, len(memory), 4096):
            memory[page] = 1
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        on.set() if self.path == '/on' else on.clear()
        self.send_response(200)
        self.end_headers()
    def log_message(self, *words):
        pass
for _ in range(2):
    threading.Thread(target=squeeze, daemon=True).start()
http.server.ThreadingHTTPServer(('0.0.0.0', 8080), Handler).serve_forever()
";

const SQUEEZER: &str = "squeeze.example.com";

/// A site that makes memory scarce when it is asked to.
fn squeezer(host: &Host) {
    let documents = host.documents(SQUEEZER);
    sites::put(&documents, "app.py", SQUEEZE);
    host.site(
        SQUEEZER,
        "command = [\"python3\", \"/site/app.py\"]\nlisten = \"tcp:8080\"\n[limits]\nmemory = \"48M\"\n\
         [start]\ntimeout = \"60s\"\n[idle]\ntimeout = \"never\"\n",
    );
    assert_eq!(host.get(SQUEEZER, "/off").status, 200);
}

/// Whether this kernel tells of memory pressure, and lets this user be told.
fn pressure_is_told() -> bool {
    use std::io::Write;
    let file = std::fs::File::options()
        .write(true)
        .open("/proc/pressure/memory");
    match file.and_then(|mut file| file.write_all(b"some 1000000 2000000\0")) {
        Ok(()) => true,
        Err(error) => {
            harness::skip(&format!("no triggers at /proc/pressure/memory: {error}"));
            false
        }
    }
}

/// Names of the sites that went to a state for want of memory, in that order.
fn pressed(host: &Host, to: &str) -> Vec<String> {
    let output = host.ctl(&["--json", "events"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let all = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    all.filter(|event| event["cause"] == "memory pressure" && event["to"] == to)
        .map(|event| event["vhost"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn memory_pressure_takes_the_least_recently_used_down_first_and_nobody_who_is_not_on_the_ladder() {
    if !pressure_is_told() {
        return;
    }
    let Some(_swap) = Swap::new() else {
        return;
    };
    let host = Host::new("[pressure]\nreclaim = \"2%\"\nstop = \"0%\"\navailable = \"100%\"\n");
    squeezer(&host);
    let ladder = "[idle]\naction = \"ladder\"\ntimeout = \"24h\"\n";
    let names = ["c.example.com", "a.example.com", "b.example.com"];
    for name in names {
        host.site(name, &format!("{STATIC}{ladder}"));
    }
    host.site(
        "stays.example.com",
        &format!("{STATIC}[idle]\ntimeout = \"24h\"\n"),
    );
    for name in ["stays.example.com"].into_iter().chain(names) {
        assert_eq!(host.get(name, "/").status, 200);
    }
    // None of them is in use any more when it begins.
    thread::sleep(Duration::from_secs(6));
    assert_eq!(host.get(SQUEEZER, "/on").status, 200);
    wait_for("all have given their memory back", seconds(150), || {
        names.iter().all(|name| host.state(name) == "reclaimed")
    });
    assert_eq!(host.state("stays.example.com"), "running");
    assert_eq!(host.get(SQUEEZER, "/off").status, 200);
    assert_eq!(pressed(&host, "frozen"), names);
    assert_eq!(pressed(&host, "reclaimed"), names);
    // Without pressure they stay where they are, and a request wakes each.
    for name in names {
        assert_eq!(host.get(name, "/").status, 200);
        assert_eq!(host.status(name)["starts"], 1);
    }
    host.finish();
}

#[test]
fn under_more_pressure_those_that_rest_are_stopped() {
    if !pressure_is_told() {
        return;
    }
    let Some(_swap) = Swap::new() else {
        return;
    };
    let host = Host::new("[pressure]\nreclaim = \"0%\"\nstop = \"2%\"\navailable = \"100%\"\n");
    squeezer(&host);
    let name = "rests.example.com";
    host.site(
        name,
        &format!("{STATIC}[idle]\naction = \"ladder\"\ntimeout = \"1s\"\nreclaim_after = \"1s\"\n"),
    );
    let connected = "connected.example.com";
    host.site(
        connected,
        &format!("{STATIC}[idle]\naction = \"ladder\"\ntimeout = \"24h\"\n"),
    );
    assert_eq!(host.get(name, "/").status, 200);
    let upstream = host.dispatch(connected).upstream();
    let connection = std::net::TcpStream::connect(&upstream).unwrap();
    host.wait_state(name, "reclaimed", 150);
    assert_eq!(host.get(SQUEEZER, "/on").status, 200);
    host.wait_state(name, "stopped", 150);
    assert_eq!(host.get(SQUEEZER, "/off").status, 200);
    assert_eq!(
        pressed(&host, "stopped"),
        [name; 0],
        "told as what it led to"
    );
    assert_eq!(pressed(&host, "stopping"), [name]);
    assert_eq!(host.state(connected), "running");
    drop(connection);
    assert_eq!(host.get(name, "/").status, 200);
    host.finish();
}
