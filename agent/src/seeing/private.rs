//! How much memory live sites have for themselves: `smaps_rollup` of their processes. Blocks, and walks page tables: only
//! when somebody asks, or now and then for the accounts, and for a bounded number of processes.

use std::sync::Arc;

use procfs::process::Process;

use super::capacity::Measured;
use super::host::{Host, Memory};
use crate::division::Division;
use crate::site::Site;

/// Sites whose memory is measured, spread over all.
const SITES: usize = 100;
/// Processes of one of them; a site with more is measured as if it had only these, and these are enough to be large.
const PROCESSES: usize = 64;

/// Measures these sites.
pub fn measure(live: &[Arc<Site>], division: Option<Division>) -> Measured {
    let mut measured = Measured {
        // More are best effort, whatever those that live are.
        cpus: division.map_or_else(|| Host::now().cpus, |division| division.others.len()),
        memory: Memory::now(),
        ..Measured::default()
    };
    let step = live.len().div_ceil(SITES).max(1);
    for (number, site) in live.iter().enumerate() {
        let Some(container) = site.container() else {
            continue;
        };
        measured.live += 1;
        if let Ok(usage) = container.group.usage() {
            measured.cpu_seconds += usage.cpu_usec.unwrap_or(0) as f64 / 1e6;
            measured.lived_seconds += container.uptime_s();
        }
        if !number.is_multiple_of(step) {
            continue;
        }
        if let Some(sum) = of_group(&container.group, PROCESSES).0 {
            measured.measured += 1;
            measured.private_bytes += sum;
        }
    }
    measured
}

/// What the first `most` processes of a group have for themselves, None if none could be measured; and how many were
/// looked at.
pub(crate) fn of_group(group: &cgroup::Group, most: usize) -> (Option<u64>, usize) {
    let pids = group.pids().unwrap_or_default();
    let looked = pids.len().min(most);
    let private = pids.into_iter().take(most).filter_map(private);
    (private.reduce(u64::saturating_add), looked)
}

/// What would be free without this process; None if it has ended or nobody may look.
fn private(pid: i32) -> Option<u64> {
    let rollup = Process::new(pid).ok()?.smaps_rollup().ok()?;
    let maps = rollup.memory_map_rollup.0;
    let map = &maps.first()?.extension.map;
    let bytes = |key: &str| map.get(key).copied().unwrap_or(0);
    // Pss shares what several have, such as forked workers, among them; what is on files can be dropped.
    Some(match map.get("Pss_Anon") {
        Some(anonymous) => anonymous + bytes("Pss_Shmem") + bytes("SwapPss"),
        None => bytes("Private_Dirty") + bytes("Private_Clean") + bytes("SwapPss"),
    })
}
