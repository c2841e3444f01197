//! What a container costs: init's private memory, and the time from the request to the command's execve.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use shim::protocol::Report;

fn private_kb(pid: i32) -> u64 {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    smaps
        .lines()
        .filter(|l| l.starts_with("Private_Clean") || l.starts_with("Private_Dirty"))
        .map(|l| {
            l.split_ascii_whitespace()
                .nth(1)
                .unwrap()
                .parse::<u64>()
                .unwrap()
        })
        .sum()
}

#[test]
fn an_idle_init_has_little_memory_of_its_own() {
    let spawner = Spawner::new();
    let containers: Vec<_> = (0..20)
        .map(|_| {
            spawner.wait_for_ahead();
            Site::new(&["sleep", "1000"]).run(&spawner)
        })
        .collect();
    let mut sizes: Vec<u64> = containers.iter().map(|c| private_kb(c.pid)).collect();
    sizes.sort_unstable();
    println!("private memory of {} inits, kB: {sizes:?}", sizes.len());
    assert!(sizes.last().is_some_and(|s| *s <= 64), "{sizes:?}");
}

#[test]
fn a_start_is_quick() {
    start_many("known sites", |_, _| {});
    start_many("new sites", |n, site| {
        site.start.program.ids.base = 0x2000_0000 + n * 65_536;
        // Not the directory's owner: nothing is logged.
    });
}

/// Starts 500 containers (fewer on a slow machine) in turn, each after `change`, and prints the times.
fn start_many(what: &str, change: fn(u32, &mut Site)) {
    let spawner = Spawner::new();
    let mut times: Vec<Duration> = Vec::new();
    let mut cloned: Vec<Duration> = Vec::new();
    let count = 500 / time_scale();
    for n in 0..count {
        let mut site = Site::new(&["true"]);
        change(n, &mut site);
        spawner.wait_for_ahead();
        let began = Instant::now();
        let container = site.try_start(&spawner).unwrap();
        cloned.push(began.elapsed());
        let (first, _) = report(&container.status).unwrap();
        assert_eq!(first, Report::Command);
        // End of file: execve.
        assert_eq!(report(&container.status), None);
        times.push(began.elapsed());
        container.wait();
    }
    times.sort_unstable();
    cloned.sort_unstable();
    println!(
        "{what}: until cloned p50 {:?}; until execve best {:?} p50 {:?} p99 {:?}",
        cloned[cloned.len() / 2],
        times[0],
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
    // The best of many, since the machine may be busy with other things.
    let limit = Duration::from_millis(3) * time_scale();
    assert!(times[0] < limit, "best {:?}", times[0]);
}
