//! Thousand lives and hundreds of violent ends: nothing leaks, nobody is left without an answer.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::http;
use harness::{Host, STATIC, Snapshot, rounds, seconds, send_signal, wait_for};
use serde_json::Value;

/// Memory that a process has.
fn memory_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// All is as it was; what the kernel takes apart in the background gets time for it.
fn same(host: &Host, before: &Snapshot, descriptors: usize) {
    let end = Instant::now() + seconds(15);
    loop {
        let (now, open) = (host.snapshot(), host.descriptors());
        if now == *before && open <= descriptors {
            return;
        }
        if Instant::now() > end {
            assert_eq!(now, *before);
            panic!(
                "the agent had {descriptors} descriptors and has {open} now:\n{}",
                links(host.pid())
            );
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn links(pid: u32) -> String {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut all: Vec<String> = entries
        .filter_map(|e| Some(fs::read_link(e.path()).ok()?.display().to_string()))
        .collect();
    all.sort();
    all.join("\n")
}

#[test]
fn a_thousand_lives_leave_nothing() {
    let host = Host::new("");
    let sites = ["a.example.com", "b.example.com"];
    host.site(
        sites[0],
        &format!("{STATIC}[limits]\npids = 20\nmemory = \"64M\"\n[network]\noutbound = true\n"),
    );
    host.site(
        sites[1],
        "command = [\"/usr/bin/busybox\", \"httpd\", \"-f\", \"-p\", \"127.0.0.1:8080\"]\nlisten = \"tcp:8080\"\n[network]\nmode = \"private\"\n",
    );
    let life = |site: &str| {
        let answer = match site == sites[0] {
            true => host.dispatch(site).json(),
            false => host.connector().ask(site).unwrap().json,
        };
        assert_eq!(answer["cold"], true, "{answer}");
        let stopped = host.verb(site, "stop");
        assert_eq!(
            (stopped.status, stopped.json()["state"].as_str()),
            (200, Some("stopped")),
            "{stopped:?}"
        );
    };
    // Everything that is made once is there after the first lives, the pool is full.
    for _ in 0..rounds(20, 5) {
        sites.iter().for_each(|site| life(site));
    }
    let before = settled(&host);
    let (descriptors, memory) = (host.settled_descriptors(), memory_kib(host.pid()));
    let began = Instant::now();
    for _ in 0..rounds(1000, 60) / 2 {
        sites.iter().for_each(|site| life(site));
    }
    println!("{} lives in {:?}", rounds(1000, 60), began.elapsed());
    same_but_names(&host, &before, descriptors);
    let grown = memory_kib(host.pid()).saturating_sub(memory);
    assert!(grown < 8 << 10, "the agent has grown by {grown} KiB");
    host.finish();
}

/// Links that a test's agent has ready while none are taken, see [`Host::new`].
const READY: usize = 2;

/// What there is once the owner's cgroup is gone, which is kept for a while, and the pool of network namespaces is as large as
/// it is while nothing is taken from it: while it is refilled it is as large for a moment, too.
fn settled(host: &Host) -> Snapshot {
    let mut last = host.snapshot();
    wait_for(
        "the pool and the owners are as they were",
        seconds(60),
        || {
            last = host.snapshot();
            let owned = last.cgroups.iter().any(|path| path.ends_with("/acme"));
            !owned && last.links.len() == READY
        },
    );
    last
}

/// Pooled links have other numbers after each use: compared is how many there are.
fn same_but_names(host: &Host, before: &Snapshot, descriptors: usize) {
    let now = settled(host);
    assert_eq!(now.links.len(), before.links.len(), "{now:?}");
    let before = Snapshot {
        links: now.links,
        ..before.clone()
    };
    same(host, &before, descriptors);
}

/// xorshift64*: the same ends in the same order for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Command,
    Init,
    Spawner,
    Agent,
}

/// How often each: a new agent takes longest.
const VICTIMS: [Victim; 6] = [
    Victim::Command,
    Victim::Command,
    Victim::Init,
    Victim::Init,
    Victim::Spawner,
    Victim::Agent,
];

/// Kills a process that this test's agent has started, if it is there at the moment.
fn kill(host: &Host, victim: Victim, site: &str) -> bool {
    let ask = |path: &str| {
        host.try_request("GET", path, b"")
            .ok()
            .filter(|answer| answer.status == 200)
            .map(|answer| answer.json())
    };
    let pid = match victim {
        Victim::Command => ask(&format!("/v1/vhosts/{site}")).map(|status| status["pid"].clone()),
        Victim::Init => ask(&format!("/v1/vhosts/{site}")).map(|status| status["init_pid"].clone()),
        Victim::Spawner => ask("/v1/status").map(|status| status["spawner_pid"].clone()),
        Victim::Agent => {
            host.crash_and_restart();
            return true;
        }
    };
    let pid = pid
        .as_ref()
        .and_then(Value::as_u64)
        .and_then(|pid| u32::try_from(pid).ok());
    if let Some(pid) = pid {
        send_signal(pid, libc::SIGKILL);
    }
    pid.is_some()
}

/// Dispatches and fetches until told to end; counts what it was told.
fn customer(
    host: &std::path::Path,
    site: &str,
    agent_dies: &AtomicBool,
    over: &AtomicBool,
    told: &[AtomicUsize; 3],
) {
    let body = format!("{{\"vhost\":{site:?}}}");
    while !over.load(Ordering::Relaxed) {
        let dying = agent_dies.load(Ordering::SeqCst);
        match http::request(host, "POST", "/v1/dispatch", body.as_bytes()) {
            Ok(answer) if answer.status == 200 => {
                answer.upstream();
                told[0].fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => {
                let problem = answer.json();
                let reason = problem["detail"].as_str().unwrap_or_default();
                assert!(
                    [503, 504].contains(&answer.status) && reason.contains(site),
                    "{problem}"
                );
                told[1].fetch_add(1, Ordering::Relaxed);
            }
            // Only an agent that is dead may say nothing.
            Err(error) => {
                assert!(
                    dying || agent_dies.load(Ordering::SeqCst),
                    "no answer: {error}"
                );
                told[2].fetch_add(1, Ordering::Relaxed);
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn three_hundred_kills_leave_nothing() {
    let seed = std::env::var("FASTCONTAINER_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0x5eed_2026);
    println!("FASTCONTAINER_SEED={seed}");
    let mut random = Random(seed);
    let host = Host::new("");
    let before = host.snapshot();
    let sites = ["a.example.com", "b.example.com", "c.example.com"];
    for site in sites {
        host.site(
            site,
            &format!("{STATIC}[idle]\ntimeout = \"1s\"\n[stop]\ntimeout = \"1s\"\n"),
        );
        host.dispatch(site).upstream();
    }
    let (agent_dies, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let told: [AtomicUsize; 3] = Default::default();
    let socket = host.socket();
    let mut killed = [0; 4];
    thread::scope(|scope| {
        let ended = Ended(&over);
        let customers: Vec<_> = sites
            .iter()
            .map(|site| scope.spawn(|| customer(&socket, site, &agent_dies, &over, &told)))
            .collect();
        let wanted = rounds(300, 30);
        while killed.iter().sum::<u32>() < wanted {
            assert!(
                customers.iter().all(|customer| !customer.is_finished()),
                "a customer has found a fault"
            );
            let victim = VICTIMS[random.below(VICTIMS.len() as u64) as usize];
            let site = sites[random.below(3) as usize];
            // Agents that die all the time would leave no time for anything else.
            if victim == Victim::Agent {
                agent_dies.store(true, Ordering::SeqCst);
            }
            killed[victim as usize] += u32::from(kill(&host, victim, site));
            agent_dies.store(false, Ordering::SeqCst);
            // A site that has failed is up again at the operator's word, so that there is something to kill.
            if random.below(3) == 0 {
                host.verb(site, "stop");
            }
            thread::sleep(Duration::from_micros(random.below(60_000)));
        }
        drop(ended);
    });
    println!(
        "killed {killed:?} (command, init, spawner, agent); served, refused, cut off: {told:?}"
    );
    assert!(told[0].load(Ordering::Relaxed) > 0 && killed.iter().all(|count| *count > 0));
    for site in sites {
        assert_eq!(host.verb(site, "stop").json()["state"], "stopped");
        assert_eq!(host.get(site, "/").status, 200, "it is as good as new");
        assert_eq!(host.verb(site, "stop").json()["state"], "stopped");
    }
    let left = host.snapshot();
    assert_eq!(
        (
            left.processes.len(),
            left.sites.len(),
            left.mounts.len(),
            left.elements
        ),
        (0, 0, 0, before.elements),
        "{left:?}"
    );
    assert!(
        left.cgroups
            .iter()
            .all(|path| !path.contains("example.com")),
        "{left:?}"
    );
    host.finish();
}

/// Ends the customers, also when the test fails.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
