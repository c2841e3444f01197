//! Measuring the host and its live sites over a short time. Blocks; reads /proc and cgroups, twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use procfs::process::Process;
use procfs::{CpuTime, Current};

use super::host::{Memory, Pressures, kernel_stats};
use super::sample::{BlockedProcess, Cpu, Sample, SiteSample, Stalled};
use super::words::share;
use crate::config::units::{Bytes, Count};
use crate::container::Container;
use crate::site::Site;

/// Processes that are looked at, of all sites together: looking at one costs some 50 µs.
const PROCESSES: usize = 2048;
/// However many sites there are, of each at least these.
const PROCESSES_OF_ONE: usize = 4;

/// Everything that counts up, at one moment.
pub struct Counters {
    at: Instant,
    cpus: Vec<CpuTime>,
    runnable: u64,
    blocked: u64,
    pressure: Option<Pressures>,
    swapped: (i64, i64),
    sites: Vec<SiteCounters>,
    partial: bool,
}

struct SiteCounters {
    site: Arc<Site>,
    container: Arc<Container>,
    usage: cgroup::Usage,
    count: usize,
    processes: HashMap<i32, ProcessCounters>,
}

/// A process, by its counters.
#[derive(Debug, Clone, Default)]
struct ProcessCounters {
    started: u64,
    name: String,
    sleeps: bool,
    slept_in: Option<String>,
    scheduled: u64,
    major_faults: u64,
    read: u64,
    written: u64,
    memory_bytes: u64,
}

impl Counters {
    /// Reads all of them for the host and these sites.
    pub fn read(live: &[Arc<Site>]) -> Self {
        let each = (PROCESSES / live.len().max(1)).max(PROCESSES_OF_ONE);
        let at = Instant::now();
        let stats = kernel_stats();
        let mut partial = false;
        let sites = live.iter().filter_map(|site| {
            let container = site.container()?;
            let usage = container.group.usage().ok()?;
            let mut pids = container.group.pids().unwrap_or_default();
            let count = pids.len();
            partial |= count > each;
            pids.truncate(each);
            let known = pids.into_iter();
            let processes = known.filter_map(|pid| Some((pid, ProcessCounters::read(pid)?)));
            Some(SiteCounters {
                site: site.clone(),
                usage,
                count,
                processes: processes.collect(),
                container,
            })
        });
        let sites = sites.collect();
        Self {
            at,
            runnable: running(&stats),
            blocked: stats
                .as_ref()
                .and_then(|s| s.procs_blocked)
                .map_or(0, u64::from),
            cpus: stats.map(|s| s.cpu_time).unwrap_or_default(),
            pressure: Pressures::now(),
            swapped: swapped(),
            sites,
            partial,
        }
    }

    /// What happened between `before` and these.
    pub fn since(self, before: &Self) -> Sample {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let cpus = self.cpus.iter().zip(&before.cpus);
        let pages = |now: i64, then: i64| share((now - then).max(0) as f64, seconds);
        let stalled = self.pressure.zip(before.pressure).map(|(now, then)| {
            let part = |now: u64, then: u64| {
                (share(now.saturating_sub(then) as f64, seconds) / 1e4).min(100.0)
            };
            Stalled {
                cpu: part(now.cpu.some.total_us, then.cpu.some.total_us),
                memory: part(now.memory.some.total_us, then.memory.some.total_us),
                io: part(now.io.some.total_us, then.io.some.total_us),
            }
        });
        let sites = self.sites.iter().filter_map(|now| {
            // Another container of that name has counters of its own.
            let then = before
                .sites
                .iter()
                .find(|then| Arc::ptr_eq(&then.container, &now.container))?;
            Some(now.since(then, seconds))
        });
        Sample {
            seconds,
            cpus: cpus.map(|(now, then)| cpu(now, then)).collect(),
            load: procfs::LoadAverage::current()
                .map(|load| [load.one, load.five, load.fifteen])
                .unwrap_or_default(),
            runnable: self.runnable,
            blocked: self.blocked,
            memory: Memory::now(),
            pressure: self.pressure,
            stalled,
            swapped_in: pages(self.swapped.0, before.swapped.0),
            swapped_out: pages(self.swapped.1, before.swapped.1),
            sites: sites.collect(),
            partial: self.partial || before.partial,
        }
    }
}

fn running(stats: &Option<procfs::KernelStats>) -> u64 {
    let running = stats.as_ref().and_then(|stats| stats.procs_running);
    running.map_or(0, u64::from)
}

/// Pages that went in and out since the host's start.
fn swapped() -> (i64, i64) {
    let all = procfs::vmstat().unwrap_or_default();
    let count = |key: &str| all.get(key).copied().unwrap_or_default();
    (count("pswpin"), count("pswpout"))
}

