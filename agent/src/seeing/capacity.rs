//! How many more sites like those that live fit: a pure function of figures, with its arithmetic.

use serde::{Deserialize, Serialize};

use super::host::Memory;
use super::words::{bytes, percent, share};

/// What is kept for the system and the agent: this part of the memory, and never less than that.
const RESERVE: f64 = 0.1;
const LEAST_RESERVE: u64 = 256 << 20;
/// How much of the CPUs sites may use on average: what they use comes in bursts.
const CPU_TARGET: f64 = 70.0;

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// CPUs of the host for sites that are promised nothing.
    pub cpus: usize,
    /// Memory of the host.
    pub memory: Memory,
    /// Sites that have a container.
    pub live: usize,
    /// Of them, those whose memory was measured.
    pub measured: usize,
    /// Memory that these have for themselves, together.
    pub private_bytes: u64,
    /// CPU time of all live sites since they listen, in seconds.
    pub cpu_seconds: f64,
    /// How long they have lived, together, in seconds.
    pub lived_seconds: f64,
}

/// How many more.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capacity {
    /// As many as neither memory nor CPU forbids; None if nothing could be measured.
    pub more: Option<u64>,
    /// For which there is memory.
    pub by_memory: Option<u64>,
    /// For which there is CPU time; None if those that live use none to speak of.
    pub by_cpu: Option<u64>,
    /// Memory that is left alone.
    pub reserve_bytes: u64,
    /// Memory of one site, on average.
    pub private_bytes_per_site: Option<u64>,
    /// CPU time of one site, on average, in percent of one CPU.
    pub cpu_per_site: Option<f64>,
    /// How that was computed.
    pub arithmetic: Vec<String>,
}

/// Computes it; a reserve may be demanded.
pub fn capacity(measured: &Measured, reserve: Option<u64>) -> Capacity {
    let memory = &measured.memory;
    let reserve =
        reserve.unwrap_or(((memory.total_bytes as f64 * RESERVE) as u64).max(LEAST_RESERVE));
    let mut answer = Capacity {
        reserve_bytes: reserve,
        ..Capacity::default()
    };
    if measured.measured == 0 || measured.private_bytes == 0 {
        let why = "no live site could be measured: start some that are typical";
        answer.arithmetic.push(why.to_owned());
        return answer;
    }
    // At least a page, whatever was measured.
    let each = (measured.private_bytes / measured.measured as u64).max(4096);
    let room = memory.available_bytes.saturating_sub(reserve);
    let by_memory = room / each;
    answer.private_bytes_per_site = Some(each);
    answer.by_memory = Some(by_memory);
    answer.arithmetic.push(format!(
        "memory: ({} available - {} reserve) / {} private memory per site, measured on {} of {} live sites = {by_memory}",
        bytes(memory.available_bytes as f64),
        bytes(reserve as f64),
        bytes(each as f64),
        measured.measured,
        measured.live,
    ));
    let cpu = share(measured.cpu_seconds * 100.0, measured.lived_seconds);
    let all = measured.cpus as f64 * CPU_TARGET;
    let free = (all - cpu * measured.live as f64).max(0.0);
    answer.cpu_per_site = Some(cpu);
    // Less than a thousandth of a percent is no basis for a number.
    if cpu >= 0.001 {
        let by_cpu = (free / cpu).floor() as u64;
        answer.by_cpu = Some(by_cpu);
        answer.arithmetic.push(format!(
            "CPU: ({} CPUs x {} - {} live sites x {cpu:.3} %) / {cpu:.3} % per site on average = {by_cpu}",
            measured.cpus,
            percent(CPU_TARGET),
            measured.live,
        ));
    } else {
        let why = "CPU: the live sites have used none to speak of";
        answer.arithmetic.push(why.to_owned());
    }
    answer.more = Some(answer.by_cpu.map_or(by_memory, |cpu| cpu.min(by_memory)));
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn host() -> Measured {
        Measured {
            cpus: 2,
            memory: Memory {
                total_bytes: 4096 * MIB,
                available_bytes: 3000 * MIB,
                ..Memory::default()
            },
            live: 4,
            measured: 2,
            private_bytes: 40 * MIB,
            cpu_seconds: 40.0,
            lived_seconds: 4000.0,
        }
    }

    #[test]
    fn the_arithmetic_is_shown() {
        let answer = capacity(&host(), Some(500 * MIB));
        assert_eq!(
            (answer.by_memory, answer.by_cpu, answer.more),
            (Some(125), Some(136), Some(125))
        );
        assert_eq!(
            answer.arithmetic,
            [
                "memory: (2.9G available - 500M reserve) / 20M private memory per site, measured on 2 of 4 live sites = 125",
                "CPU: (2 CPUs x 70 % - 4 live sites x 1.000 %) / 1.000 % per site on average = 136",
            ]
        );
        assert_eq!(capacity(&host(), None).reserve_bytes, 4096 * MIB / 10);
    }

    #[test]
    fn nothing_measured_is_nothing_known() {
        for measured in [
            Measured::default(),
            Measured {
                measured: 0,
                ..host()
            },
            Measured {
                private_bytes: 0,
                ..host()
            },
        ] {
            assert_eq!(capacity(&measured, None).more, None);
        }
        let quiet = Measured {
            cpu_seconds: 0.0,
            ..host()
        };
        let answer = capacity(&quiet, None);
        assert_eq!((answer.by_cpu, answer.more), (None, answer.by_memory));
    }

    #[test]
    fn a_full_host_takes_no_more() {
        let mut full = host();
        full.memory.available_bytes = 100 * MIB;
        assert_eq!(capacity(&full, None).more, Some(0));
        let busy = Measured {
            cpu_seconds: 8000.0,
            ..host()
        };
        assert_eq!(capacity(&busy, None).more, Some(0));
    }

    proptest! {
        /// What it says fits, and one more would not.
        #[test]
        fn as_many_as_fit_and_not_one_more(
            available in 0..1u64 << 40, private in 1..1u64 << 36, measured in 1..500usize, reserve in 0..1u64 << 36,
        ) {
            let mut host = host();
            host.memory.available_bytes = available;
            (host.measured, host.private_bytes) = (measured, private);
            let answer = capacity(&host, Some(reserve));
            let each = answer.private_bytes_per_site.unwrap();
            let room = available.saturating_sub(reserve);
            let fit = answer.by_memory.unwrap();
            prop_assert!(fit * each <= room && (fit + 1) * each > room);
            prop_assert!(answer.more.unwrap() <= fit);
        }
    }
}
