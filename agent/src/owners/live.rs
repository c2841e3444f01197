//! One awake site of an owner: what it asks for itself, and what its group was told.

use std::sync::Arc;

use cgroup::{CpuLimit, CpuSet, DEFAULT_PERIOD_USEC, Group, Limits, Setting};

use super::disks::Disk;
use super::lend::Meter;
use crate::promises::Promise;

/// A site with a container.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) group: Arc<Group>,
    /// Its own limits, by definition and operator.
    pub(super) own: Own,
    /// What its group was told, with everything counted in.
    pub(super) told: Own,
    /// What its group was told beside that; what is in it of the CPU may be older.
    pub(super) asked: Limits,
    /// Where its documents are.
    pub(super) disk: Disk,
    /// What it is lent beyond its part.
    pub(super) lent: u64,
    pub(super) meter: Meter,
    /// What it is promised, as its group was told.
    pub(super) promised: Promise,
}

/// CPU limits of a group; `Max` where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) cpu: Setting<CpuLimit>,
    pub(super) weight: Setting<u64>,
    /// Yields to its siblings at once.
    pub(super) idle: bool,
    /// The CPUs that it may use; `Keep` where these are not divided.
    pub(super) cpus: Setting<CpuSet>,
}

impl Own {
    pub(super) fn of(limits: &Limits) -> Self {
        fn or_max<T>(setting: Setting<T>) -> Setting<T> {
            if setting.is_keep() {
                Setting::Max
            } else {
                setting
            }
        }
        Self {
            cpu: or_max(limits.cpu),
            weight: or_max(limits.cpu_weight),
            idle: false,
            cpus: Setting::Keep,
        }
    }

    /// Hundredths of a percent of a core.
    pub(super) fn quota(&self) -> Option<u64> {
        self.cpu
            .value()
            .map(|cpu| cpu.quota_usec * 10_000 / cpu.period_usec.max(1))
    }
}

impl Live {
    /// The quota in force.
    pub(super) fn quota(&self) -> Option<u64> {
        self.told.quota()
    }

    /// The quota of its own limits.
    pub(super) fn own_quota(&self) -> Option<u64> {
        self.own.quota()
    }
}

/// A quota and a burst in hundredths of a percent of a core.
pub(super) fn limit(quota: u64, burst: u64) -> CpuLimit {
    let usec = |permyriad: u64| permyriad * DEFAULT_PERIOD_USEC / 10_000;
    CpuLimit {
        quota_usec: usec(quota),
        period_usec: DEFAULT_PERIOD_USEC,
        burst_usec: usec(burst.min(quota)),
    }
}
