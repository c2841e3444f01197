//! cgroup v2 files.

use crate::Error;
use crate::convert::{bfq_to_weight, round_to_page, weight_to_bfq};
use crate::dir::Dir;
use crate::limits::{CpuLimit, IoLimit, Limits, Setting};
use crate::plan::{self, Asked, At, Backend, Undo, Write, parsed};
use crate::stat;
use crate::usage::Usage;
use rustix::param::page_size;

pub(crate) struct V2;

const MEMORY: [&str; 4] = ["memory.max", "memory.high", "memory.min", "memory.swap.max"];

fn memory_settings(limits: &mut Limits) -> [&mut Setting<u64>; 4] {
    [
        &mut limits.memory_max,
        &mut limits.memory_high,
        &mut limits.memory_min,
        &mut limits.swap_max,
    ]
}

impl Backend for V2 {
    fn plan_cpu<'a>(
        &self,
        at: At<'a>,
        want: &mut Limits,
        out: &mut Vec<Write<'a>>,
    ) -> Result<(), Error> {
        let undo = Undo::FirstLine;
        if !want.cpu.is_keep() {
            let (text, burst) = match want.cpu {
                Setting::To(cpu) => (
                    format!("{} {}", cpu.quota_usec, cpu.period_usec),
                    cpu.burst_usec,
                ),
                _ => ("max".to_owned(), 0),
            };
            let max = Write {
                dir: at.dir,
                limit: "cpu.max",
                file: "cpu.max",
                text,
                undo,
            };
            // Kernels before 5.14 have no burst: fine as long as none is asked for.
            let old = match at.new {
                true => Some(0),
                false => match at.dir.read_optional("cpu.max.burst")? {
                    None if burst == 0 => Some(0),
                    None => None,
                    Some(text) => stat::number(&text),
                },
            };
            let file = "cpu.max.burst";
            let burst_write = Write {
                dir: at.dir,
                limit: file,
                file,
                text: burst.to_string(),
                undo,
            };
            // The kernel wants burst <= quota at every moment.
            match old {
                Some(old) if old == burst => out.push(max),
                Some(old) if old > burst => out.extend([burst_write, max]),
                _ => out.extend([max, burst_write]),
            }
        }
        if !want.cpu_idle.is_keep() {
            plan::plan_cpu_idle(at, want, out)?;
        }
        if !want.cpu_weight.is_keep() {
            let text = want
                .cpu_weight
                .value()
                .unwrap_or(crate::convert::WEIGHT_DEFAULT)
                .to_string();
            out.push(Write {
                dir: at.dir,
                limit: "cpu.weight",
                file: "cpu.weight",
                text,
                undo,
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
        let page = page_size() as u64;
        for (file, setting) in MEMORY.into_iter().zip(memory_settings(want)) {
            *setting = setting.map(|bytes| round_to_page(bytes, page));
            if file == "memory.min" && *setting == Setting::To(0) {
                *setting = Setting::Max;
            }
            let text = match *setting {
                Setting::Keep => continue,
                // No guarantee, where the others have no limit.
                Setting::Max if file == "memory.min" => "0".to_owned(),
                other => other.to_string(),
            };
            out.push(Write {
                dir: at.dir,
                limit: file,
                file,
                text,
                undo: Undo::FirstLine,
            });
        }
        match want.memory_max {
            Setting::To(new) if !at.new => make_room(at, new),
            _ => Ok(()),
        }
    }

    fn plan_io<'a>(
        &self,
        at: At<'a>,
        want: &mut Limits,
        out: &mut Vec<Write<'a>>,
    ) -> Result<(), Error> {
        for io in &want.io {
            let mut text = io.device.to_string();
            for (name, rate) in io.rates() {
                if !rate.is_keep() {
                    text.push_str(&format!(" {name}={rate}"));
                }
            }
            if text.contains('=') {
                let undo = Undo::IoMax(io.device);
                out.push(Write {
                    dir: at.dir,
                    limit: "io.max",
                    file: "io.max",
                    text,
                    undo,
                });
            }
        }
        if !want.io_weight.is_keep() {
            let weight = want
                .io_weight
                .value()
                .unwrap_or(crate::convert::WEIGHT_DEFAULT);
            // Either may be what the disk's scheduler heeds: io.weight is of the kernel's own cost model only.
            let write = |file, text| Write {
                dir: at.dir,
                limit: "io.weight",
                file,
                text,
                undo: Undo::FirstLine,
            };
            let bfq = at.dir.exists("io.bfq.weight");
            if bfq {
                out.push(write("io.bfq.weight", weight_to_bfq(weight).to_string()));
            }
            if !bfq || at.dir.exists("io.weight") {
                out.push(write("io.weight", format!("default {weight}")));
            } else {
                want.io_weight = Setting::To(bfq_to_weight(weight_to_bfq(weight)));
            }
        }
        Ok(())
    }

    fn read_cpu(&self, dir: &Dir, asked: Asked<'_>, into: &mut Limits) -> Result<(), Error> {
        if asked.any(|l| &l.cpu) {
            let (quota, period_usec) = parsed(dir, "cpu.max", stat::cpu_max)?;
            let burst = match quota {
                Setting::To(_) => dir.read_optional("cpu.max.burst")?,
                _ => None,
            };
            let burst_usec = burst.and_then(|text| stat::number(&text)).unwrap_or(0);
            into.cpu = quota.map(|quota_usec| CpuLimit {
                quota_usec,
                period_usec,
                burst_usec,
            });
        }
        if asked.any(|l| &l.cpu_weight) {
            into.cpu_weight = Setting::To(parsed(dir, "cpu.weight", stat::number)?);
        }
        plan::read_cpu_idle(dir, asked, into)?;
        Ok(())
    }

    fn read_memory(&self, dir: &Dir, asked: Asked<'_>, into: &mut Limits) -> Result<(), Error> {
        let wanted = [
            asked.any(|l| &l.memory_max),
            asked.any(|l| &l.memory_high),
            asked.any(|l| &l.memory_min),
            asked.any(|l| &l.swap_max),
        ];
        for ((file, setting), wanted) in MEMORY.into_iter().zip(memory_settings(into)).zip(wanted) {
            // Without swap accounting there is no memory.swap.max; then it is unknown, not unlimited.
            if !wanted || (asked.all() && file == "memory.swap.max" && !dir.exists(file)) {
                continue;
            }
            *setting = parsed(dir, file, stat::number_or_max)?;
            if file == "memory.min" && *setting == Setting::To(0) {
                *setting = Setting::Max;
            }
        }
        Ok(())
    }

    fn read_io(&self, dir: &Dir, asked: Asked<'_>, into: &mut Limits) -> Result<(), Error> {
        if asked.0.is_none_or(|l| !l.io.is_empty()) {
            for (device, line) in stat::device_lines(&dir.read("io.max")?) {
                if asked
                    .0
                    .is_some_and(|l| l.io.iter().all(|io| io.device != device))
                {
                    continue;
                }
                let mut io = IoLimit::of(device);
                for (name, _) in IoLimit::of(device).rates() {
                    let value = stat::pair(line, name).and_then(stat::number_or_max);
                    if let (Some(slot), Some(value)) = (io.rate_mut(name), value) {
                        *slot = value;
                    }
                }
                into.io.push(io);
            }
        }
        if asked.any(|l| &l.io_weight) {
            if let Some(text) = dir.read_optional("io.weight")? {
                into.io_weight = stat::default_weight(&text).map_or(Setting::Keep, Setting::To);
            } else if let Some(text) = dir.read_optional("io.bfq.weight")? {
                into.io_weight = stat::default_weight(&text)
                    .map_or(Setting::Keep, |w| Setting::To(bfq_to_weight(w)));
            }
        }
        Ok(())
    }

    fn file_of(&self, dir: &Dir, limit: &str) -> &'static str {
        match limit {
            "cpu.max" => "cpu.max",
            "cpu.weight" => "cpu.weight",
            "cpu.idle" => plan::CPU_IDLE,
            "pids.max" => "pids.max",
            crate::cpuset::CPUS => crate::cpuset::CPUS,
            "io.weight" if dir.exists("io.weight") => "io.weight",
            "io.weight" => "io.bfq.weight",
            other => MEMORY
                .into_iter()
                .find(|file| *file == other)
                .unwrap_or("io.max"),
        }
    }

    fn usage_cpu(&self, dir: &Dir, into: &mut Usage) -> Result<(), Error> {
        let text = dir.read("cpu.stat")?;
        into.nr_periods = stat::flat(&text, "nr_periods");
        into.nr_throttled = stat::flat(&text, "nr_throttled");
        into.throttled_usec = stat::flat(&text, "throttled_usec");
        into.cpu_usec = stat::flat(&text, "usage_usec");
        Ok(())
    }

    fn usage_cpuacct(&self, dir: &Dir, into: &mut Usage) -> Result<(), Error> {
        let text = dir.read("cpu.stat")?;
        into.cpu_usec = stat::flat(&text, "usage_usec");
        into.user_usec = stat::flat(&text, "user_usec");
        into.system_usec = stat::flat(&text, "system_usec");
        Ok(())
    }

    fn cpu_usec(&self, dir: &Dir) -> Result<Option<u64>, Error> {
        Ok(stat::flat(&dir.read("cpu.stat")?, "usage_usec"))
    }

    fn usage_memory(&self, dir: &Dir, into: &mut Usage) -> Result<(), Error> {
        into.memory_current = stat::number(&dir.read("memory.current")?);
        into.memory_peak = dir
            .read_optional("memory.peak")?
            .and_then(|text| stat::number(&text));
        into.oom_kills = self.oom_kills(dir)?;
        Ok(())
    }

    fn oom_kills(&self, dir: &Dir) -> Result<Option<u64>, Error> {
        Ok(stat::flat(&dir.read("memory.events")?, "oom_kill"))
    }

    fn memory_hits(&self, dir: &Dir) -> Result<Option<u64>, Error> {
        let text = dir.read("memory.events")?;
        let hits = ["high", "max"].map(|key| stat::flat(&text, key));
        Ok(hits.into_iter().flatten().reduce(u64::saturating_add))
    }

    fn usage_io(&self, dir: &Dir, into: &mut Usage) -> Result<(), Error> {
        let total = stat::io_stat(&dir.read("io.stat")?);
        into.io_read_bytes = Some(total.read_bytes);
        into.io_write_bytes = Some(total.write_bytes);
        into.io_read_ops = Some(total.read_ops);
        into.io_write_ops = Some(total.write_ops);
        Ok(())
    }
}

/// v2 takes any `memory.max` and kills until it fits, therefore the room is made before: cache is dropped, and what
/// cannot be dropped is a refusal.
fn make_room(at: At<'_>, new: u64) -> Result<(), Error> {
    let current = parsed(at.dir, "memory.current", stat::number)?;
    if new >= current {
        return Ok(());
    }
    let text = at.dir.read("memory.stat")?;
    let cache = ["inactive_file", "active_file", "slab_reclaimable"];
    let cache = cache
        .into_iter()
        .filter_map(|key| stat::flat(&text, key))
        .fold(0, u64::saturating_add);
    plan::check_in_use(at.group, new, current, cache)?;
    // EAGAIN says that less than asked was reclaimed, ENOENT that the kernel is older than 5.19: the figure decides.
    let _ = at
        .dir
        .write_raw("memory.reclaim", &(current - new).to_string());
    let current = parsed(at.dir, "memory.current", stat::number)?;
    plan::check_in_use(at.group, new, current, 0)
}
