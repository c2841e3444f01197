//! Who and what makes this host slow: a pure function of a sample.

use std::collections::BTreeSet;

use cgroup::CpuSet;

use super::sample::{Sample, SiteSample};
pub use super::verdict::{Kind, Verdict};
use super::words::{bytes, percent, share};

/// From here on there is no CPU left to speak of, in percent of all.
const CPU_FULL: f64 = 85.0;
/// A site that keeps most of one CPU busy is worth a word, in percent of one CPU.
const BUSY: f64 = 80.0;
/// Somebody waited for storage for this much of the time, in percent.
const IO_STALL: f64 = 40.0;
/// The same by the CPUs' own account, where the kernel has no pressure information.
const IO_WAIT: f64 = 25.0;
/// Somebody waited for memory for this much of the time, in percent.
const MEMORY_STALL: f64 = 10.0;
/// Pages a second in and out: with less, something is only being put away.
const SWAPPING: f64 = 100.0;
/// Less than this a second moves nobody's disk.
const QUIET: f64 = 64.0 * 1024.0;
/// Whoever has this share of what is used is named.
const CULPRIT: f64 = 0.2;
/// The same for CPU time: it is divided fairly, so that several culprits have a small share each.
const CPU_CULPRIT: f64 = 0.12;
/// Held back for this much of the window, in percent of one CPU.
const THROTTLED: f64 = 10.0;
/// Moves more than this a second, whoever waits for it: worth a word.
const MUCH: f64 = 8.0 * 1024.0 * 1024.0;
/// Processes a second that could not be started.
const REFUSED: f64 = 10.0;
/// How many sites one verdict names.
const NAMED: usize = 5;

/// All that is the matter, the worst first; never empty.
pub fn judge(sample: &Sample) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    swapping(sample, &mut verdicts);
    io(sample, &mut verdicts);
    cpu(sample, &mut verdicts);
    blocked(sample, &mut verdicts);
    overreach(sample, &mut verdicts);
    writing(sample, &mut verdicts);
    throttled(sample, &mut verdicts);
    if !verdicts.iter().any(|verdict| verdict.kind.is_slow()) {
        verdicts.push(idle(sample));
    }
    verdicts.sort_by_key(|verdict| verdict.kind);
    verdicts
}

fn about(kind: Kind, site: &SiteSample, text: String) -> Verdict {
    Verdict {
        kind,
        vhost: Some(site.vhost.clone()),
        owner: Some(site.owner.clone()),
        text: format!("{} {text}", site.vhost),
    }
}

fn nobody(kind: Kind, text: String) -> Verdict {
    Verdict {
        kind,
        vhost: None,
        owner: None,
        text,
    }
}

/// Those that use most of something, the greatest first: whoever has a share of `total` worth naming.
fn greatest(
    sample: &Sample,
    total: f64,
    least: f64,
    of: impl Fn(&SiteSample) -> f64,
) -> Vec<&SiteSample> {
    at_least(sample, (total * CULPRIT).max(least), of)
}

fn at_least(sample: &Sample, wanted: f64, of: impl Fn(&SiteSample) -> f64) -> Vec<&SiteSample> {
    let mut sites: Vec<&SiteSample> = sample.sites.iter().filter(|s| of(s) >= wanted).collect();
    sites.sort_by(|a, b| of(b).total_cmp(&of(a)).then_with(|| a.vhost.cmp(&b.vhost)));
    sites.truncate(NAMED);
    sites
}

fn window(sample: &Sample) -> String {
    match sample.seconds {
        s if (0.95..1.05).contains(&s) => "the last second".to_owned(),
        s => format!("the last {s:.1} s"),
    }
}

fn busy(sample: &Sample) -> f64 {
    let sum: f64 = sample.cpus.iter().map(super::sample::Cpu::busy).sum();
    share(sum, sample.cpus.len() as f64)
}

/// Where the CPUs are divided between sites each part is a host of its own: one can be full while the other is free.
fn cpu(sample: &Sample, verdicts: &mut Vec<Verdict>) {
    let parts: BTreeSet<&String> = sample.sites.iter().flat_map(|s| &s.cpus).collect();
    for list in &parts {
        let set = CpuSet::parse(list).unwrap_or_default();
        let mut part = sample.clone();
        part.cpus = (sample.cpus.iter().enumerate())
            .filter_map(|(number, cpu)| set.contains(number).then_some(*cpu))
            .collect();
        part.sites.retain(|site| site.cpus.as_ref() == Some(list));
        let all = match set.len() {
            1 => format!("CPU {list}"),
            _ => format!("the CPUs {list}"),
        };
        cpu_of(&part, &all, verdicts);
    }
    if parts.is_empty() {
        let all = match sample.cpus.len() {
            1 => "the only CPU".to_owned(),
            count => format!("the {count} CPUs"),
        };
        cpu_of(sample, &all, verdicts);
    }
}

