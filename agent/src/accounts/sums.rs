//! What is counted, and how much of it. Pure.

use serde::{Deserialize, Serialize};

use super::more::More;

/// Everything that only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// CPU time, µs.
    Cpu,
    /// Time for which it was held back at its CPU limit, µs.
    Throttled,
    /// Bytes read from disks.
    IoRead,
    /// Bytes written to disks.
    IoWrite,
    /// Read operations.
    IoReads,
    /// Write operations.
    IoWrites,
    /// Bytes that the container received over its network.
    NetRx,
    /// Bytes that it sent.
    NetTx,
    /// Processes that the kernel killed for want of memory.
    OomKills,
    /// For how long it has been there and listening, ms.
    Awake,
    /// Starts that were begun.
    Starts,
    /// Of these, how many came to nothing.
    FailedStarts,
    /// Requests for it.
    Dispatches,
}

/// How many fields there are.
pub const FIELDS: usize = 13;

impl Field {
    /// All, in the order in which they are stored.
    pub const ALL: [Self; FIELDS] = [
        Self::Cpu,
        Self::Throttled,
        Self::IoRead,
        Self::IoWrite,
        Self::IoReads,
        Self::IoWrites,
        Self::NetRx,
        Self::NetTx,
        Self::OomKills,
        Self::Awake,
        Self::Starts,
        Self::FailedStarts,
        Self::Dispatches,
    ];

    /// Its name in the API, and by what the stored number is divided there.
    pub fn shown(self) -> (&'static str, u32) {
        match self {
            Self::Cpu => ("cpu_seconds", 1_000_000),
            Self::Throttled => ("throttled_seconds", 1_000_000),
            Self::IoRead => ("io_read_bytes", 1),
            Self::IoWrite => ("io_write_bytes", 1),
            Self::IoReads => ("io_read_ops", 1),
            Self::IoWrites => ("io_write_ops", 1),
            Self::NetRx => ("net_rx_bytes", 1),
            Self::NetTx => ("net_tx_bytes", 1),
            Self::OomKills => ("oom_kills", 1),
            Self::Awake => ("awake_seconds", 1000),
            Self::Starts => ("starts", 1),
            Self::FailedStarts => ("failed_starts", 1),
            Self::Dispatches => ("dispatches", 1),
        }
    }
}

/// An amount of each field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums([u64; FIELDS]);

impl Sums {
    /// One of them.
    pub fn get(&self, field: Field) -> u64 {
        self.0[field as usize]
    }

    /// Sets one.
    pub fn set(&mut self, field: Field, value: u64) {
        self.0[field as usize] = value;
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = mine.saturating_add(theirs);
        }
    }
}

/// Absolute counters of one container; `None` is what could not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading([Option<u64>; FIELDS]);

impl Reading {
    /// One of them.
    pub fn get(&self, field: Field) -> Option<u64> {
        self.0[field as usize]
    }

    /// Sets one.
    pub fn set(&mut self, field: Field, value: Option<u64>) {
        self.0[field as usize] = value;
    }

    /// What has come since `base`, which then stands where this stands. A counter that went back or is not known adds
    /// nothing and moves nothing, so that nothing is counted twice when it is back.
    pub fn advance(&self, base: &mut Sums) -> Sums {
        let mut new = Sums::default();
        for field in Field::ALL {
            let Some(now) = self.get(field) else { continue };
            new.set(field, now.saturating_sub(base.get(field)));
            base.set(field, now.max(base.get(field)));
        }
        new
    }
}

/// Gauges of one container at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gauges {
    /// Bytes of memory.
    pub memory: u64,
    /// The most there has been in the container's life.
    pub memory_peak: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes of memory that its processes had for themselves when that was measured last; 0 if it was not.
    #[serde(skip)]
    pub private: u64,
}

/// What was used in a stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// How much.
    pub sums: Sums,
    /// The most bytes of memory that were seen or that the kernel says there have been.
    pub memory_peak: u64,
    /// The most processes and threads that were seen.
    pub pids: u64,
    /// What came later.
    #[serde(skip)]
    pub more: More,
}

impl Bucket {
    /// This stretch and another together.
    pub fn merge(&mut self, other: &Self) {
        self.sums.add(&other.sums);
        self.memory_peak = self.memory_peak.max(other.memory_peak);
        self.pids = self.pids.max(other.pids);
        self.more.merge(&other.more);
    }
}
