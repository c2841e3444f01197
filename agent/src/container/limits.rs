//! From a definition's limits to those of a control group, and back.

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result, bail};
use cgroup::{CpuLimit, DEFAULT_PERIOD_USEC, IoLimit, Setting};

use crate::config::Limits;
use crate::config::definition::LimitKey;

/// What a control group has to be told. `documents` tells the disk that I/O limits are for; needed only if there
/// are such limits. Keys that are not set are lifted when `live`, so that a limit taken away is gone, and left
/// alone in a new group, where nothing is set anyway.
pub fn translate(
    limits: &Limits,
    documents: Option<BorrowedFd<'_>>,
    live: bool,
) -> Result<cgroup::Limits> {
    let setting = |value: Option<Option<u64>>| match value {
        None if live => Setting::Max,
        None => Setting::Keep,
        Some(None) if live => Setting::Max,
        Some(None) => Setting::Keep,
        Some(Some(value)) => Setting::To(value),
    };
    let quota = limits.cpu().map(|cpu| cpu.quota_us(DEFAULT_PERIOD_USEC));
    let burst = limits
        .cpu_burst()
        .and_then(|cpu| cpu.quota_us(DEFAULT_PERIOD_USEC))
        .unwrap_or(0);
    let cpu = setting(quota).map(|quota_usec| CpuLimit {
        quota_usec,
        period_usec: DEFAULT_PERIOD_USEC,
        burst_usec: burst,
    });
    Ok(cgroup::Limits {
        cpu,
        cpu_weight: setting(limits.cpu_weight().map(|w| Some(w.get()))),
        // What a class makes of it is decided among the owner's sites.
        cpu_idle: Setting::Keep,
        // Nor that.
        cpus: Setting::Keep,
        memory_max: setting(limits.memory().map(|b| b.finite())),
        memory_high: kept(limits.memory_high().map(|b| b.finite())),
        memory_min: kept(limits.memory_min().map(|b| b.finite())),
        swap_max: kept(limits.swap().map(|b| b.finite())),
        pids_max: setting(limits.pids().map(|c| c.finite())),
        io: io(limits, documents, live)?,
        io_weight: kept(limits.io_weight().map(|w| Some(w.get()))),
    })
}

/// For limits that not every host has: asked for only if somebody set them.
fn kept(value: Option<Option<u64>>) -> Setting<u64> {
    match value {
        None => Setting::Keep,
        Some(None) => Setting::Max,
        Some(Some(value)) => Setting::To(value),
    }
}

fn io(limits: &Limits, documents: Option<BorrowedFd<'_>>, live: bool) -> Result<Vec<IoLimit>> {
    let rates = [
        limits.io_read().map(|r| r.finite()),
        limits.io_write().map(|r| r.finite()),
        limits.io_read_iops().map(|c| c.finite()),
        limits.io_write_iops().map(|c| c.finite()),
    ];
    let wanted = rates.iter().any(|rate| matches!(rate, Some(Some(_))));
    if !wanted && !live {
        return Ok(Vec::new());
    }
    let Some(documents) = documents else {
        if wanted {
            bail!(
                "cannot limit I/O: there are no documents whose disk it would be for; set `documents` or leave io out"
            );
        }
        return Ok(Vec::new());
    };
    let device = match cgroup::block_device_of(documents) {
        Ok(device) => device,
        // Lifting what cannot have been set.
        Err(_) if !wanted => return Ok(Vec::new()),
        Err(error) => return Err(error).context("cannot limit I/O"),
    };
    let rate = |value: Option<Option<u64>>| value.flatten().map_or(Setting::Max, Setting::To);
    let [read, write, reads, writes] = rates.map(rate);
    Ok(vec![IoLimit {
        device,
        read_bps: read,
        write_bps: write,
        read_iops: reads,
        write_iops: writes,
    }])
}

/// What is in force, read back, as limits of a definition; what is unlimited is not there.
pub fn in_force(group: &cgroup::Limits) -> Limits {
    let mut limits = Limits::default();
    let mut put = |key, setting: Setting<u64>| limits.set(key, setting.value());
    // Limits keeps a hundredth of a percent of one CPU.
    put(
        LimitKey::Cpu,
        group
            .cpu
            .map(|cpu| cpu.quota_usec * 10_000 / cpu.period_usec.max(1)),
    );
    if let Setting::To(cpu) = group.cpu
        && cpu.burst_usec > 0
    {
        put(
            LimitKey::CpuBurst,
            Setting::To(cpu.burst_usec * 10_000 / cpu.period_usec.max(1)),
        );
    }
    // Every group has weights; those that nobody has set are no limits.
    let weight = |setting: Setting<u64>| {
        if setting == Setting::To(100) {
            Setting::Max
        } else {
            setting
        }
    };
    // An idle group has none.
    if group.cpu_idle != Setting::To(true) {
        put(LimitKey::CpuWeight, weight(group.cpu_weight));
    }
    put(LimitKey::Memory, group.memory_max);
    put(LimitKey::MemoryHigh, group.memory_high);
    put(LimitKey::MemoryMin, group.memory_min);
    put(LimitKey::Swap, group.swap_max);
    put(LimitKey::Pids, group.pids_max);
    put(LimitKey::IoWeight, weight(group.io_weight));
    for io in &group.io {
        put(LimitKey::IoRead, io.read_bps);
        put(LimitKey::IoWrite, io.write_bps);
        put(LimitKey::IoReadIops, io.read_iops);
        put(LimitKey::IoWriteIops, io.write_iops);
    }
    limits
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::definition::LimitPatch;

    fn limits(words: &[&str]) -> Limits {
        Limits::default().patched(&LimitPatch::parse(words).unwrap())
    }

    #[test]
    fn there_and_back() {
        let asked = limits(&["cpu=20%", "memory=64M", "pids=32", "cpu_weight=50"]);
        let group = translate(&asked, None, false).unwrap();
        assert_eq!(group.cpu, Setting::To(CpuLimit::percent(20.0)));
        assert_eq!(group.memory_max, Setting::To(64 << 20));
        assert_eq!(in_force(&group), asked);
    }

    #[test]
    fn what_is_taken_away_is_lifted_in_a_live_group_only() {
        let none = limits(&[]);
        assert_eq!(
            translate(&none, None, false).unwrap(),
            cgroup::Limits::default()
        );
        let live = translate(&none, None, true).unwrap();
        assert_eq!(
            (live.memory_max, live.pids_max),
            (Setting::Max, Setting::Max)
        );
        assert_eq!(live.memory_high, Setting::Keep);
    }

    #[test]
    fn nothing_is_dropped_silently() {
        assert!(translate(&limits(&["io.write=2MB/s"]), None, false).is_err());
    }
}
