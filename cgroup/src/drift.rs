//! What a group was told, as its files should say it now: for finding out that somebody else has written them.

use rustix::param::page_size;

use crate::convert::{WEIGHT_DEFAULT, bfq_to_weight, round_to_page, weight_to_bfq};
use crate::group::Group;
use crate::hierarchy::Controller;
use crate::limits::{Limits, Setting};

impl Group {
    /// What [`Group::read`] answers as long as nobody else writes: `told` is what was [applied](Group::apply) to a group
    /// that was new, and what was never told has the kernel's default. `found` is what was read; limits that it does not
    /// know are left out.
    #[must_use]
    pub fn expected(told: &Limits, found: &Limits) -> Limits {
        fn known<T: Copy>(found: Setting<T>, told: Setting<T>, default: Setting<T>) -> Setting<T> {
            match (found, told) {
                (Setting::Keep, _) => Setting::Keep,
                (_, Setting::Keep) => default,
                (_, told) => told,
            }
        }
        let page = page_size() as u64;
        let memory = |found, told: Setting<u64>| {
            known(found, told, Setting::Max).map(|b| round_to_page(b, page))
        };
        let weight = |found, told| match known(found, told, Setting::Max) {
            Setting::Max => Setting::To(WEIGHT_DEFAULT),
            other => other,
        };
        let mut io_weight = weight(found.io_weight, told.io_weight);
        // BFQ has fewer of them.
        let coarse = io_weight.map(|w| bfq_to_weight(weight_to_bfq(w)));
        if coarse == found.io_weight {
            io_weight = coarse;
        }
        let mut io: Vec<_> = told.io.clone();
        for one in &mut io {
            for (name, rate) in one.rates() {
                if let (Setting::Keep, Some(slot)) = (rate, one.rate_mut(name)) {
                    *slot = Setting::Max;
                }
            }
        }
        let mut memory_min = memory(found.memory_min, told.memory_min);
        if memory_min == Setting::To(0) {
            memory_min = Setting::Max;
        }
        let cpu_idle = match known(found.cpu_idle, told.cpu_idle, Setting::Max) {
            Setting::Max => Setting::To(false),
            other => other,
        };
        Limits {
            cpu: known(found.cpu, told.cpu, Setting::Max),
            // The kernel gives an idle group a weight of its own.
            cpu_weight: match cpu_idle {
                Setting::To(true) => found.cpu_weight,
                _ => weight(found.cpu_weight, told.cpu_weight),
            },
            cpu_idle,
            // Whoever was told nothing has what the group above has.
            cpus: known(found.cpus, told.cpus, found.cpus),
            memory_max: memory(found.memory_max, told.memory_max),
            memory_high: memory(found.memory_high, told.memory_high),
            memory_min,
            swap_max: memory(found.swap_max, told.swap_max),
            pids_max: known(found.pids_max, told.pids_max, Setting::Max),
            io,
            io_weight,
        }
    }

    /// The file that a limit is in, by cgroup v2's name for it: `cpu.max`, `memory.max`, `io.max`; rates of disks have
    /// files of their own on v1, and are asked for as `rbps`, `wbps`, `riops`, `wiops`. Empty if there is none.
    #[must_use]
    pub fn file_of(&self, limit: &str) -> String {
        let controller = match limit.split_once('.') {
            Some(("cpu", _)) => Controller::Cpu,
            Some(("cpuset", _)) => Controller::Cpuset,
            Some(("memory", _)) => Controller::Memory,
            Some(("pids", _)) => Controller::Pids,
            _ => Controller::Io,
        };
        self.slot(controller)
            .map(|(root, dir)| dir.path_of(root.backend().file_of(dir, limit)))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Setting::To;
    use crate::limits::{CpuLimit, Device, IoLimit};

    #[test]
    fn what_was_never_told_has_the_kernels_default() {
        let found = Limits {
            cpu: To(CpuLimit::percent(50.0)),
            cpu_weight: To(300),
            memory_max: To(4096),
            memory_min: Setting::Max,
            pids_max: Setting::Max,
            io_weight: To(100),
            ..Limits::default()
        };
        let expected = Group::expected(&Limits::default(), &found);
        assert_eq!(expected.cpu, Setting::Max);
        assert_eq!(expected.cpu_weight, To(100));
        assert_eq!(expected.memory_max, Setting::Max);
        // Not known on this host: nothing is expected of it.
        assert_eq!(
            (expected.memory_high, expected.swap_max),
            (Setting::Keep, Setting::Keep)
        );
        assert_eq!(
            (expected.memory_min, expected.io_weight),
            (Setting::Max, To(100))
        );
    }

    #[test]
    fn what_the_kernel_rounds_is_expected_rounded() {
        let page = page_size() as u64;
        let device = Device { major: 8, minor: 0 };
        let told = Limits {
            memory_max: To(page * 10 + 1),
            memory_min: To(0),
            io_weight: To(5_001),
            io: vec![IoLimit {
                read_bps: To(1_000_000),
                ..IoLimit::of(device)
            }],
            ..Limits::default()
        };
        let found = Limits {
            memory_max: To(page * 10),
            memory_min: Setting::Max,
            io_weight: To(bfq_to_weight(weight_to_bfq(5_001))),
            io: vec![IoLimit {
                read_bps: To(1_000_000),
                write_bps: Setting::Max,
                read_iops: Setting::Max,
                write_iops: Setting::Max,
                device,
            }],
            ..Limits::default()
        };
        assert_eq!(Group::expected(&told, &found), found);
    }
}
