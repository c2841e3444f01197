//! What the operations of a start and a stop cost on this host. Needs root; makes and removes `fccost-<pid>`.

use cgroup::{
    CpuLimit, Error, Group, Hierarchy, IoLimit, Limits, Setting, Tree, block_device_of_path,
};
use std::time::{Duration, Instant};

const ROUNDS: usize = 500;

fn main() -> Result<(), Error> {
    let tree = Tree::open(
        Hierarchy::detect()?,
        &format!("fccost-{}", std::process::id()),
    )?;
    let result = measure(&tree);
    let removed = tree.remove();
    result.and(removed)
}

fn measure(tree: &Tree) -> Result<(), Error> {
    println!("{:?}, {ROUNDS} rounds", tree.hierarchy().version());
    let mut limits = Limits {
        cpu: Setting::To(CpuLimit::percent(20.0)),
        memory_max: Setting::To(256 << 20),
        pids_max: Setting::To(128),
        ..Limits::default()
    };
    if let Ok(device) = block_device_of_path(".".as_ref()) {
        let bps = Setting::To(2_000_000);
        limits.io = vec![IoLimit {
            read_bps: bps,
            write_bps: bps,
            ..IoLimit::of(device)
        }];
    }
    // A sibling keeps the owner's level alive, as on a host with more than one site of an owner.
    let sibling = tree.group(&["acme", "sibling"])?;
    let mut times: Vec<(&str, Vec<Duration>)> = [
        "group",
        "apply",
        "join_files",
        "usage",
        "freeze+thaw",
        "remove",
        "group+apply",
    ]
    .map(|name| (name, Vec::with_capacity(ROUNDS)))
    .into();
    for round in 0..ROUNDS {
        let name = format!("site-{round}");
        let mut group: Option<Group> = None;
        for (what, samples) in &mut times {
            let start = Instant::now();
            match (*what, &group) {
                ("apply", Some(group)) => drop(group.apply(&limits)?),
                ("join_files", Some(group)) => drop(group.join_files()?),
                ("usage", Some(group)) => drop(group.usage()?),
                ("freeze+thaw", Some(group)) => {
                    group.freeze(Duration::from_secs(1))?;
                    group.thaw(Duration::from_secs(1))?;
                }
                ("remove", Some(group)) => group.remove(Duration::from_secs(1))?,
                ("group", _) => group = Some(tree.group(&["acme", &name])?),
                _ => {
                    let group = tree.group(&["acme", &name])?;
                    group.apply(&limits)?;
                    samples.push(start.elapsed());
                    group.remove(Duration::from_secs(1))?;
                    continue;
                }
            }
            samples.push(start.elapsed());
        }
    }
    for (what, samples) in &mut times {
        samples.sort_unstable();
        let at = |percent: usize| {
            samples
                .get((samples.len() - 1) * percent / 100)
                .copied()
                .unwrap_or_default()
        };
        println!("{what:12} p50 {:>9.1?} p99 {:>9.1?}", at(50), at(99));
    }
    sibling.remove(Duration::from_secs(1))
}
