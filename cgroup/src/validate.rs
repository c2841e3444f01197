//! What is refused before anything is written. Pure.

use crate::Error;
use crate::convert::{WEIGHT_MAX, WEIGHT_MIN, human_bytes};
use crate::limits::{Limits, Setting};

impl Limits {
    /// Refuses values that cannot be meant, whatever the kernel would do with them.
    pub fn validate(&self, group: &str) -> Result<(), Error> {
        let refuse = |limit, value: String, why: &str| {
            Err(Error::Refused {
                group: group.to_owned(),
                limit,
                value,
                why: why.to_owned(),
            })
        };
        if let Setting::To(cpu) = self.cpu {
            let shown = cpu.to_string();
            if !(1_000..=1_000_000).contains(&cpu.period_usec) {
                return refuse("cpu.max", shown, "the period must be 1000 to 1000000 µs");
            }
            if cpu.quota_usec < 1_000
                || u128::from(cpu.quota_usec) * 100 < u128::from(cpu.period_usec)
            {
                return refuse(
                    "cpu.max",
                    shown,
                    "at least 1 % of one CPU, and 1000 µs per period, are needed to live",
                );
            }
            if cpu.quota_usec > 1 << 40 {
                return refuse(
                    "cpu.max",
                    shown,
                    "no machine has that many CPUs; lift the limit instead",
                );
            }
            if cpu.burst_usec > cpu.quota_usec {
                return refuse(
                    "cpu.max.burst",
                    cpu.burst_usec.to_string(),
                    "the burst may not exceed the quota",
                );
            }
        }
        for (limit, weight) in [
            ("cpu.weight", self.cpu_weight),
            ("io.weight", self.io_weight),
        ] {
            if let Setting::To(w) = weight
                && !(WEIGHT_MIN..=WEIGHT_MAX).contains(&w)
            {
                return refuse(limit, w.to_string(), "a weight is 1 to 10000");
            }
        }
        let memory = [
            ("memory.max", self.memory_max),
            ("memory.high", self.memory_high),
        ];
        for (limit, value) in memory {
            if let Setting::To(v) = value
                && v < 64 << 10
            {
                return refuse(limit, human_bytes(v), "no process fits into less than 64K");
            }
        }
        let sizes = [
            self.memory_max,
            self.memory_high,
            self.memory_min,
            self.swap_max,
        ];
        for (limit, value) in ["memory.max", "memory.high", "memory.min", "memory.swap.max"]
            .into_iter()
            .zip(sizes)
        {
            if let Setting::To(v) = value
                && v > 1 << 60
            {
                return refuse(
                    limit,
                    human_bytes(v),
                    "no machine has that much; lift the limit instead",
                );
            }
        }
        if let Setting::To(n) = self.pids_max
            && !(1..=4_194_304).contains(&n)
        {
            return refuse(
                "pids.max",
                n.to_string(),
                "1 to 4194304 processes are possible",
            );
        }
        for (i, io) in self.io.iter().enumerate() {
            if self
                .io
                .iter()
                .take(i)
                .any(|earlier| earlier.device == io.device)
            {
                return refuse("io.max", io.device.to_string(), "the device is named twice");
            }
            for (name, rate) in io.rates() {
                let top = if name.ends_with("iops") {
                    u64::from(u32::MAX) - 1
                } else {
                    1 << 60
                };
                if let Setting::To(v) = rate
                    && !(1..=top).contains(&v)
                {
                    let shown = format!("{} {name}={v}", io.device);
                    return refuse(
                        "io.max",
                        shown,
                        "a rate of zero would stop it for ever, and there is an upper end",
                    );
                }
            }
        }
        Ok(())
    }
}
