//! Sites at rest: how soon one that is frozen answers, or one whose memory was given back, and whether a request is ever lost.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::client::Client;
use harness::limits::{SITE, events, in_cgroup};
use harness::swap::Swap;
use harness::{Host, sites, wait_for};

use crate::Effort;
use crate::cold::{first_byte, static_site};
use crate::report::{Figures, Row};

/// What a page of WordPress has in memory while it is made; PHP keeps it for the next one.
const PAGE: &str = "<?php for ($n = 0; $n < 90; $n++) $all[] = range($n, $n + 8000); echo count($all[7]), \"\\n\";\n";
/// Processes that have made one.
const WORKERS: usize = 4;
const SOON: Duration = Duration::from_secs(60);

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let mut rows = vec![frozen(effort), up_and_down(effort)];
    rows.extend(Swap::new().map(|_swap| reclaimed(effort)));
    rows
}

/// Every process stands still.
fn is_frozen(host: &Host) -> bool {
    let state = in_cgroup(host, ["cgroup.events", "freezer.state"]);
    state.contains("frozen 1") || state == "FROZEN"
}

fn frozen(effort: Effort) -> Row {
    let host = Host::as_installed("");
    let server = static_site(&host, SITE, "");
    let mut client = Client::connect(&host.socket()).unwrap();
    first_byte(&mut client, SITE);
    let mut round = |freeze: bool| {
        if freeze {
            // What the last round sent may have woken it again.
            wait_for("it is frozen", SOON, || {
                verb(&mut client, "freeze") && is_frozen(&host)
            });
        }
        first_byte(&mut client, SITE)
    };
    let mut rounds = |freeze| {
        for _ in 0..20 {
            round(freeze);
        }
        let times: Vec<_> = (0..effort.rounds(1000)).map(|_| round(freeze)).collect();
        times
    };
    let (frozen, running) = (rounds(true), rounds(false));
    host.finish();
    let frozen = Figures::millis("frozen", &frozen);
    let (p50, p99) = (frozen.p50(), frozen.at(99));
    Row::new(&format!(
        "dispatch of a frozen site to first byte: {server}"
    ))
    .with(frozen)
    .with(Figures::millis("the same site while it runs", &running))
    .at_most("p50 ms", p50, 0.3)
    .at_most("p99 ms", p99, 2.0)
}

fn verb(client: &mut Client, verb: &str) -> bool {
    let path = format!("/v1/vhosts/{SITE}/{verb}");
    let answer = client.request("POST", &path, b"").unwrap();
    answer.status == 200 && answer.json()["state"] == "frozen"
}

/// A request through the agent.
fn fetch(client: &mut Client) -> io::Result<()> {
    let body = format!("{{\"vhost\":\"{SITE}\"}}");
    let answer = client.request("POST", "/v1/dispatch", body.as_bytes())?;
    let mut stream = TcpStream::connect(answer.upstream())?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")?;
    let mut page = Vec::new();
    stream.read_to_end(&mut page)?;
    match page.starts_with(b"HTTP/1.") && page.get(9..12) == Some(b"200") {
        true => Ok(()),
        false => Err(io::Error::other(
            String::from_utf8_lossy(&page).into_owned(),
        )),
    }
}

fn up_and_down(effort: Effort) -> Row {
    let host = Host::as_installed("");
    let server = static_site(&host, SITE, "");
    let times = effort.rounds(10_000);
    let (over, served, failed) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    host.dispatch(SITE).upstream();
    let socket = host.socket();
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = Client::connect(&socket).unwrap();
                while !over.load(Ordering::Relaxed) {
                    let counter = match fetch(&mut client) {
                        Ok(()) => &served,
                        Err(error) => {
                            eprintln!("a request failed: {error}");
                            client = Client::connect(&socket).unwrap();
                            &failed
                        }
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut client = Client::connect(&socket).unwrap();
        let mut frozen = 0;
        while frozen < times {
            frozen += usize::from(verb(&mut client, "freeze"));
            verb(&mut client, "thaw");
        }
        over.store(true, Ordering::Relaxed);
    });
    let took = began.elapsed().as_secs_f64();
    let starts = host.status(SITE)["starts"].as_f64().unwrap();
    host.finish();
    let failed = failed.into_inner() as f64;
    let number = |who: &str, unit, value| Figures::new(who, unit, vec![value]);
    Row::new(&format!(
        "frozen and thawed {times} times under load: {server}"
    ))
    .with(number(
        "requests answered meanwhile",
        "requests",
        served.into_inner() as f64,
    ))
    .with(number("freezes and thaws", "1/s", times as f64 / took))
    .at_most("failed requests", failed, 0.0)
    .at_most("starts", starts, 1.0)
}

/// Bytes of anonymous memory that are the site's alone, however its processes share them.
fn private(host: &Host) -> f64 {
    let pids = in_cgroup(host, ["cgroup.procs", "cgroup.procs"]);
    let rollups = pids
        .lines()
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok());
    let of = |text: String| -> Option<f64> {
        let line = text.lines().find(|line| line.starts_with("Pss_Anon:"))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    rollups.filter_map(of).sum::<f64>() * 1024.0
}

fn reclaimed(effort: Effort) -> Row {
    let host = Host::as_installed("");
    sites::apache(
        &host,
        SITE,
        "[limits]\ncpu = \"200%\"\nmemory = \"256M\"\npids = 128\n[idle]\naction = \"ladder\"\ntimeout = \"1s\"\n\
         reclaim_after = \"500ms\"\nstop_after = \"never\"\n",
    );
    let documents = host.dir.join("www").join(SITE);
    sites::put(&documents, "index.php", PAGE);
    let (mut given, mut held, mut took, mut warm) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut client = Client::connect(&host.socket()).unwrap();
    let socket = host.socket();
    for round in 0..effort.rounds(20) {
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    let mut client = Client::connect(&socket).unwrap();
                    (0..5).for_each(|_| fetch(&mut client).unwrap());
                });
            }
        });
        warm.push(first_byte(&mut client, SITE));
        let before = private(&host);
        wait_for("its memory has been given back", SOON, || {
            events(&host, "reclaim").len() > round
        });
        given.push((before - private(&host)) / before * 100.0);
        held.push(before / f64::from(1 << 20));
        took.push(first_byte(&mut client, SITE));
    }
    host.finish();
    let given = Figures::new("private memory given back", "%", given);
    let took = Figures::millis("first byte afterwards", &took);
    let (least, first) = (given.at(0), took.p50());
    Row::new("Apache + PHP, prefork, each page with 12 MB: its memory given back to swap (zram)")
        .with(Figures::new("private memory before", "MB", held))
        .with(given)
        .with(took)
        .with(Figures::millis("first byte while it runs", &warm))
        .at_least("least % of private memory given back", least, 60.0)
        .at_most("first byte p50 ms", first, 30.0)
}
