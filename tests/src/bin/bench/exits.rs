//! Run-to-exit of a no-op: from the request until it has ended and nothing is left of its container.
//!
//! Ours goes through the whole agent: a site whose command exits at once cannot start, and the answer to `start`
//! comes when everything has been removed. The peers are run as their users run them: one command.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::Host;
use harness::client::Client;

use crate::Effort;
use crate::alone::Alone;
use crate::bundle::Bundle;
use crate::report::{Figures, Row};

const NO_OP: &str = "command = [\"/usr/bin/true\"]\nlisten = \"tcp:8080\"\n\
    [limits]\ncpu = \"100%\"\nmemory = \"64M\"\npids = 64\n";

fn ours(client: &mut Client, vhost: &str) -> Duration {
    let began = Instant::now();
    let answer = client
        .request("POST", &format!("/v1/vhosts/{vhost}/start"), b"")
        .unwrap();
    let took = began.elapsed();
    assert_eq!(
        answer.json()["type"],
        "start-failed",
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    // A failure earns a pause before the next start; a stop by hand lifts it.
    let answer = client
        .request("POST", &format!("/v1/vhosts/{vhost}/stop"), b"")
        .unwrap();
    assert_eq!(answer.json()["state"], "stopped");
    took
}

/// Runs a program to its end; Err is what it said.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<Duration, String> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let began = Instant::now();
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}; install it"));
    let took = began.elapsed();
    if output.status.success() {
        Ok(took)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

const BWRAP: [&str; 22] = [
    "--unshare-all",
    "--die-with-parent",
    "--new-session",
    "--cap-drop",
    "ALL",
    "--ro-bind",
    "/usr",
    "/usr",
    "--symlink",
    "usr/bin",
    "/bin",
    "--symlink",
    "usr/lib",
    "/lib",
    "--symlink",
    "usr/lib64",
    "/lib64",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "--",
];

type Peer<'a> = (
    &'static str,
    Box<dyn Fn() -> Result<Duration, String> + 'a>,
    Vec<Duration>,
);

/// How many times faster than whom.
const TARGETS: [(&str, f64); 3] = [("runc", 8.0), ("crun", 1.0), ("bwrap", 1.5)];
/// How many times what the system calls alone take.
const BARE: f64 = 1.3;

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let host = Host::as_installed("");
    host.site("a.example.com", NO_OP);
    let bundle = Bundle::new(&host.dir, &host.run_dir, &host.cgroup_parent);
    let mut client = Client::connect(&host.socket()).unwrap();
    let bwrap: Vec<&str> = BWRAP.into_iter().chain(["/usr/bin/true"]).collect();
    // In turn, so that whatever else the machine does meets all of them alike.
    let mut peers: Vec<Peer<'_>> = vec![
        (
            "runc run, same isolation",
            Box::new(|| bundle.run("runc")),
            Vec::new(),
        ),
        (
            "crun run, same isolation",
            Box::new(|| bundle.run("crun")),
            Vec::new(),
        ),
        (
            "bwrap: no limits, no seccomp",
            Box::new(|| run("bwrap", &bwrap)),
            Vec::new(),
        ),
    ];
    // The first round fills caches and finds out who can run here at all.
    peers.retain(|(who, run, _)| match run() {
        Ok(_) => true,
        Err(error) => {
            eprintln!("SKIPPED: {who}: {error}");
            false
        }
    });
    let mut bare = Alone::new(&host, "a.example.com");
    let (mut own, mut calls) = (Vec::new(), Vec::new());
    for round in 0..effort.rounds(300) + 3 {
        let took = ours(&mut client, "a.example.com");
        let alone = bare.run_to_exit();
        if round >= 3 {
            own.push(took);
            calls.push(alone);
        }
        for (who, run, times) in &mut peers {
            let took = run().unwrap_or_else(|e| panic!("{who}: {e}"));
            if round >= 3 {
                times.push(took);
            }
        }
    }
    let peers_times: Vec<Figures> = peers
        .iter()
        .map(|(who, _, times)| Figures::millis(who, times))
        .collect();
    drop(peers);
    drop((bundle, bare));
    host.finish();
    let own = Figures::millis("fastcontainer, whole agent", &own);
    let p50 = own.p50();
    let calls = Figures::millis("the system calls alone, one thread", &calls);
    let times = p50 / calls.p50();
    let mut row = Row::new("run to exit of a no-op, until nothing is left")
        .with(own)
        .with(calls)
        .at_most("times what the system calls take", times, BARE);
    for (figures, (program, limit)) in peers_times.into_iter().flat_map(|f| {
        let target = TARGETS
            .iter()
            .find(|(program, _)| f.who().starts_with(program));
        target.map(|target| (f, *target))
    }) {
        let ratio = figures.p50() / p50;
        row = row
            .with(figures)
            .at_least(&format!("times faster than {program}"), ratio, limit);
    }
    vec![row, many(effort)]
}

/// How many of them can be started at a time in the row of many.
const AT_A_TIME: usize = 4;
/// Per second.
const RATE: f64 = 300.0;

/// As many as one host can do, of as many owners as are at it.
fn many(effort: Effort) -> Row {
    let host = Host::as_installed("");
    let names: Vec<String> = (0..AT_A_TIME)
        .map(|n| format!("n{n}.example.com"))
        .collect();
    for name in &names {
        host.site(name, NO_OP);
    }
    let (rounds, socket) = (effort.rounds(500), host.socket());
    let seconds: Vec<f64> = (0..3)
        .map(|_| {
            let began = Instant::now();
            std::thread::scope(|scope| {
                for name in &names {
                    let socket = &socket;
                    scope.spawn(move || {
                        let mut client = Client::connect(socket).unwrap();
                        for _ in 0..rounds {
                            ours(&mut client, name);
                        }
                    });
                }
            });
            began.elapsed().as_secs_f64()
        })
        .collect();
    host.finish();
    let rates = seconds
        .iter()
        .map(|s| (AT_A_TIME * rounds) as f64 / s)
        .collect();
    let figures = Figures::new("fastcontainer, whole agent", "per second", rates);
    let rate = figures.p50();
    Row::new(&format!("the same, {AT_A_TIME} at a time"))
        .with(figures)
        .at_least("per second", rate, RATE)
}
