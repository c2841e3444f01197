//! Many live containers with accounting on: what they cost the agent, and whether a dispatch waits for that.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::Host;
use harness::client::Client;

use crate::Effort;
use crate::report::{Figures, Row};
use crate::room::{LINKED, room};
use crate::scale::ticks;

const CONTAINERS: usize = 2000;
/// Owners, who share the sites.
const OWNERS: usize = 100;
/// Whatever the starts have left to do, and the first reading of all, is over by then.
const SETTLE: Duration = Duration::from_secs(30);
/// For how long each is measured.
const MEASURE: Duration = Duration::from_secs(60);
/// While it is busy each site has a visitor this often.
const VISITS: Duration = Duration::from_secs(10);
/// Between two dispatches.
const APART: Duration = Duration::from_millis(5);

pub(crate) fn name(n: usize) -> String {
    format!("n{n}.example.com")
}

/// Percent of one core that the agent uses in a while.
fn share(pid: u32) -> f64 {
    let (began, before) = (Instant::now(), ticks(pid));
    thread::sleep(MEASURE);
    // A tick is 10 ms.
    (ticks(pid) - before) as f64 / began.elapsed().as_secs_f64()
}

/// Definitions of sites with a small static server, shared out among owners; in force when this returns.
pub(crate) fn define_small(host: &Host, count: usize, owners: usize) {
    let documents = host.documents("shared");
    let rest = match std::env::var_os("FASTCONTAINER_BENCH_SERVER") {
        Some(server) => {
            std::fs::copy(server, documents.join("server")).unwrap();
            "command = [\"/site/server\"]\nlisten = \"tcp:8080\"\n"
        }
        None => harness::STATIC,
    };
    let limits = "[limits]\ncpu = \"50%\"\nmemory = \"64M\"\npids = 16\n";
    define(host, &documents, count, owners, &format!("{rest}{limits}"));
}

/// Definitions of sites with the same documents, shared out among owners; in force when this returns.
pub(crate) fn define(host: &Host, documents: &Path, count: usize, owners: usize, rest: &str) {
    for n in 0..count {
        let text = format!(
            "name = \"{}\"\nowner = \"owner{}\"\ndocuments = {documents:?}\n{rest}[idle]\ntimeout = \"1h\"\n",
            name(n),
            n % owners
        );
        let file = host.dir.join(format!("vhosts.d/{}.toml", name(n)));
        std::fs::write(file, text).unwrap();
    }
    harness::wait_for(
        "the definitions are in force",
        Duration::from_secs(60),
        || {
            let status = host.request("GET", "/v1/status", b"").json();
            status["vhosts"]["total"] == count
        },
    );
}

fn start_all(host: &Host, count: usize) -> Vec<String> {
    define_small(host, count, OWNERS);
    let mut client = Client::connect(&host.socket()).unwrap();
    let start = |n| dispatch(&mut client, n).1;
    (0..count).map(start).collect()
}

/// How long it took, and where it leads.
fn dispatch(client: &mut Client, n: usize) -> (Duration, String) {
    let body = format!("{{\"vhost\":\"{}\"}}", name(n));
    let began = Instant::now();
    let answer = client.request("POST", "/v1/dispatch", body.as_bytes());
    let took = began.elapsed();
    (took, answer.unwrap().upstream())
}

/// Visits each in turn until told to stop.
fn visit(upstreams: &[String], stop: &AtomicBool) {
    let pause = VISITS / u32::try_from(upstreams.len()).unwrap();
    let mut next = Instant::now();
    for upstream in upstreams.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut stream = TcpStream::connect(upstream).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        next += pause;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// Dispatches to live sites, one after the other, for as long as `share` takes to measure; and by how much the pauses in
/// between were longer than asked for, in which nothing but this machine has a part.
fn dispatches(host: &Host, count: usize) -> (Vec<Duration>, Vec<Duration>) {
    let mut client = Client::connect(&host.socket()).unwrap();
    let end = Instant::now() + MEASURE;
    let (mut times, mut late) = (Vec::new(), Vec::new());
    for n in (0..count).cycle() {
        if Instant::now() > end {
            break;
        }
        times.push(dispatch(&mut client, n).0);
        let paused = Instant::now();
        thread::sleep(APART);
        late.push(paused.elapsed() - APART);
    }
    (times, late)
}

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let count = room(effort.rounds(CONTAINERS), LINKED);
    let host = Host::as_installed("");
    let upstreams = start_all(&host, count);
    thread::sleep(SETTLE);
    let idle = share(host.pid());
    let stop = AtomicBool::new(false);
    let (busy, (times, late)) = thread::scope(|scope| {
        scope.spawn(|| visit(&upstreams, &stop));
        thread::sleep(SETTLE);
        let busy = share(host.pid());
        let times = dispatches(&host, count);
        stop.store(true, Ordering::Relaxed);
        (busy, times)
    });
    host.finish();
    let what = format!("{count} live containers, accounts on");
    let visited = format!("agent's CPU, each visited every {} s", VISITS.as_secs());
    let times = Figures::millis("dispatch to live sites meanwhile", &times);
    let late = Figures::millis("its client wakes late by", &late);
    let longest = times.max();
    vec![
        Row::new(&what)
            .with(Figures::new("agent's CPU, all idle", "%", vec![idle]))
            .with(Figures::new(&visited, "%", vec![busy]))
            .with(times)
            .with(late)
            .at_most("agent's CPU, all idle, %", idle, 3.0)
            .at_most("agent's CPU, all visited, %", busy, 3.0)
            .at_most("longest dispatch ms", longest, 5.0),
    ]
}
