//! Memory is scarce, for real: the kernel says so, and sites go down.

use std::thread;
use std::time::Duration;

use harness::swap::Swap;
use harness::{Host, STATIC, seconds, sites, wait_for};
use serde_json::Value;

use super::{MEGABYTES, holder};

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
    holder(&host, name, "timeout = \"1s\"\nreclaim_after = \"1s\"\n");
    let connected = "connected.example.com";
    host.site(
        connected,
        &format!("{STATIC}[idle]\naction = \"ladder\"\ntimeout = \"24h\"\n"),
    );
    assert_eq!(host.get(name, "/").status, 200);
    let upstream = host.dispatch(connected).upstream();
    let connection = std::net::TcpStream::connect(&upstream).unwrap();
    // Other tests may make memory scarce enough before that.
    wait_for("it has been reclaimed", seconds(150), || {
        ["reclaimed", "stopped"].contains(&host.state(name).as_str())
    });
    assert_eq!(host.get(SQUEEZER, "/on").status, 200);
    host.wait_state(name, "stopped", 150);
    assert_eq!(host.get(SQUEEZER, "/off").status, 200);
    assert_eq!(
        pressed(&host, "stopped"),
        [name; 0],
        "told as what it led to"
    );
    assert_eq!(pressed(&host, "stopping"), [name]);
    // What it had in swap is given back, too, and counts.
    let log = host.log();
    let given = log.lines().find_map(|line| {
        let (_, told) = line.split_once("1 sites went down the ladder (Stop), of ")?;
        told.split_once(' ')?.0.parse::<u64>().ok()
    });
    assert!(given >= Some(MEGABYTES << 20), "{given:?}");
    assert_eq!(host.state(connected), "running");
    drop(connection);
    assert_eq!(host.get(name, "/").status, 200);
    host.finish();
}
