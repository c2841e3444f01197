//! Many idle live containers without a link to the outside: what each costs, and whether the next start or connection notices them.

use std::thread;
use std::time::{Duration, Instant};

use harness::Host;
use harness::connect::Connector;

use crate::Effort;
use crate::alone::Alone;
use crate::cold::PAUSE;
use crate::connect::{fetch, handed};
use crate::live::name;
use crate::parts::groups;
use crate::report::{Figures, Line, Row};
use crate::room::{HANDED, room};
use crate::scale::ticks;

/// Of all sites.
const DOCUMENTS: &str = "shared";
/// How many live at each measurement.
const LEVELS: [usize; 5] = [100, 300, 1000, 2000, 3000];
/// With fewer, what the agent has for itself and what other processes do meanwhile would be most of what each costs.
const CHECKED: usize = 1000;
/// The last starts before each level, whose time is taken: apart from each other, and from the many before them.
const STARTS: usize = 100;
/// Empty control groups, of each kind, by which these are measured.
const GROUPS: usize = 300;
/// Connections to live sites at each level.
const CONNECTIONS: usize = 2000;
/// What starts have left to do is over by then, and the counters were read.
const SETTLE: Duration = Duration::from_secs(8);
/// Memory is at rest when it changes by less than so many kB between two looks; there are no more than so many.
const AT_REST: f64 = 300.0;
const BETWEEN_LOOKS: Duration = Duration::from_secs(3);
const LOOKS: usize = 15;
/// For how long the agent's processor time is measured.
const IDLE: Duration = Duration::from_secs(5);

/// What was measured with so many containers.
struct Level {
    live: usize,
    starts: Vec<Duration>,
    /// The system calls of a start as they are mostly made, with a sysfs of its own and pivot_root.
    calls: Vec<Duration>,
    warm: Vec<Duration>,
    /// kB of each container.
    memory: f64,
    /// Percent of one core that the agent used.
    cpu: f64,
}

/// Memory that is in use, page cache apart, kB: what the kernel, the agent and all processes have, once it has come to rest:
/// what has ended before is freed for many seconds yet.
pub(crate) fn used() -> f64 {
    let mut last = used_now();
    for _ in 0..LOOKS {
        thread::sleep(BETWEEN_LOOKS);
        let before = std::mem::replace(&mut last, used_now());
        if (last - before).abs() < AT_REST {
            break;
        }
    }
    last
}

/// The same now. What could be given back at once is given back first.
pub(crate) fn used_now() -> f64 {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let value = |key: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    };
    value("MemTotal:") - value("MemFree:") - value("Buffers:") - value("Cached:") + value("Shmem:")
}

/// kB that an application has for itself: not ours.
fn own(pid: u64) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let lines = text
        .lines()
        .filter(|line| line.starts_with("Private_Dirty:"));
    lines
        .filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<f64>().ok())
        .sum()
}

/// The processes of the applications, from the records of their containers.
fn application(host: &Host, n: usize) -> u64 {
    host.status(&name(n))["pid"].as_u64().unwrap()
}

/// Sites with a small server, until the agent knows `total`.
pub(crate) fn define(host: &Host, count: usize, total: usize) {
    let documents = host.documents(DOCUMENTS);
    let server = std::env::var_os("FASTCONTAINER_BENCH_SERVER").expect("scripts/bench builds it");
    std::fs::copy(server, documents.join("server")).unwrap();
    for n in 0..count {
        let text = format!(
            "name = \"{}\"\nowner = \"owner{}\"\ndocuments = {documents:?}\ncommand = [\"/site/server\"]\nlisten = \
             \"tcp:8080\"\n[network]\nmode = \"private\"\n[idle]\ntimeout = \"1h\"\n",
            name(n),
            n % 100
        );
        std::fs::write(host.dir.join(format!("vhosts.d/{}.toml", name(n))), text).unwrap();
    }
    harness::wait_for(
        "the definitions are in force",
        Duration::from_secs(60),
        || host.request("GET", "/v1/status", b"").json()["vhosts"]["total"] == total,
    );
}

