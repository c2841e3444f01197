//! Which limits make sense together.

use super::limit_key::LimitKey;
use super::{Definition, Limits, Mode};
use crate::config::problem::Problem;
use crate::config::units::{Class, Cpu, MAX};

/// Limits of what goes over a link; a site without one can have neither.
const TRAFFIC: [LimitKey; 2] = [LimitKey::Egress, LimitKey::Ingress];
/// 64 Kbit in bytes: below this one full packet takes longer than a fifth of a second.
const LEAST_TRAFFIC: u64 = 8_000;
/// Below this no program starts.
const LEAST_MEMORY: u64 = 1 << 20;

impl Definition {
    /// The limits of the site: its own, and the host's defaults where it has none. The defaults for network traffic are
    /// for sites with a link.
    pub fn limits_over(&self, defaults: &Limits) -> Limits {
        let mut limits = defaults.clone();
        if self.network.mode == Mode::Private {
            for key in TRAFFIC {
                limits.set(key, None);
            }
        }
        limits.merge(&self.limits)
    }

    /// Whether it is said how much is guaranteed.
    pub(super) fn check_class(&self, defaults: &Limits, problems: &mut Vec<Problem>) {
        let limits = [&self.limits, defaults];
        let class = limits.iter().find_map(|limits| limits.class());
        let cpu = limits.iter().find_map(|limits| limits.cpu());
        if class == Some(Class::Guaranteed) && cpu.and_then(Cpu::permyriad).is_none() {
            let why = "\"guaranteed\" needs cpu: it says how much is guaranteed";
            problems.push(Problem::key("limits.class", why));
        }
    }

    /// Whether there is something that limits of network traffic could be for.
    pub(super) fn check_traffic(&self, problems: &mut Vec<Problem>) {
        if self.network.mode != Mode::Private {
            return;
        }
        let limited = TRAFFIC
            .into_iter()
            .filter(|key| self.limits.get(*key).is_some_and(|raw| raw != MAX));
        problems.extend(limited.map(|key| {
            let why = "mode = \"private\" has loopback only and no link that could be limited; \
                       leave it out, or set mode = \"address\"";
            Problem::key(format!("limits.{key}"), why)
        }));
    }
}

impl Limits {
    /// Checks the limits against each other and against what makes no sense.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, message: String| {
            problems.push(Problem::key(format!("limits.{key}"), message))
        };
        let raw = |value: Option<u64>| value.unwrap_or(MAX);
        let (memory, high, min) = (
            raw(self.memory().map(|v| v.0)),
            raw(self.memory_high().map(|v| v.0)),
            self.memory_min().map_or(0, |v| v.0),
        );
        for (key, value) in [("memory", memory), ("memory_high", high)] {
            if value < LEAST_MEMORY {
                wrong(key, "is below 1M, with which nothing starts".into());
            }
        }
        if min == MAX {
            wrong("memory_min", "cannot be max: it is a guarantee".into());
        } else if min > memory {
            wrong("memory_min", "is more than memory".into());
        }
        if high != MAX && high > memory {
            wrong("memory_high", "is more than memory".into());
        }
        if let (Some(burst), Some(cpu)) = (self.cpu_burst(), self.cpu()) {
            if burst > cpu {
                wrong(
                    "cpu_burst",
                    "is more than cpu; the kernel allows at most as much again".into(),
                );
            }
        } else if self.cpu_burst().is_some() {
            wrong(
                "cpu_burst",
                "needs cpu: without a limit there is nothing to save up".into(),
            );
        }
        if self.class() == Some(Class::Guaranteed) && self.cpu_weight().is_some() {
            wrong(
                "cpu_weight",
                "cannot be set with class = \"guaranteed\", whose weight follows from cpu; leave one of them out"
                    .into(),
            );
        }
        for (key, least, value) in [
            ("pids", 2, self.pids()),
            ("io.read_iops", 1, self.io_read_iops()),
            ("io.write_iops", 1, self.io_write_iops()),
            ("nofile", 16, self.nofile()),
        ] {
            if value.is_some_and(|value| value.0 < least) {
                wrong(key, format!("is below {least}, with which nothing works"));
            }
        }
        for key in TRAFFIC {
            if self.get(key).is_some_and(|rate| rate < LEAST_TRAFFIC) {
                wrong(
                    key.name(),
                    "is below 64Kbit, with which no page is loaded".into(),
                );
            }
        }
        if self.disk().is_some_and(|disk| disk.0 < LEAST_MEMORY) {
            wrong("disk", "is below 1M".into());
        }
        problems
    }
}
