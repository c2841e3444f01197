//! Whether what was read back is what was asked for. Pure.

use crate::Error;
use crate::convert::WEIGHT_DEFAULT;
use crate::limits::{Limits, Setting};

/// The first limit that was asked for and is not in force. `want` has been corrected by the plan.
pub(crate) fn compare(group: &str, want: &Limits, got: &Limits) -> Result<(), Error> {
    let differs = |limit, wanted: String, got: String| {
        Err(Error::NotInForce {
            group: group.to_owned(),
            limit,
            wanted,
            got,
        })
    };
    if !want.cpu.is_keep() && want.cpu != got.cpu {
        return differs("cpu.max", want.cpu.to_string(), got.cpu.to_string());
    }
    if !want.cpu_idle.is_keep() && want.cpu_idle != got.cpu_idle {
        let (want, got) = (want.cpu_idle.to_string(), got.cpu_idle.to_string());
        return differs("cpu.idle", want, got);
    }
    if !want.cpus.is_keep() && want.cpus != got.cpus {
        return differs("cpuset.cpus", want.cpus.to_string(), got.cpus.to_string());
    }
    for (limit, want, got) in [
        ("cpu.weight", want.cpu_weight, got.cpu_weight),
        ("io.weight", want.io_weight, got.io_weight),
    ] {
        let want = if want == Setting::Max {
            Setting::To(WEIGHT_DEFAULT)
        } else {
            want
        };
        if !want.is_keep() && want != got {
            return differs(limit, want.to_string(), got.to_string());
        }
    }
    let numbers = [
        ("memory.max", want.memory_max, got.memory_max),
        ("memory.high", want.memory_high, got.memory_high),
        ("memory.min", want.memory_min, got.memory_min),
        ("memory.swap.max", want.swap_max, got.swap_max),
        ("pids.max", want.pids_max, got.pids_max),
    ];
    for (limit, want, got) in numbers {
        if !want.is_keep() && want != got {
            return differs(limit, want.to_string(), got.to_string());
        }
    }
    for io in &want.io {
        let found = got.io.iter().find(|g| g.device == io.device);
        for (i, (name, rate)) in io.rates().into_iter().enumerate() {
            let got = found
                .and_then(|f| f.rates().get(i).map(|r| r.1))
                .unwrap_or(Setting::Max);
            if !rate.is_keep() && rate != got {
                let device = io.device;
                return differs(
                    "io.max",
                    format!("{device} {name}={rate}"),
                    format!("{device} {name}={got}"),
                );
            }
        }
    }
    Ok(())
}
