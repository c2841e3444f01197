//! cgroup v1 files. Nothing outside this module and the placing of controllers knows them.

use crate::Error;
use crate::convert::{
    WEIGHT_DEFAULT, bfq_to_weight, shares_to_weight, weight_to_bfq, weight_to_shares,
};
use crate::dir::Dir;
use crate::limits::{CpuLimit, IoLimit, Limits, Setting};
use crate::plan::{Asked, At, Backend, Undo, Write, parsed};
use crate::stat;
use crate::usage::Usage;

mod memory;
mod squeeze;

use memory::{LIMIT, MEMSW, memory_bytes};
pub(crate) use squeeze::{release, squeeze};

pub(crate) struct V1;

const PERIOD: &str = "cpu.cfs_period_us";
/// Of every new group, in µs (default_cfs_period of the kernel's scheduler).
const DEFAULT_PERIOD: u64 = 100_000;
const QUOTA: &str = "cpu.cfs_quota_us";
const BURST: &str = "cpu.cfs_burst_us";
/// v2's name of a rate and v1's file.
const THROTTLE: [(&str, &str); 4] = [
    ("rbps", "blkio.throttle.read_bps_device"),
    ("wbps", "blkio.throttle.write_bps_device"),
    ("riops", "blkio.throttle.read_iops_device"),
    ("wiops", "blkio.throttle.write_iops_device"),
];
/// Which of them there is depends on the kernel and its I/O scheduler.
const WEIGHTS: [&str; 2] = ["blkio.bfq.weight", "blkio.weight"];

