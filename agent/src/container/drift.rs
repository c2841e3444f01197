//! Limits that are not as they were told: somebody has written a control group's file by hand. Pure, but for file names.

use cgroup::{CpuLimit, Group, IoLimit, Setting};
use serde::Serialize;

use crate::config::definition::LimitKey;

/// One limit that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// Its name, as definitions write it; with `owner.` before it, it is the budget of the group above.
    pub key: String,
    /// The file (for network traffic: the queue) in which it was found.
    pub file: String,
    /// What was told.
    pub wanted: String,
    /// What was found.
    pub found: String,
}

/// What differs between what a group was told and what was read from it.
pub fn drifted(group: &Group, told: &cgroup::Limits, found: &cgroup::Limits) -> Vec<Drift> {
    let wanted = Group::expected(told, found);
    differences(&wanted, found)
        .into_iter()
        .map(|(key, file, wanted, found)| Drift {
            key: key.to_owned(),
            file: group.file_of(file),
            wanted,
            found,
        })
        .collect()
}

/// Key, file, what was told and what was found.
type Difference = (&'static str, &'static str, String, String);

fn differences(wanted: &cgroup::Limits, found: &cgroup::Limits) -> Vec<Difference> {
    use LimitKey::*;
    let mut all = Vec::new();
    if wanted.cpu != found.cpu {
        let pair = [wanted.cpu, found.cpu];
        let [mut old, mut new] = pair.map(percent);
        if old == new {
            // Only the period, the burst, or less than can be written in percent.
            [old, new] = pair.map(|cpu| cpu.to_string());
        }
        all.push((Cpu.name(), "cpu.max", old, new));
    }
    if wanted.cpu_idle != found.cpu_idle {
        // No definition has it: it follows from the classes.
        let [old, new] = [wanted.cpu_idle, found.cpu_idle]
            .map(|idle| u8::from(idle == Setting::To(true)).to_string());
        all.push(("cpu_idle", "cpu.idle", old, new));
    }
    if wanted.cpus != found.cpus {
        // Nor this: it follows from the class and agent.toml.
        let [old, new] = [wanted.cpus, found.cpus].map(|cpus| cpus.to_string());
        all.push(("cpus", "cpuset.cpus", old, new));
    }
    // The kernel gives an idle group a weight of its own.
    let weight = match found.cpu_idle {
        Setting::To(true) => wanted.cpu_weight,
        _ => found.cpu_weight,
    };
    let numbers = [
        (CpuWeight, "cpu.weight", wanted.cpu_weight, weight),
        (Memory, "memory.max", wanted.memory_max, found.memory_max),
        (
            MemoryHigh,
            "memory.high",
            wanted.memory_high,
            found.memory_high,
        ),
        (MemoryMin, "memory.min", wanted.memory_min, found.memory_min),
        (Swap, "memory.swap.max", wanted.swap_max, found.swap_max),
        (Pids, "pids.max", wanted.pids_max, found.pids_max),
        (IoWeight, "io.weight", wanted.io_weight, found.io_weight),
    ];
    let rates = rates(wanted, found);
    for (key, file, wanted, found) in numbers.into_iter().chain(rates) {
        if wanted != found {
            all.push((key.name(), file, show(key, wanted), show(key, found)));
        }
    }
    all
}

/// Rates of every disk that either names.
fn rates(
    wanted: &cgroup::Limits,
    found: &cgroup::Limits,
) -> Vec<(LimitKey, &'static str, Setting<u64>, Setting<u64>)> {
    let of = |limits: &cgroup::Limits, device| {
        let io = limits.io.iter().find(|io| io.device == device);
        let lifted = |rate| {
            if rate == Setting::Keep {
                Setting::Max
            } else {
                rate
            }
        };
        let io = io.copied().unwrap_or(IoLimit::of(device));
        [io.read_bps, io.write_bps, io.read_iops, io.write_iops].map(lifted)
    };
    let names = [
        (LimitKey::IoRead, "rbps"),
        (LimitKey::IoWrite, "wbps"),
        (LimitKey::IoReadIops, "riops"),
        (LimitKey::IoWriteIops, "wiops"),
    ];
    let mut devices: Vec<_> = wanted
        .io
        .iter()
        .chain(&found.io)
        .map(|io| io.device)
        .collect();
    devices.sort();
    devices.dedup();
    let mut all = Vec::new();
    for device in devices {
        let pairs = of(wanted, device).into_iter().zip(of(found, device));
        let named = names.into_iter().zip(pairs);
        all.extend(named.map(|((key, file), (wanted, found))| (key, file, wanted, found)));
    }
    all
}

fn show(key: LimitKey, setting: Setting<u64>) -> String {
    match setting {
        Setting::To(value) => key.show(value),
        // A guarantee has none.
        _ if key == LimitKey::MemoryMin => "0".to_owned(),
        _ => "max".to_owned(),
    }
}

fn percent(cpu: Setting<CpuLimit>) -> String {
    show(
        LimitKey::Cpu,
        cpu.map(|cpu| cpu.quota_usec * 10_000 / cpu.period_usec.max(1)),
    )
}

#[cfg(test)]
mod tests {
    use cgroup::{Device, Limits};

    use super::*;

    fn words(all: Vec<Difference>) -> Vec<(&'static str, String, String)> {
        all.into_iter()
            .map(|(key, _, wanted, found)| (key, wanted, found))
            .collect()
    }

    #[test]
    fn each_limit_that_differs_is_told_as_people_write_it() {
        let disk = |minor, rate| IoLimit {
            write_bps: rate,
            ..IoLimit::of(Device { major: 8, minor })
        };
        let wanted = Limits {
            cpu: Setting::To(CpuLimit::percent(20.0)),
            memory_max: Setting::To(64 << 20),
            pids_max: Setting::To(20),
            io: vec![disk(0, Setting::To(2_000_000))],
            ..Limits::default()
        };
        let found = Limits {
            cpu: Setting::To(CpuLimit::percent(50.0)),
            memory_max: Setting::Max,
            io: vec![disk(16, Setting::To(1_000_000))],
            ..wanted.clone()
        };
        let line = |key, wanted: &str, found: &str| (key, wanted.to_owned(), found.to_owned());
        assert_eq!(
            words(differences(&wanted, &found)),
            [
                line("cpu", "20%", "50%"),
                line("memory", "64M", "max"),
                line("io.write", "2MB/s", "max"),
                line("io.write", "max", "1MB/s"),
            ]
        );
        assert!(differences(&wanted, &wanted).is_empty());
        let finer = Limits {
            cpu: Setting::To(CpuLimit {
                quota_usec: 40_000,
                period_usec: 200_000,
                burst_usec: 0,
            }),
            ..wanted.clone()
        };
        assert_eq!(
            words(differences(&wanted, &finer)),
            [line("cpu", "20000 100000", "40000 200000")]
        );
        let mut idle = wanted.clone();
        (idle.cpu_idle, idle.cpu_weight) = (Setting::To(true), Setting::To(1));
        let mut other = wanted.clone();
        (other.cpu_idle, other.cpu_weight) = (Setting::To(false), Setting::To(100));
        assert_eq!(
            words(differences(&other, &idle)),
            [line("cpu_idle", "0", "1")]
        );
    }
}
