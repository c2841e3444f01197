//! Parsers of the kernel's cgroup files. Pure; no input makes them panic, and what is not understood is left out.

use crate::limits::{Device, Setting};

/// One number, with `max` (v2) or a negative number (v1) as "no limit".
#[must_use]
pub fn number_or_max(text: &str) -> Option<Setting<u64>> {
    let text = text.trim();
    if text == "max"
        || text
            .strip_prefix('-')
            .is_some_and(|rest| rest.parse::<u64>().is_ok())
    {
        return Some(Setting::Max);
    }
    text.parse().ok().map(Setting::To)
}

/// One number.
#[must_use]
pub fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value of `key` in a file of `key value` lines (cpu.stat, memory.stat, memory.events, memory.oom_control,
/// pids.events, cgroup.events).
#[must_use]
pub fn flat(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(key)?.strip_prefix(' ')?;
        value.trim().parse().ok()
    })
}

/// v2 `cpu.max`: quota (or no limit) and period, in µs.
#[must_use]
pub fn cpu_max(text: &str) -> Option<(Setting<u64>, u64)> {
    let mut words = text.split_whitespace();
    let quota = number_or_max(words.next()?)?;
    Some((quota, words.next()?.parse().ok()?))
}

/// `8:0`.
#[must_use]
pub fn device(text: &str) -> Option<Device> {
    let (major, minor) = text.split_once(':')?;
    Some(Device {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

/// The rest of the line that begins with this device (io.max, blkio.throttle.*_device).
#[must_use]
pub fn device_line(text: &str, wanted: Device) -> Option<&str> {
    device_lines(text)
        .find(|(found, _)| *found == wanted)
        .map(|(_, rest)| rest)
}

/// All lines that begin with a device.
pub fn device_lines(text: &str) -> impl Iterator<Item = (Device, &str)> {
    text.lines().filter_map(|line| {
        let (name, rest) = line.trim().split_once(' ')?;
        Some((device(name)?, rest.trim()))
    })
}

/// The value of `key=` in a line of such pairs.
#[must_use]
pub fn pair<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// Bytes and operations of all devices together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoTotals {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub read_ops: u64,
    /// Write operations.
    pub write_ops: u64,
}

/// v2 `io.stat`, whose lines may lack any pair or have none at all.
#[must_use]
pub fn io_stat(text: &str) -> IoTotals {
    let mut total = IoTotals::default();
    for (_, line) in device_lines(text) {
        let value = |key| pair(line, key).and_then(number).unwrap_or(0);
        total.read_bytes = total.read_bytes.saturating_add(value("rbytes"));
        total.write_bytes = total.write_bytes.saturating_add(value("wbytes"));
        total.read_ops = total.read_ops.saturating_add(value("rios"));
        total.write_ops = total.write_ops.saturating_add(value("wios"));
    }
    total
}

/// v1 `blkio.throttle.io_service_bytes` or `io_serviced`: the sums of the Read and of the Write lines.
#[must_use]
pub fn blkio_sums(text: &str) -> (u64, u64) {
    let mut read = 0u64;
    let mut write = 0u64;
    for (_, rest) in device_lines(text) {
        match rest.split_once(' ') {
            Some(("Read", n)) => read = read.saturating_add(number(n).unwrap_or(0)),
            Some(("Write", n)) => write = write.saturating_add(number(n).unwrap_or(0)),
            _ => {}
        }
    }
    (read, write)
}

/// `io.weight`, `io.bfq.weight`, `blkio.bfq.weight`: `default 100` or only `100`, then lines per device.
#[must_use]
pub fn default_weight(text: &str) -> Option<u64> {
    let first = text.lines().next()?;
    number(first.strip_prefix("default ").unwrap_or(first))
}

/// Process ids, one a line. 0 stands for a process outside our pid namespace and is left out.
#[must_use]
pub fn pids(text: &str) -> Vec<i32> {
    text.lines()
        .filter_map(|line| line.trim().parse().ok())
        .filter(|pid| *pid > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_kernels_print() {
        assert_eq!(number_or_max("max\n"), Some(Setting::Max));
        assert_eq!(number_or_max("-1\n"), Some(Setting::Max));
        assert_eq!(number_or_max("20000\n"), Some(Setting::To(20_000)));
        assert_eq!(number_or_max("-x"), None);
        assert_eq!(cpu_max("max 100000\n"), Some((Setting::Max, 100_000)));
        assert_eq!(
            cpu_max("20000 100000\n"),
            Some((Setting::To(20_000), 100_000))
        );
        assert_eq!(cpu_max("20000"), None);
        let events = "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\n";
        assert_eq!(flat(events, "oom_kill"), Some(1));
        assert_eq!(flat(events, "oom"), Some(2));
        assert_eq!(flat(events, "oom_group_kill"), None);
        let max = "253:0 rbps=max wbps=5 riops=max wiops=max\n254:0 rbps=2097152 wbps=max riops=7 wiops=max\n";
        let line = device_line(
            max,
            Device {
                major: 254,
                minor: 0,
            },
        );
        assert_eq!(line.and_then(|l| pair(l, "rbps")), Some("2097152"));
        assert_eq!(line.and_then(|l| pair(l, "iops")), None);
        assert_eq!(
            device_line(
                max,
                Device {
                    major: 54,
                    minor: 0
                }
            ),
            None
        );
        assert_eq!(default_weight("default 200\n8:0 50\n"), Some(200));
        assert_eq!(default_weight("100\n"), Some(100));
        assert_eq!(pids("12\n0\n7\n"), [12, 7]);
    }

    #[test]
    fn io_stat_survives_odd_lines() {
        // Kernels print a device without any pair, and newer ones add pairs.
        let text = "8:16 \n8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0 cost.usage=3\n7:0\n254:0 rbytes=1 wios=9\n";
        let total = IoTotals {
            read_bytes: 11,
            write_bytes: 20,
            read_ops: 1,
            write_ops: 11,
        };
        assert_eq!(io_stat(text), total);
        let v1 = "254:0 Read 4096\n254:0 Write 10\n254:0 Sync 1\n254:0 Total 4106\n8:0 Read 4\nTotal 4110\n";
        assert_eq!(blkio_sums(v1), (4100, 10));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "(?s).{0,200}") {
            let _ = (number_or_max(&text), number(&text), flat(&text, "usage_usec"), cpu_max(&text), io_stat(&text));
            let _ = (blkio_sums(&text), default_weight(&text), pids(&text), device(&text), pair(&text, "rbps"));
            let _ = device_line(&text, Device { major: 8, minor: 0 });
        }

        #[test]
        fn near_misses_do_not_panic_either(
            text in "([0-9]{1,22}:[0-9]{1,3} ?(r|w)(bytes|ios|bps)?=?-?[0-9]{0,22}(max)? ?(Read|Write)? ?\n?){0,6}"
        ) {
            let _ = (io_stat(&text), blkio_sums(&text), pids(&text), cpu_max(&text));
        }

        #[test]
        fn io_stat_adds_up(lines in proptest::collection::vec((0u32..300, 0u32..300, any::<u32>(), any::<u32>()), 0..8)) {
            let text: String = lines.iter()
                .map(|(a, b, r, w)| format!("{a}:{b} rbytes={r} wbytes={w} rios=1 wios=2 dbytes=9 dios=9\n"))
                .collect();
            let total = io_stat(&text);
            prop_assert_eq!(total.read_bytes, lines.iter().map(|l| u64::from(l.2)).sum::<u64>());
            prop_assert_eq!(total.write_bytes, lines.iter().map(|l| u64::from(l.3)).sum::<u64>());
            prop_assert_eq!(total.write_ops, 2 * lines.len() as u64);
        }
    }
}
