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
/// A loopback device and nothing else, as the peers' containers have.
const PRIVATE: &str = "[network]\nmode = \"private\"\n";
/// A link to the host, as sites have that say nothing.
const ADDRESS: &str = "[network]\nmode = \"address\"\n";

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

/// Who is measured, and its times.
struct Runner<'a> {
    who: &'static str,
    run: Box<dyn FnMut() -> Result<Duration, String> + 'a>,
    times: Vec<Duration>,
}

impl<'a> Runner<'a> {
    fn new(who: &'static str, run: impl FnMut() -> Result<Duration, String> + 'a) -> Self {
        let (run, times) = (Box::new(run), Vec::new());
        Self { who, run, times }
    }
}

/// How many times faster than whom.
const TARGETS: [(&str, f64); 3] = [("runc", 8.0), ("crun", 1.0), ("bwrap", 1.5)];
/// How many times what the system calls alone take.
const BARE: f64 = 1.3;
const OWN: &str = "fastcontainer, whole agent";
const CALLS: &str = "the system calls alone, one thread";

/// An order for this round. The kernel is still clearing away what the last one left while the next is measured, so nobody
/// always comes after the same.
fn shuffle<T>(all: &mut [T], round: usize) {
    let mut state = round as u64 + 1;
    for last in (1..all.len()).rev() {
        // Knuth's MMIX generator, of which the high bits are good.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        all.swap(last, (state >> 33) as usize % (last + 1));
    }
}

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let host = Host::as_installed("");
    host.site("a.example.com", &format!("{NO_OP}{PRIVATE}"));
    host.site("b.example.com", &format!("{NO_OP}{ADDRESS}"));
    let bundle = Bundle::new(&host.dir, &host.run_dir, &host.cgroup_parent);
    let mut bare = Alone::new(&host, "a.example.com");
    let [mut client, mut linked] = [(); 2].map(|()| Client::connect(&host.socket()).unwrap());
    let bwrap: Vec<&str> = BWRAP.into_iter().chain(["/usr/bin/true"]).collect();
    let mut runners = vec![
        Runner::new(OWN, || Ok(ours(&mut client, "a.example.com"))),
        Runner::new("the same with an address", || {
            Ok(ours(&mut linked, "b.example.com"))
        }),
        Runner::new(CALLS, || Ok(bare.run_to_exit())),
        Runner::new("runc run, same isolation", || bundle.run("runc")),
        Runner::new("crun run, same isolation", || bundle.run("crun")),
        Runner::new("bwrap: no limits, no seccomp", || run("bwrap", &bwrap)),
    ];
    // The first rounds fill caches, and the first of all finds out who can run here at all.
    runners.retain_mut(|runner| match (runner.run)() {
        Ok(_) => true,
        Err(error) => {
            eprintln!("SKIPPED: {}: {error}", runner.who);
            false
        }
    });
    let order: Vec<&str> = runners.iter().map(|runner| runner.who).collect();
    for round in 0..effort.rounds(300) + 3 {
        shuffle(&mut runners, round);
        for Runner { who, run, times } in &mut runners {
            let took = run().unwrap_or_else(|e| panic!("{who}: {e}"));
            if round >= 3 {
                times.push(took);
            }
        }
    }
    runners.sort_by_key(|runner| order.iter().position(|who| *who == runner.who));
    let figures: Vec<Figures> = runners
        .iter()
        .map(|runner| Figures::millis(runner.who, &runner.times))
        .collect();
    drop(runners);
    drop((bundle, bare));
    host.finish();
    let of = |who: &str| figures.iter().find(|f| f.who().starts_with(who));
    let p50 = of(OWN).unwrap().p50();
    let mut row = Row::new("run to exit of a no-op, until nothing is left").at_most(
        "times what the system calls take",
        p50 / of(CALLS).unwrap().p50(),
        BARE,
    );
    for (program, limit) in TARGETS {
        if let Some(peer) = of(program) {
            let what = format!("times faster than {program}");
            row = row.at_least(&what, peer.p50() / p50, limit);
        }
    }
    let row = figures.into_iter().fold(row, Row::with);
    let at_a_time = format!("the same, {AT_A_TIME} at a time");
    vec![
        row,
        many(effort, &at_a_time, PRIVATE),
        many(effort, &format!("{at_a_time}, with addresses"), ADDRESS),
    ]
}

/// How many of them can be started at a time in the row of many.
const AT_A_TIME: usize = 4;
/// Per second.
const RATE: f64 = 300.0;

/// As many as one host can do, of as many owners as are at it.
fn many(effort: Effort, what: &str, network: &str) -> Row {
    let host = Host::as_installed("");
    let names: Vec<String> = (0..AT_A_TIME)
        .map(|n| format!("n{n}.example.com"))
        .collect();
    for name in &names {
        host.site(name, &format!("{NO_OP}{network}"));
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
    Row::new(what)
        .with(figures)
        .at_least("per second", rate, RATE)
}