fn cpu(now: &CpuTime, then: &CpuTime) -> Cpu {
    // iowait may go backwards.
    let part = |of: fn(&CpuTime) -> u64| of(now).saturating_sub(of(then)) as f64;
    let user = part(|t| t.user + t.nice);
    let system = part(|t| t.system + t.irq.unwrap_or(0) + t.softirq.unwrap_or(0));
    let iowait = part(|t| t.iowait.unwrap_or(0));
    let steal = part(|t| t.steal.unwrap_or(0));
    let idle = part(|t| t.idle);
    let whole = user + system + iowait + steal + idle;
    let percent = |ticks: f64| share(ticks * 100.0, whole);
    Cpu {
        user: percent(user),
        system: percent(system),
        iowait: percent(iowait),
        steal: percent(steal),
        idle: percent(idle),
    }
}

impl SiteCounters {
    fn since(&self, then: &Self, seconds: f64) -> SiteSample {
        let rate = |now: u64, then: u64| share(now.saturating_sub(then) as f64, seconds);
        let counted = |of: fn(&cgroup::Usage) -> Option<u64>| {
            rate(
                of(&self.usage).unwrap_or(0),
                of(&then.usage).unwrap_or_default(),
            )
        };
        let by_processes = |of: fn(&ProcessCounters) -> u64| {
            let sum = self.processes.iter().map(|(pid, now)| {
                let before = then.processes.get(pid);
                let before = before.filter(|before| before.started == now.started);
                // One that is new has done all it did meanwhile; but one that was not looked at has not.
                match before {
                    Some(before) => rate(of(now), of(before)),
                    None if then.count == then.processes.len() => rate(of(now), 0),
                    None => 0.0,
                }
            });
            sum.sum::<f64>()
        };
        let limits = self.site.limits();
        let limit = limits.cpu().and_then(|cpu| cpu.permyriad());
        let kills = |usage: &cgroup::Usage| usage.oom_kills.unwrap_or(0);
        SiteSample {
            vhost: self.site.name.to_string(),
            owner: self.site.owner().to_string(),
            cpu: counted(|u| u.cpu_usec) / 1e4,
            cpu_limit: limit.map(|permyriad| permyriad as f64 / 100.0),
            cpus: self.site.platform.promises.cpus_of(&self.site.name),
            throttled: counted(|u| u.throttled_usec) / 1e4,
            // Cgroups of v1 do not count what is written later by the kernel for them; processes do not count what
            // those did that have ended meanwhile.
            read: counted(|u| u.io_read_bytes).max(by_processes(|p| p.read)),
            written: counted(|u| u.io_write_bytes).max(by_processes(|p| p.written)),
            memory_bytes: self.processes.values().map(|p| p.memory_bytes).sum(),
            major_faults: by_processes(|p| p.major_faults),
            blocked: self.blocked(then),
            processes: self.count as u64,
            process_limit: limits.pids().and_then(Count::finite),
            forks_refused: counted(|u| u.pids_max_events),
            memory_limit: limits.memory().and_then(Bytes::finite),
            oom_kills: kills(&self.usage).saturating_sub(kills(&then.usage)),
        }
    }

    /// Processes that slept at both ends and have not run in between.
    fn blocked(&self, then: &Self) -> Vec<BlockedProcess> {
        let mut blocked: Vec<BlockedProcess> = self
            .processes
            .iter()
            .filter(|(pid, now)| {
                let before = then.processes.get(pid);
                before.is_some_and(|before| before.still_sleeps(now))
            })
            .map(|(pid, now)| BlockedProcess {
                pid: *pid,
                name: now.name.clone(),
                waits_in: now.slept_in.clone(),
            })
            .collect();
        blocked.sort_by_key(|process| process.pid);
        blocked
    }
}

impl ProcessCounters {
    /// None if it has ended.
    fn read(pid: i32) -> Option<Self> {
        let process = Process::new(pid).ok()?;
        let stat = process.stat().ok()?;
        let sleeps = stat.state == 'D';
        // Not for an init, which even root may not look into without the capability for it.
        let io = process.io().ok();
        let memory = process.statm().ok();
        let pages = memory.map_or(0, |m| m.resident.saturating_sub(m.shared));
        Some(Self {
            started: stat.starttime,
            name: stat.comm,
            sleeps,
            slept_in: sleeps
                .then(|| process.wchan().ok())
                .flatten()
                .filter(|place| place != "0" && !place.is_empty()),
            scheduled: stat.utime + stat.stime,
            major_faults: stat.majflt,
            read: io.as_ref().map_or(0, |io| io.read_bytes),
            written: io.as_ref().map_or(0, |io| {
                io.write_bytes.saturating_sub(io.cancelled_write_bytes)
            }),
            memory_bytes: pages * procfs::page_size(),
        })
    }

    fn still_sleeps(&self, now: &Self) -> bool {
        self.sleeps
            && now.sleeps
            && self.started == now.started
            && self.scheduled == now.scheduled
            && self.major_faults == now.major_faults
    }
}