fn cpu_of(sample: &Sample, all: &str, verdicts: &mut Vec<Verdict>) {
    let (count, busy) = (sample.cpus.len(), busy(sample));
    if count == 0 {
        return;
    }
    let limit = |site: &SiteSample| site.cpu_limit.map_or("none".to_owned(), percent);
    if busy < CPU_FULL {
        for site in greatest(sample, 0.0, BUSY, |site| site.cpu) {
            let text = format!(
                "used {} of one CPU in {} (limit: {}); of {all} {} is free",
                percent(site.cpu),
                window(sample),
                limit(site),
                percent(100.0 - busy)
            );
            verdicts.push(about(Kind::Busy, site, text));
        }
        return;
    }
    let whole = busy * count as f64;
    let culprits = at_least(sample, (whole * CPU_CULPRIT).max(5.0), |site| site.cpu);
    for site in &culprits {
        let text = format!(
            "used {} of {all} in {} (limit: {})",
            percent(site.cpu / count as f64),
            window(sample),
            limit(site)
        );
        verdicts.push(about(Kind::CpuBound, site, text));
    }
    let sites: f64 = sample.sites.iter().map(|site| site.cpu).sum();
    let others = (whole - sites).max(0.0);
    let stolen: f64 = sample.cpus.iter().map(|cpu| cpu.steal).sum();
    if stolen > whole * CULPRIT {
        let text = format!(
            "the hypervisor took {} of {all} in {}",
            percent(stolen / count as f64),
            window(sample)
        );
        verdicts.push(nobody(Kind::CpuBound, text));
    } else if culprits.is_empty() || others > whole / 2.0 {
        let text = match others > whole / 2.0 {
            true => format!(
                "what is no site used {} of {all} in {}",
                percent(others / count as f64),
                window(sample)
            ),
            false => format!(
                "{} sites together used {} of {all} in {}, none of them much",
                sample.sites.len(),
                percent(sites / count as f64),
                window(sample)
            ),
        };
        verdicts.push(nobody(Kind::CpuBound, text));
    }
}

fn io(sample: &Sample, verdicts: &mut Vec<Verdict>) {
    let wait: f64 = sample.cpus.iter().map(|cpu| cpu.iowait).sum();
    let wait = share(wait, sample.cpus.len() as f64);
    let (bound, evidence) = match sample.stalled {
        Some(stalled) => (
            stalled.io >= IO_STALL,
            format!(
                "processes waited for storage {} of the time",
                percent(stalled.io)
            ),
        ),
        None => (
            wait >= IO_WAIT,
            format!("the CPUs waited for storage {} of the time", percent(wait)),
        ),
    };
    // What waits for swap waits for storage too, but that is not whom to blame.
    if !bound || is_swapping(sample) {
        return;
    }
    let total: f64 = sample.sites.iter().map(SiteSample::moved).sum();
    let culprits = greatest(sample, total, QUIET, SiteSample::moved);
    for site in &culprits {
        let text = format!("{}; {evidence}", moved(sample, site));
        verdicts.push(about(Kind::IoBound, site, text));
    }
    // Where nothing moves and a site's process waits, that is a verdict of its own.
    if culprits.is_empty() && sample.sites.iter().all(|site| site.blocked.is_empty()) {
        let text = format!("{evidence}, and no site reads or writes much");
        verdicts.push(nobody(Kind::IoBound, text));
    }
}

fn is_swapping(sample: &Sample) -> bool {
    let stalled = sample.stalled.map_or(0.0, |stalled| stalled.memory);
    let both_ways = sample.swapped_in >= SWAPPING && sample.swapped_out >= SWAPPING;
    both_ways || stalled >= MEMORY_STALL
}

