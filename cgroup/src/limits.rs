//! What can be limited. Pure.

use std::fmt;

use crate::cpus::CpuSet;

/// The kernel's usual bandwidth period.
pub const DEFAULT_PERIOD_USEC: u64 = 100_000;

/// One limit: leave it, lift it, or set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Setting<T> {
    /// As it is. In what was read back: this host has no such limit, or it was not asked about.
    #[default]
    Keep,
    /// No limit; for weights the kernel's default, for guarantees none.
    Max,
    /// This value.
    To(T),
}

impl<T> Setting<T> {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// The value, if one is set.
    #[must_use]
    pub fn value(self) -> Option<T> {
        match self {
            Self::To(value) => Some(value),
            _ => None,
        }
    }

    /// Another value type.
    #[must_use]
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Setting<U> {
        match self {
            Self::Keep => Setting::Keep,
            Self::Max => Setting::Max,
            Self::To(value) => Setting::To(f(value)),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Setting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("unchanged"),
            Self::Max => f.write_str("max"),
            Self::To(value) => value.fmt(f),
        }
    }
}

/// CPU bandwidth: `quota` of CPU time in every `period`; unused time of earlier periods up to `burst` may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuLimit {
    /// µs of CPU time per period, over all CPUs.
    pub quota_usec: u64,
    /// The period in µs, 1,000 to 1,000,000.
    pub period_usec: u64,
    /// µs that may be saved up; at most the quota.
    pub burst_usec: u64,
}

impl CpuLimit {
    /// This many percent of one CPU, with the default period and no burst.
    #[must_use]
    pub fn percent(percent: f64) -> Self {
        let quota_usec = (percent * DEFAULT_PERIOD_USEC as f64 / 100.0)
            .round()
            .max(0.0) as u64;
        Self {
            quota_usec,
            period_usec: DEFAULT_PERIOD_USEC,
            burst_usec: 0,
        }
    }
}

impl fmt::Display for CpuLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.quota_usec, self.period_usec)?;
        if self.burst_usec > 0 {
            write!(f, " burst {}", self.burst_usec)?;
        }
        Ok(())
    }
}

/// A block device by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// Rates of one whole disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoLimit {
    /// The disk, see [`crate::block_device_of`].
    pub device: Device,
    /// Bytes read per second.
    pub read_bps: Setting<u64>,
    /// Bytes written per second.
    pub write_bps: Setting<u64>,
    /// Read operations per second.
    pub read_iops: Setting<u64>,
    /// Write operations per second.
    pub write_iops: Setting<u64>,
}

impl IoLimit {
    /// Leaves all four rates of this disk.
    #[must_use]
    pub fn of(device: Device) -> Self {
        let keep = Setting::Keep;
        Self {
            device,
            read_bps: keep,
            write_bps: keep,
            read_iops: keep,
            write_iops: keep,
        }
    }

    /// The rates with the names that cgroup v2 gives them.
    pub(crate) fn rates(&self) -> [(&'static str, Setting<u64>); 4] {
        [
            ("rbps", self.read_bps),
            ("wbps", self.write_bps),
            ("riops", self.read_iops),
            ("wiops", self.write_iops),
        ]
    }

    pub(crate) fn rate_mut(&mut self, name: &str) -> Option<&mut Setting<u64>> {
        match name {
            "rbps" => Some(&mut self.read_bps),
            "wbps" => Some(&mut self.write_bps),
            "riops" => Some(&mut self.read_iops),
            "wiops" => Some(&mut self.write_iops),
            _ => None,
        }
    }
}

/// Every limit of a group. The default changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// CPU bandwidth.
    pub cpu: Setting<CpuLimit>,
    /// Share of the CPU under contention, 1 to 10,000, default 100.
    pub cpu_weight: Setting<u64>,
    /// Runs only when no sibling wants to, and yields at once to one that wakes; the weight is then without effect, and
    /// lost. `Max` means as usual. Kernels before 5.15 do not have it, see [`crate::Group::has_cpu_idle`].
    pub cpu_idle: Setting<bool>,
    /// The CPUs that it may use; never [`Setting::Max`]. Only where the tree [has them](crate::Hierarchy::use_cpuset).
    pub cpus: Setting<CpuSet>,
    /// Bytes; above it the group is reclaimed from, then its processes are killed.
    pub memory_max: Setting<u64>,
    /// Bytes; above it the group is slowed down and reclaimed from. v2 only.
    pub memory_high: Setting<u64>,
    /// Bytes that are not reclaimed from under pressure. v2 only. `Max` means no guarantee.
    pub memory_min: Setting<u64>,
    /// Bytes of swap beside `memory_max`.
    pub swap_max: Setting<u64>,
    /// Processes and threads.
    pub pids_max: Setting<u64>,
    /// Rates per disk; disks not named are left as they are.
    pub io: Vec<IoLimit>,
    /// Share of the disk under contention, 1 to 10,000, default 100; effective with BFQ or io.cost.
    pub io_weight: Setting<u64>,
}

impl Limits {
    /// These, and `found` where they say nothing: what is in force after a change, as it was read back, from what was.
    /// Of the disks that are not among these all rates have been lifted: the kernel does not tell of them any more.
    #[must_use]
    pub fn over(mut self, found: &Self) -> Self {
        fn keep<T: Copy>(own: &mut Setting<T>, found: Setting<T>) {
            if own.is_keep() {
                *own = found;
            }
        }
        keep(&mut self.cpu, found.cpu);
        keep(&mut self.cpu_weight, found.cpu_weight);
        keep(&mut self.cpu_idle, found.cpu_idle);
        keep(&mut self.cpus, found.cpus);
        keep(&mut self.memory_max, found.memory_max);
        keep(&mut self.memory_high, found.memory_high);
        keep(&mut self.memory_min, found.memory_min);
        keep(&mut self.swap_max, found.swap_max);
        keep(&mut self.pids_max, found.pids_max);
        keep(&mut self.io_weight, found.io_weight);
        for disk in &found.io {
            if let Some(own) = self.io.iter_mut().find(|own| own.device == disk.device) {
                keep(&mut own.read_bps, disk.read_bps);
                keep(&mut own.write_bps, disk.write_bps);
                keep(&mut own.read_iops, disk.read_iops);
                keep(&mut own.write_iops, disk.write_iops);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_back_goes_before_what_was_found() {
        let disk = |minor| IoLimit {
            read_bps: Setting::To(1 << 20),
            ..IoLimit::of(Device { major: 8, minor })
        };
        let found = Limits {
            pids_max: Setting::To(10),
            memory_max: Setting::To(1 << 30),
            io: vec![disk(0), disk(16)],
            ..Limits::default()
        };
        let mut kept = disk(0);
        kept.read_bps = Setting::Keep;
        kept.write_bps = Setting::To(5);
        let got = Limits {
            pids_max: Setting::Max,
            io: vec![kept],
            ..Limits::default()
        };
        let now = got.over(&found);
        assert_eq!(
            (now.pids_max, now.memory_max),
            (Setting::Max, Setting::To(1 << 30))
        );
        // The other disk was asked to be lifted, as are all that were found.
        let mut both = disk(0);
        both.write_bps = Setting::To(5);
        assert_eq!(now.io, [both]);
    }
}
