//! Very many containers ended at once: whether starts notice, and whether all that was taken comes back.

use std::fs;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use harness::Host;
use harness::client::Client;

use crate::Effort;
use crate::cold::{first_byte, stop};
use crate::density::{used, used_now};
use crate::live::{define_small, name};
use crate::report::{Figures, Row};

/// Containers that are ended at once.
const ENDED: usize = 1000;
/// Sites that are started before and, as long as that lasts, meanwhile.
const STARTED: usize = 200;
const OWNERS: usize = 20;
/// What the agent makes ahead or clears away is over when nothing has changed for so long: it keeps owners' groups for a
/// while, too.
const SETTLED: Duration = Duration::from_secs(6);
/// Percent of the memory that containers took: what other processes do meanwhile.
const NOTHING: f64 = 1.0;
/// Likewise: what the allocators of the kernel and the agent keep for the next ones, once.
const ONCE: f64 = 5.0;
/// Objects that the kernel counts although they are free: a processor has them at hand for its next use.
const AT_HAND: f64 = 20.0;
/// For how long memory may be on its way back: the kernel takes groups apart one by one in the background, long after
/// their directories have gone.
const BACK: Duration = Duration::from_secs(120);
/// Each look has everything given back that could be at once, which costs time itself.
const LOOK: Duration = Duration::from_secs(2);

/// How much there is of each thing that containers are made of.
type Counts = [(&'static str, usize); 7];
/// How many of them, the last, the kernel counts on the whole host.
const OF_THE_KERNEL: usize = 2;

fn counts(host: &Host) -> Counts {
    // The kernel frees those that ended last when the next one ends (net_complete_free in net/core/net_namespace.c).
    let next = thread::spawn(|| nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET));
    next.join().unwrap().unwrap();
    let own = host.snapshot();
    [
        ("cgroups", own.cgroups.len()),
        ("processes", own.processes.len()),
        ("links", own.links.len()),
        ("firewall elements", own.elements),
        ("run directories", own.sites.len()),
        ("network namespaces", objects("net_namespace")),
        ("mounts", objects("mnt_cache")),
    ]
}

/// How many objects of a kind the kernel has.
fn objects(cache: &str) -> usize {
    // Without it more of those that are free count as well. Not every kernel has the file.
    let _ = fs::write(format!("/sys/kernel/slab/{cache}/shrink"), "1");
    let text = fs::read_to_string("/proc/slabinfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(cache));
    let line = line.unwrap_or_else(|| panic!("no {cache} in /proc/slabinfo"));
    line.split_ascii_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

/// When nothing changes any more.
fn settled(host: &Host) -> Counts {
    let mut last = counts(host);
    harness::wait_for("nothing is under way", harness::seconds(60), || {
        thread::sleep(SETTLED);
        let now = counts(host);
        std::mem::replace(&mut last, now) == now
    });
    last
}

/// A connection: the agent ends one that is silent for as long as things settle.
fn client(host: &Host) -> Client {
    Client::connect(&host.socket()).unwrap()
}

fn clients(host: &Host, count: usize) -> Vec<Client> {
    (0..count).map(|_| client(host)).collect()
}

/// Waits until no more is in use than `allowed` above `before` (kB), at most for a while; how much is, and after how many
/// seconds.
fn back(before: f64, allowed: f64) -> (f64, f64) {
    let began = Instant::now();
    loop {
        let left = used_now() - before;
        if left <= allowed || began.elapsed() > BACK {
            return (left, began.elapsed().as_secs_f64());
        }
        thread::sleep(LOOK);
    }
}

/// Starts sites one after the other for as long as `go_on` says so.
fn starts(host: &Host, sites: Range<usize>, go_on: impl Fn() -> bool) -> Vec<Duration> {
    let mut client = client(host);
    sites
        .take_while(|_| go_on())
        .map(|n| first_byte(&mut client, &name(n)))
        .collect()
}

/// Stops sites one after the other.
fn stops(host: &Host, sites: Range<usize>) {
    let mut client = client(host);
    for n in sites {
        stop(&mut client, &name(n));
    }
}

/// Asks for the end of all of them at once, each on a connection of its own, and waits until all have ended.
fn end(clients: &mut [Client]) -> Duration {
    let began = Instant::now();
    for (n, client) in clients.iter_mut().enumerate() {
        let path = format!("/v1/vhosts/{}/stop", name(n));
        client.send("POST", &path, "", b"").unwrap();
    }
    for client in clients {
        let answer = client.answer().unwrap();
        assert_eq!(answer.json()["state"], "stopped");
    }
    began.elapsed()
}

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let (ended, started) = (effort.rounds(ENDED), effort.rounds(STARTED));
    let host = Host::as_installed("");
    let all = ended + 2 * started;
    define_small(&host, all, OWNERS);
    // The first of all finds everything cold.
    starts(&host, 0..1, || true);
    stops(&host, 0..1);
    settled(&host);
    let fresh = used();
    starts(&host, 0..ended, || true);
    let taken = used() - fresh;
    // What the agent keeps of a site that has run once is kept before anything is compared.
    starts(&host, ended..all, || true);
    end(&mut clients(&host, all));
    let (kept, _) = back(fresh, taken * ONCE / 100.0);
    let (counts_before, memory_before) = (settled(&host), used());
    starts(&host, 0..ended, || true);
    let before = starts(&host, ended..ended + started, || true);
    let mut clients = clients(&host, ended);
    let (meanwhile, took) = thread::scope(|scope| {
        let ending = scope.spawn(|| end(&mut clients));
        let more = ended + started..all;
        let meanwhile = starts(&host, more, || !ending.is_finished());
        (meanwhile, ending.join().unwrap())
    });
    drop(clients);
    stops(&host, ended..ended + started + meanwhile.len());
    let (left, until) = back(memory_before, taken * NOTHING / 100.0);
    let counts_after = settled(&host);
    host.finish();
    let (before, meanwhile) = (
        Figures::millis("start before", &before),
        Figures::millis("start meanwhile", &meanwhile),
    );
    let times = meanwhile.p50() / before.p50();
    let late = meanwhile.at(99) / before.at(99);
    let mut row = Row::new(&format!("{ended} containers ended at once, with addresses"))
        .with(before)
        .with(meanwhile)
        .with(Figures::new(
            "p99 meanwhile against before",
            "x",
            vec![late],
        ))
        .with(Figures::millis("until all have ended", &[took]))
        .with(Figures::new("memory they took", "kB", vec![taken]))
        .with(Figures::new("memory left", "kB", vec![left]))
        .with(Figures::new("until no more was left", "s", vec![until]))
        .with(Figures::new(
            "memory kept since the first time",
            "kB",
            vec![kept],
        ))
        .at_most("start meanwhile, p50 x", times, 2.0)
        .at_most(
            "memory left, % of what they took",
            left / taken * 100.0,
            NOTHING,
        );
    let of_ours = counts_before.len() - OF_THE_KERNEL;
    for (n, ((what, before), (_, after))) in counts_before.into_iter().zip(counts_after).enumerate()
    {
        let more = after as f64 - before as f64;
        let most = if n < of_ours { 0.0 } else { AT_HAND };
        row = row.at_most(&format!("{what} more than before"), more, most);
    }
    vec![row]
}