fn swapping(sample: &Sample, verdicts: &mut Vec<Verdict>) {
    if !is_swapping(sample) {
        return;
    }
    let mut evidence = format!(
        "{} of {} memory available, {} pages/s swapped in, {} out",
        bytes(sample.memory.available_bytes as f64),
        bytes(sample.memory.total_bytes as f64),
        sample.swapped_in.round(),
        sample.swapped_out.round(),
    );
    if let Some(stalled) = sample.stalled {
        evidence += &format!(
            ", processes waited for memory {} of the time",
            percent(stalled.memory)
        );
    }
    let faults: f64 = sample.sites.iter().map(|site| site.major_faults).sum();
    let culprits = greatest(sample, faults, 10.0, |site| site.major_faults);
    for site in &culprits {
        let text = format!(
            "had to wait for {} pages/s and holds {}; {evidence}",
            site.major_faults.round(),
            bytes(site.memory_bytes as f64)
        );
        verdicts.push(about(Kind::Swapping, site, text));
    }
    if culprits.is_empty() {
        verdicts.push(nobody(Kind::Swapping, evidence));
    }
}

fn blocked(sample: &Sample, verdicts: &mut Vec<Verdict>) {
    // A site that moves data waits for storage all the time, and gets what it waits for.
    let stuck = |site: &&SiteSample| !site.blocked.is_empty() && site.moved() < QUIET;
    for site in sample.sites.iter().filter(stuck) {
        let first = &site.blocked[0];
        let place = first.waits_in.as_deref();
        let place = place.map_or(String::new(), |place| format!(" in {place}"));
        let text = format!(
            "has {} of {} processes in uninterruptible sleep all through {}: {} ({}){place}",
            site.blocked.len(),
            site.processes,
            window(sample),
            first.name,
            first.pid,
        );
        verdicts.push(about(Kind::Blocked, site, text));
    }
}

/// Who runs against limits that keep the host from being slow.
fn overreach(sample: &Sample, verdicts: &mut Vec<Verdict>) {
    for site in greatest(sample, 0.0, REFUSED, |site| site.forks_refused) {
        let most = site
            .process_limit
            .map_or("as many as it may".to_owned(), |n| n.to_string());
        let text = format!(
            "has {} processes, may have {most}, and was refused {:.0} more a second in {}",
            site.processes,
            site.forks_refused,
            window(sample)
        );
        verdicts.push(about(Kind::Forking, site, text));
    }
    for site in greatest(sample, 0.0, 1.0, |site| site.oom_kills as f64) {
        let most = site
            .memory_limit
            .map_or("all that there is".to_owned(), |n| bytes(n as f64));
        let text = format!(
            "wants more memory than it may have ({most}): the kernel ended {} of its processes in {}",
            site.oom_kills,
            window(sample)
        );
        verdicts.push(about(Kind::OutOfMemory, site, text));
    }
}

fn moved(sample: &Sample, site: &SiteSample) -> String {
    format!(
        "read {}/s and wrote {}/s in {}",
        bytes(site.read),
        bytes(site.written),
        window(sample)
    )
}

/// Who moves much data, though nobody waits for storage.
fn writing(sample: &Sample, verdicts: &mut Vec<Verdict>) {
    let told = |site: &SiteSample, verdicts: &[Verdict]| {
        let about = |v: &Verdict| v.kind == Kind::IoBound && v.vhost.as_ref() == Some(&site.vhost);
        verdicts.iter().any(about)
    };
    let total: f64 = sample.sites.iter().map(SiteSample::moved).sum();
    for site in greatest(sample, total, MUCH, SiteSample::moved) {
        if told(site, verdicts) {
            continue;
        }
        verdicts.push(about(Kind::Writing, site, moved(sample, site)));
    }
}

fn throttled(sample: &Sample, verdicts: &mut Vec<Verdict>) {
    let most = greatest(sample, 0.0, THROTTLED, |site| site.throttled);
    for site in most {
        let Some(limit) = site.cpu_limit else {
            continue;
        };
        let text = format!(
            "was held back by its CPU limit of {} for {:.1} s (over all CPUs) in {}",
            percent(limit),
            site.throttled / 100.0 * sample.seconds,
            window(sample)
        );
        verdicts.push(about(Kind::Throttled, site, text));
    }
}

fn idle(sample: &Sample) -> Verdict {
    let text = format!(
        "{} of {} CPUs and {} of {} memory are free",
        percent((100.0 - busy(sample)).clamp(0.0, 100.0)),
        sample.cpus.len(),
        bytes(sample.memory.available_bytes as f64),
        bytes(sample.memory.total_bytes as f64),
    );
    nobody(Kind::Idle, text)
}