/// A site that is not there: until the first page of it is.
pub(crate) fn start(connector: &Connector, n: usize) -> Duration {
    let (took, mut stream) = handed(connector, &name(n));
    let began = Instant::now();
    fetch(&mut stream);
    took + began.elapsed()
}

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let most = room(effort.rounds(LEVELS[LEVELS.len() - 1]), HANDED);
    let mut levels = LEVELS.map(|n| effort.rounds(n).min(most)).to_vec();
    // Those that there is no room for.
    levels.dedup();
    let host = Host::as_installed("");
    define(&host, most, most);
    // The first of all finds everything cold.
    start(&host.connector(), 0);
    thread::sleep(SETTLE);
    let empty = |live: usize| {
        let (kb, hierarchies) = groups(&host, GROUPS);
        let what = format!("of it empty control groups in {hierarchies} hierarchies, {live} live");
        Figures::new(&what, "kB each", vec![kb / GROUPS as f64])
    };
    let few = empty(1);
    let (mut live, base, mut apps) = (1, used(), 0.0);
    let mut measured = Vec::new();
    for level in levels {
        let (mut starts, mut calls) = (Vec::new(), Vec::new());
        // The agent ends a connection that is silent for long: one for each burst.
        let (first, connector) = (live, host.connector());
        while live < level.saturating_sub(STARTS) {
            start(&connector, live);
            live += 1;
        }
        thread::sleep(SETTLE);
        while live < level {
            starts.push(start(&connector, live));
            live += 1;
            thread::sleep(PAUSE);
        }
        // Not in turn: what is left to do of their ends would be work beside the starts.
        let mut alone = Alone::new(&host, DOCUMENTS);
        for _ in 0..starts.len() {
            calls.push(alone.first_byte());
            thread::sleep(PAUSE);
        }
        drop(alone);
        thread::sleep(SETTLE);
        apps += (first..live)
            .map(|n| own(application(&host, n)))
            .sum::<f64>();
        let memory = (used() - base - apps) / (live - 1) as f64;
        let (began, before) = (Instant::now(), ticks(host.pid()));
        thread::sleep(IDLE);
        let cpu = (ticks(host.pid()) - before) as f64 / began.elapsed().as_secs_f64();
        let connector = host.connector();
        let warm = (0..CONNECTIONS)
            .map(|n| handed(&connector, &name(n % live)).0)
            .collect();
        measured.push(Level {
            live,
            starts,
            calls,
            warm,
            memory,
            cpu,
        });
    }
    let many = empty(live);
    host.finish();
    vec![row(&measured).with(few).with(many)]
}

fn row(measured: &[Level]) -> Row {
    let mut row = Row::new("idle live containers without a link to the outside");
    let mut lines = [
        ("start of a stopped site to its first page (ms)", "p50"),
        ("start of a stopped site to its first page (ms)", "p99"),
        (
            "start of a stopped site to its first page (ms)",
            "calls p50",
        ),
        ("connection to a running site (µs)", "p50"),
        ("connection to a running site (µs)", "p99"),
        ("memory of each but the application's (kB)", ""),
        ("processor time of the agent, all idle (% of a core)", ""),
    ]
    .map(|(graph, name)| Line::new("live containers", graph, name));
    let mut medians = Vec::new();
    for level in measured {
        let who = |what: &str| format!("{what}, {} live", level.live);
        let starts = Figures::millis(&who("start"), &level.starts);
        let calls = Figures::millis(&who("the system calls alone"), &level.calls);
        let warm = Figures::micros(&who("connection"), &level.warm);
        medians.push([starts.p50(), warm.p50()]);
        let values = [
            starts.p50(),
            starts.at(99),
            calls.p50(),
            warm.p50(),
            warm.at(99),
            level.memory,
            level.cpu,
        ];
        for (line, value) in lines.iter_mut().zip(values) {
            line.add(level.live as f64, value);
        }
        row = row
            .with(starts)
            .with(calls)
            .with(warm)
            .with(Figures::new(
                &who("kernel, agent and shim"),
                "kB each",
                vec![level.memory],
            ))
            .with(Figures::new(&who("agent's CPU"), "%", vec![level.cpu]));
    }
    let (few, many) = (medians[0], medians[medians.len() - 1]);
    let counted = |n: usize| measured.get(n).map_or(0, |level| level.live);
    let (least, most) = (counted(0), counted(measured.len() - 1));
    row = lines.into_iter().fold(row, Row::drawn);
    for level in measured.iter().filter(|level| CHECKED <= level.live) {
        row = row.at_most(
            &format!("kB each, {} live", level.live),
            level.memory,
            600.0,
        );
    }
    row.at_most(
        &format!("start, {most} live against {least}, p50 x"),
        many[0] / few[0],
        1.2,
    )
    .at_most(
        &format!("connection, {most} live against {least}, p50 x"),
        many[1] / few[1],
        1.2,
    )
}
