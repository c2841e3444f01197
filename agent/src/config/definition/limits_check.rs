//! Which limits make sense together.

use super::Limits;
use crate::config::problem::Problem;
use crate::config::units::MAX;

/// Below this no program starts.
const LEAST_MEMORY: u64 = 1 << 20;

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
        if self.disk().is_some_and(|disk| disk.0 < LEAST_MEMORY) {
            wrong("disk", "is below 1M".into());
        }
        problems
    }
}
