//! Memory that processes of a site share since a fork: given back as well, whatever happens in the middle of it.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use harness::limits::{SITE, events, in_cgroup};
use harness::swap::Swap;
use harness::{Host, cgroup_roots, seconds, sites, wait_for};

use super::{body, pid, reclaimed};

const MEGABYTES: u64 = 48;

/// Leaves page cache behind that nobody uses, loads all of it, and then makes the processes that answer.
const PREFORK: &str = "\
import os, socket
PAGES = 48 << 8
memory = bytearray(PAGES << 12)
for page in range(PAGES):
    memory[page << 12 : (page << 12) + 8] = page.to_bytes(8, 'little')
with open('/site/once', 'wb') as once:
    once.write(b'x' * (20 << 20))
    once.flush()
    os.fsync(once.fileno())
server = socket.create_server(('0.0.0.0', 8080), backlog=64)
for _ in range(2):
    if os.fork() == 0:
        break
while True:
    connection, _ = server.accept()
    whole = all(memory[p << 12 : (p << 12) + 8] == p.to_bytes(8, 'little') for p in range(PAGES))
    connection.recv(4096)
    connection.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n' + (b'whole' if whole else b'broken'))
    connection.close()
";

fn prefork(host: &Host) {
    let documents = host.documents(SITE);
    sites::put(&documents, "app.py", PREFORK);
    host.site(
        SITE,
        "command = [\"python3\", \"/site/app.py\"]\nlisten = \"tcp:8080\"\n[start]\ntimeout = \"60s\"\n\
         [limits]\nmemory = \"200M\"\n[idle]\naction = \"ladder\"\ntimeout = \"1s\"\nreclaim_after = \"500ms\"\n\
         stop_after = \"never\"\n",
    );
    assert_eq!(body(host, "/"), "whole");
}

/// Of cgroup v1, where the limit is lowered for it.
fn swappiness(host: &Host) -> Option<PathBuf> {
    let group = format!("{}/acme/{SITE}/memory.swappiness", host.cgroup_parent);
    let paths = cgroup_roots().into_iter();
    paths
        .map(|root| PathBuf::from(root).join(&group))
        .find(|path| path.exists())
}

/// Whether the kernel can be told to leave page cache alone: before Linux 6.11 only by way of cgroup v1.
fn spares_files(host: &Host) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|n| n.parse::<u32>().ok());
    swappiness(host).is_some() || (numbers.next(), numbers.next()) >= (Some(6), Some(11))
}

#[test]
fn what_processes_share_since_a_fork_is_given_back() {
    let Some(_swap) = Swap::new() else {
        return;
    };
    let host = Host::new("");
    prefork(&host);
    let told = reclaimed(&host);
    let bytes = |key: &str| told[key].as_u64().unwrap();
    let given = bytes("before_bytes").saturating_sub(bytes("after_bytes"));
    if spares_files(&host) {
        assert!(
            given >= (MEGABYTES << 20) * 8 / 10,
            "of {MEGABYTES} MiB only {given} bytes: {told}"
        );
    }
    if swappiness(&host).is_some() {
        // What the kernel would rather take keeps it from nothing.
        let after = bytes("after_bytes");
        assert!(after <= (MEGABYTES << 20) * 2 / 10, "{told}");
    }
    assert_eq!(body(&host, "/"), "whole");
    host.finish();
}

/// Waits until the kernel is just taking its memory; once that was missed, for the next time.
fn in_the_middle(host: &Host, file: &std::path::Path, usual: &str) {
    let is_usual = || std::fs::read_to_string(file).unwrap().trim() == usual;
    loop {
        let before = events(host, "reclaim").len();
        host.wait_state(SITE, "reclaimed", 150);
        let mut looks = 0;
        while is_usual() {
            thread::sleep(Duration::from_micros(500));
            looks += 1;
            if looks % 1000 == 0 && events(host, "reclaim").len() > before {
                break;
            }
        }
        if !is_usual() {
            return;
        }
        assert_eq!(body(host, "/"), "whole");
    }
}

#[test]
fn whatever_happens_in_the_middle_its_limit_is_as_before() {
    let Some(_swap) = Swap::new() else {
        return;
    };
    let host = Host::new("");
    prefork(&host);
    let Some(file) = swappiness(&host) else {
        return;
    };
    let usual = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    let limits = || {
        let limit = in_cgroup(&host, ["memory.limit_in_bytes"; 2]);
        let swappiness = std::fs::read_to_string(&file).unwrap().trim().to_owned();
        (limit, swappiness)
    };
    let right = ((200u64 << 20).to_string(), usual.clone());
    assert_eq!(limits(), right);
    let first = pid(&host);
    // It is asked for.
    in_the_middle(&host, &file, &usual);
    assert_eq!(body(&host, "/"), "whole");
    wait_for("its limit is as before", seconds(30), || limits() == right);
    // The agent is killed.
    in_the_middle(&host, &file, &usual);
    host.crash_and_restart();
    let told = reclaimed(&host);
    assert_eq!(limits(), right, "{told}");
    assert_eq!(body(&host, "/"), "whole");
    assert_eq!(pid(&host), first);
    host.finish();
}