impl Backend for V1 {
    fn plan_cpu<'a>(
        &self,
        at: At<'a>,
        want: &mut Limits,
        out: &mut Vec<Write<'a>>,
    ) -> Result<(), Error> {
        let write = |file, text: String| Write {
            dir: at.dir,
            limit: "cpu.max",
            file,
            text,
            undo: Undo::FirstLine,
        };
        if !want.cpu.is_keep() {
            let old_period = match at.new {
                true => DEFAULT_PERIOD,
                false => parsed(at.dir, PERIOD, stat::number)?,
            };
            let (quota, period, burst) = match want.cpu {
                Setting::To(cpu) => (cpu.quota_usec.to_string(), cpu.period_usec, cpu.burst_usec),
                _ => ("-1".to_owned(), old_period, 0),
            };
            let old_burst = match at.new {
                true => 0,
                false => at
                    .dir
                    .read_optional(BURST)?
                    .and_then(|text| stat::number(&text))
                    .unwrap_or(0),
            };
            // At every moment burst <= quota, and quota/period not above that of the group above.
            let steps = [
                (burst < old_burst, BURST, burst.to_string()),
                (period > old_period, PERIOD, period.to_string()),
                (true, QUOTA, quota),
                (period < old_period, PERIOD, period.to_string()),
                (burst > old_burst, BURST, burst.to_string()),
            ];
            out.extend(
                steps
                    .into_iter()
                    .filter(|s| s.0)
                    .map(|(_, file, text)| write(file, text)),
            );
        }
        if !want.cpu_idle.is_keep() {
            crate::plan::plan_cpu_idle(at, want, out)?;
        }
        if !want.cpu_weight.is_keep() {
            let shares = weight_to_shares(want.cpu_weight.value().unwrap_or(WEIGHT_DEFAULT));
            out.push(Write {
                limit: "cpu.weight",
                ..write("cpu.shares", shares.to_string())
            });
        }
        Ok(())
    }

    fn plan_memory<'a>(
        &self,
        at: At<'a>,
        want: &mut Limits,
        out: &mut Vec<Write<'a>>,
    ) -> Result<(), Error> {
        memory::plan(at, want, out)
    }

    fn plan_io<'a>(
        &self,
        at: At<'a>,
        want: &mut Limits,
        out: &mut Vec<Write<'a>>,
    ) -> Result<(), Error> {
        for io in &want.io {
            for ((_, rate), (_, file)) in io.rates().into_iter().zip(THROTTLE) {
                if !rate.is_keep() {
                    let text = format!("{} {}", io.device, rate.value().unwrap_or(0));
                    let undo = Undo::Throttle(io.device);
                    out.push(Write {
                        dir: at.dir,
                        limit: "io.max",
                        file,
                        text,
                        undo,
                    });
                }
            }
        }
        if !want.io_weight.is_keep() {
            let bfq = weight_to_bfq(want.io_weight.value().unwrap_or(WEIGHT_DEFAULT));
            want.io_weight = Setting::To(bfq_to_weight(bfq));
            let file = WEIGHTS
                .into_iter()
                .find(|f| at.dir.exists(f))
                .unwrap_or("blkio.bfq.weight");
            out.push(Write {
                dir: at.dir,
                limit: "io.weight",
                file,
                text: bfq.to_string(),
                undo: Undo::FirstLine,
            });
        }
        Ok(())
    }

    fn read_cpu(&self, dir: &Dir, asked: Asked<'_>, into: &mut Limits) -> Result<(), Error> {
        if asked.any(|l| &l.cpu) {
            into.cpu = match parsed(dir, QUOTA, stat::number_or_max)? {
                Setting::To(quota_usec) => {
                    let period_usec = parsed(dir, PERIOD, stat::number)?;
                    let burst_usec = dir
                        .read_optional(BURST)?
                        .and_then(|text| stat::number(&text))
                        .unwrap_or(0);
                    Setting::To(CpuLimit {
                        quota_usec,
                        period_usec,
                        burst_usec,
                    })
                }
                _ => Setting::Max,
            };
        }
        if asked.any(|l| &l.cpu_weight) {
            into.cpu_weight =
                Setting::To(shares_to_weight(parsed(dir, "cpu.shares", stat::number)?));
        }
        crate::plan::read_cpu_idle(dir, asked, into)?;
        Ok(())
    }

    fn read_memory(&self, dir: &Dir, asked: Asked<'_>, into: &mut Limits) -> Result<(), Error> {
        let swap = asked.any(|l| &l.swap_max);
        if asked.any(|l| &l.memory_max) || swap {
            into.memory_max = parsed(dir, LIMIT, memory_bytes)?;
        }
        if swap && let Some(text) = dir.read_optional(MEMSW)? {
            let sum = memory_bytes(&text);
            into.swap_max = match (sum, into.memory_max) {
                (Some(Setting::To(sum)), Setting::To(memory)) => {
                    Setting::To(sum.saturating_sub(memory))
                }
                _ => Setting::Max,
            };
        }
        // The plan lets these pass only as "none", and without a way to set them that is what they are.
        if let Some(limits) = asked.0 {
            into.memory_high = limits.memory_high;
            into.memory_min = limits.memory_min;
        }
        Ok(())
    }

    fn read_io(&self, dir: &Dir, asked: Asked<'_>, into: &mut Limits) -> Result<(), Error> {
        for (name, file) in THROTTLE {
            let wanted = |io: &IoLimit| io.rates().iter().any(|(n, r)| *n == name && !r.is_keep());
            if !asked.0.is_none_or(|l| l.io.iter().any(wanted)) {
                continue;
            }
            for (device, value) in stat::device_lines(&dir.read(file)?) {
                if asked
                    .0
                    .is_some_and(|l| l.io.iter().all(|io| io.device != device))
                {
                    continue;
                }
                let at = into
                    .io
                    .iter()
                    .position(|io| io.device == device)
                    .unwrap_or_else(|| {
                        let lifted = Setting::Max;
                        into.io.push(IoLimit {
                            device,
                            read_bps: lifted,
                            write_bps: lifted,
                            read_iops: lifted,
                            write_iops: lifted,
                        });
                        into.io.len() - 1
                    });
                let slot = into.io.get_mut(at).and_then(|io| io.rate_mut(name));
                if let (Some(slot), Some(value)) = (slot, stat::number(value)) {
                    *slot = if value == 0 {
                        Setting::Max
                    } else {
                        Setting::To(value)
                    };
                }
            }
        }
        if asked.any(|l| &l.io_weight)
            && let Some(file) = WEIGHTS.into_iter().find(|f| dir.exists(f))
        {
            into.io_weight = Setting::To(bfq_to_weight(parsed(dir, file, stat::default_weight)?));
        }
        Ok(())
    }

    fn file_of(&self, dir: &Dir, limit: &str) -> &'static str {
        match limit {
            "cpu.max" => QUOTA,
            "cpu.weight" => "cpu.shares",
            "cpu.idle" => crate::plan::CPU_IDLE,
            "memory.swap.max" => MEMSW,
            "pids.max" => "pids.max",
            crate::cpuset::CPUS => crate::cpuset::CPUS,
            "io.weight" => WEIGHTS
                .into_iter()
                .find(|f| dir.exists(f))
                .unwrap_or("blkio.bfq.weight"),
            other => THROTTLE
                .into_iter()
                .find(|(name, _)| *name == other)
                .map_or(LIMIT, |(_, file)| file),
        }
    }

    fn usage_cpu(&self, dir: &Dir, into: &mut Usage) -> Result<(), Error> {
        let text = dir.read("cpu.stat")?;
        into.nr_periods = stat::flat(&text, "nr_periods");
        into.nr_throttled = stat::flat(&text, "nr_throttled");
        into.throttled_usec = stat::flat(&text, "throttled_time").map(|ns| ns / 1000);
        Ok(())
    }

    fn usage_cpuacct(&self, dir: &Dir, into: &mut Usage) -> Result<(), Error> {
        let usec = |file| -> Result<Option<u64>, Error> {
            Ok(dir
                .read_optional(file)?
                .and_then(|text| stat::number(&text))
                .map(|ns| ns / 1000))
        };
        into.cpu_usec = usec("cpuacct.usage")?;
        into.user_usec = usec("cpuacct.usage_user")?;
        into.system_usec = usec("cpuacct.usage_sys")?;
        Ok(())
    }

    fn cpu_usec(&self, dir: &Dir) -> Result<Option<u64>, Error> {
        let text = dir.read_optional("cpuacct.usage")?;
        Ok(text
            .and_then(|text| stat::number(&text))
            .map(|ns| ns / 1000))
    }

    fn usage_memory(&self, dir: &Dir, into: &mut Usage) -> Result<(), Error> {
        into.memory_current = stat::number(&dir.read("memory.usage_in_bytes")?);
        into.memory_peak = stat::number(&dir.read("memory.max_usage_in_bytes")?);
        into.oom_kills = self.oom_kills(dir)?;
        Ok(())
    }

    fn oom_kills(&self, dir: &Dir) -> Result<Option<u64>, Error> {
        Ok(stat::flat(&dir.read("memory.oom_control")?, "oom_kill"))
    }

    fn memory_hits(&self, dir: &Dir) -> Result<Option<u64>, Error> {
        Ok(stat::number(&dir.read("memory.failcnt")?))
    }

    fn usage_io(&self, dir: &Dir, into: &mut Usage) -> Result<(), Error> {
        let sums = |what: &str| -> Result<Option<(u64, u64)>, Error> {
            let text = match dir.read_optional(&format!("blkio.throttle.{what}_recursive"))? {
                Some(text) => Some(text),
                None => dir.read_optional(&format!("blkio.throttle.{what}"))?,
            };
            Ok(text.map(|text| stat::blkio_sums(&text)))
        };
        let bytes = sums("io_service_bytes")?;
        let ops = sums("io_serviced")?;
        into.io_read_bytes = bytes.map(|b| b.0);
        into.io_write_bytes = bytes.map(|b| b.1);
        into.io_read_ops = ops.map(|o| o.0);
        into.io_write_ops = ops.map(|o| o.1);
        Ok(())
    }
}
