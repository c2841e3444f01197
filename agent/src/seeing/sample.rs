//! What was measured over a short time: figures only, for `judge`.

use serde::{Deserialize, Serialize};

use super::host::{Memory, Pressures};

/// The host and its live sites over a window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Length of the window.
    pub seconds: f64,
    /// Each CPU.
    pub cpus: Vec<Cpu>,
    /// Runnable and blocked processes over 1, 5 and 15 minutes.
    pub load: [f32; 3],
    /// Processes that could run at the end of the window.
    pub runnable: u64,
    /// Processes that waited for storage at the end of the window.
    pub blocked: u64,
    /// Memory at the end of the window; the page cache is not counted as used.
    pub memory: Memory,
    /// Pressure at the end of the window; None where the kernel does not tell.
    pub pressure: Option<Pressures>,
    /// Shares of the window in which processes waited.
    pub stalled: Option<Stalled>,
    /// Pages swapped in, a second.
    pub swapped_in: f64,
    /// Pages swapped out, a second.
    pub swapped_out: f64,
    /// Sites that have a container.
    pub sites: Vec<SiteSample>,
    /// More processes than are looked at: those of the sites' processes that were looked at.
    pub partial: bool,
}

/// Shares of the window, in percent, in which some process waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stalled {
    /// For a CPU.
    pub cpu: f64,
    /// For memory.
    pub memory: f64,
    /// For storage.
    pub io: f64,
}

/// Where a CPU's time went, in percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    /// Programs.
    pub user: f64,
    /// The kernel.
    pub system: f64,
    /// Nothing to do, but for processes that wait for storage.
    pub iowait: f64,
    /// Taken by the hypervisor.
    pub steal: f64,
    /// Nothing to do.
    pub idle: f64,
}

impl Cpu {
    /// What is not free.
    pub fn busy(&self) -> f64 {
        self.user + self.system + self.steal
    }
}

/// One live site over the window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SiteSample {
    /// Its name.
    pub vhost: String,
    /// Its owner.
    pub owner: String,
    /// CPU time, in percent of one CPU.
    pub cpu: f64,
    /// Its limit, in percent of one CPU.
    pub cpu_limit: Option<f64>,
    /// The CPUs that it may use, where the host's are divided between sites.
    pub cpus: Option<String>,
    /// Share of the window in which it was held back at that limit, in percent of one CPU.
    pub throttled: f64,
    /// Bytes read from storage, a second.
    pub read: f64,
    /// Bytes written, a second: to storage, or to be written there later.
    pub written: f64,
    /// Memory of its processes that is no page cache.
    pub memory_bytes: u64,
    /// Pages that its processes had to wait for, a second.
    pub major_faults: f64,
    /// Its processes that waited without a pause, at both ends of the window.
    pub blocked: Vec<BlockedProcess>,
    /// Its processes.
    pub processes: u64,
    /// Of processes and threads, how many it may have.
    pub process_limit: Option<u64>,
    /// Processes that it could not start because of that, a second.
    pub forks_refused: f64,
    /// Its limit of memory in bytes.
    pub memory_limit: Option<u64>,
    /// Processes that the kernel ended because of that, in the whole window.
    pub oom_kills: u64,
}

/// A process in uninterruptible sleep.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockedProcess {
    /// On the host.
    pub pid: i32,
    /// What it calls itself.
    pub name: String,
    /// The kernel's function in which it waits, where that can be seen.
    pub waits_in: Option<String>,
}

impl SiteSample {
    /// Bytes both ways, a second.
    pub fn moved(&self) -> f64 {
        self.read + self.written
    }
}
