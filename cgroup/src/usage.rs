//! What a group has used.

/// Counters and gauges of a group; `None` where this host cannot tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in µs.
    pub cpu_usec: Option<u64>,
    /// Its part in user mode.
    pub user_usec: Option<u64>,
    /// Its part in the kernel.
    pub system_usec: Option<u64>,
    /// Bandwidth periods in which the group wanted to run.
    pub nr_periods: Option<u64>,
    /// Those in which it was held back.
    pub nr_throttled: Option<u64>,
    /// For how long, in µs, summed over CPUs.
    pub throttled_usec: Option<u64>,
    /// Bytes of memory now, cache included.
    pub memory_current: Option<u64>,
    /// The most there has been.
    pub memory_peak: Option<u64>,
    /// Processes that the kernel killed for lack of memory.
    pub oom_kills: Option<u64>,
    /// Bytes read from disks.
    pub io_read_bytes: Option<u64>,
    /// Bytes written to disks.
    pub io_write_bytes: Option<u64>,
    /// Read operations.
    pub io_read_ops: Option<u64>,
    /// Write operations.
    pub io_write_ops: Option<u64>,
    /// Processes and threads now.
    pub pids_current: Option<u64>,
    /// How often a fork failed at the limit.
    pub pids_max_events: Option<u64>,
}

/// How often and for how long a group was held up at its limits; `None` where this host cannot tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitHits {
    /// How often it was at a limit of its memory, so that something had to be taken back from it first.
    pub memory: Option<u64>,
    /// How often a fork failed.
    pub forks: Option<u64>,
}
