//! The host at one moment: memory, pressure, load.

use procfs::{Current, CurrentSI};
use serde::{Deserialize, Serialize};

/// What the whole host has and how hard it is to get.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// CPUs that are on line.
    pub cpus: usize,
    /// Runnable and blocked processes over 1, 5 and 15 minutes.
    pub load: [f32; 3],
    /// Memory.
    pub memory: Memory,
    /// None where the kernel keeps no account of it (CONFIG_PSI, psi=1).
    pub pressure: Option<Pressures>,
}

/// Memory of the host. What the page cache holds and can give back is available, not used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// All of it.
    pub total_bytes: u64,
    /// What programs can still have without swapping.
    pub available_bytes: u64,
    /// Swap space.
    pub swap_total_bytes: u64,
    /// Of it, what is in use.
    pub swap_used_bytes: u64,
}

impl Memory {
    /// What is not available.
    pub fn used_bytes(&self) -> u64 {
        self.total_bytes.saturating_sub(self.available_bytes)
    }

    /// How much is available, in percent; 100 where nothing is known.
    pub fn available_percent(&self) -> f64 {
        match self.total_bytes {
            0 => 100.0,
            total => self.available_bytes as f64 * 100.0 / total as f64,
        }
    }
}

/// Pressure stall information (/proc/pressure).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressures {
    /// Processes waited for a CPU.
    pub cpu: Pressure,
    /// Processes waited for memory.
    pub memory: Pressure,
    /// Processes waited for storage.
    pub io: Pressure,
}

/// Pressure on one resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    /// At least one process waited.
    pub some: Stall,
    /// All processes that had something to do waited.
    pub full: Stall,
}

/// Shares of time, in percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stall {
    /// Over 10 seconds.
    pub avg10: f32,
    /// Over a minute.
    pub avg60: f32,
    /// Over five minutes.
    pub avg300: f32,
    /// Since the host's start, in µs.
    pub total_us: u64,
}

impl From<procfs::PressureRecord> for Stall {
    fn from(record: procfs::PressureRecord) -> Self {
        Self {
            avg10: record.avg10,
            avg60: record.avg60,
            avg300: record.avg300,
            total_us: record.total,
        }
    }
}

impl Host {
    /// The host now; what cannot be read is left at nothing.
    pub fn now() -> Self {
        Self {
            cpus: kernel_stats().map_or(1, |stats| stats.cpu_time.len()),
            load: procfs::LoadAverage::current()
                .map(|load| [load.one, load.five, load.fifteen])
                .unwrap_or_default(),
            memory: Memory::now(),
            pressure: Pressures::now(),
        }
    }
}

impl Memory {
    /// Memory now.
    pub fn now() -> Self {
        let Ok(info) = procfs::Meminfo::current() else {
            return Self::default();
        };
        Self {
            total_bytes: info.mem_total,
            // Kernels before 3.14 do not tell it.
            available_bytes: info.mem_available.unwrap_or(info.mem_free + info.cached),
            swap_total_bytes: info.swap_total,
            swap_used_bytes: info.swap_total.saturating_sub(info.swap_free),
        }
    }
}

impl Pressures {
    /// Pressure now.
    pub fn now() -> Option<Self> {
        let cpu = procfs::CpuPressure::current().ok()?;
        let memory = procfs::MemoryPressure::current().ok()?;
        let io = procfs::IoPressure::current().ok()?;
        Some(Self {
            cpu: Pressure {
                some: cpu.some.into(),
                full: Stall::default(),
            },
            memory: Pressure {
                some: memory.some.into(),
                full: memory.full.into(),
            },
            io: Pressure {
                some: io.some.into(),
                full: io.full.into(),
            },
        })
    }
}

/// Times of the CPUs, and how many processes run or wait, since the host's start.
pub(super) fn kernel_stats() -> Option<procfs::KernelStats> {
    procfs::KernelStats::current().ok()
}
