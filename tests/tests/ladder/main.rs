//! The idle ladder: down by time, up with a request, and whatever happens on each rung of it.
#![allow(clippy::unwrap_used, missing_docs)]

mod handed;
mod kept;
mod pressure;
mod rungs;
mod squeeze;
mod waits;

use harness::limits::{SITE, events};
use harness::swap::Swap;
use harness::{Host, STATIC, seconds, sites, wait_for};
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
fn gives_its_memory_back_and_comes_up_with_a_request() {
    let Some(_swap) = Swap::new() else {
        return;
    };
    let host = Host::new("");
    holder(
        &host,
        SITE,
        "timeout = \"1s\"\nreclaim_after = \"1s\"\nstop_after = \"never\"\n",
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
    assert_eq!(pid(&host), first);
    host.finish();
}

#[test]
fn goes_all_the_way_down_by_time() {
    let Some(_swap) = Swap::new() else {
        return;
    };
    let host = Host::new("");
    let idle = "[idle]\naction = \"ladder\"\ntimeout = \"1s\"\nreclaim_after = \"1s\"\nstop_after = \"1s\"\n";
    host.site(SITE, &format!("{STATIC}{idle}"));
    assert_eq!(host.get(SITE, "/").status, 200);
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
    // It gets old all the same.
    let old = "old.example.com";
    let idle = "[idle]\naction = \"ladder\"\ntimeout = \"1s\"\nreclaim_after = \"500ms\"\nstop_after = \"never\"\nmax_lifetime = \"4s\"\n";
    host.site(old, &format!("{STATIC}{idle}"));
    assert_eq!(host.get(old, "/").status, 200);
    host.wait_state(SITE, "stopped", 150);
    host.wait_state(old, "stopped", 150);
    let all = events(&host, "state");
    assert!(
        all.iter().all(|event| event["to"] != "reclaimed"),
        "{all:?}"
    );
    host.finish();
}
