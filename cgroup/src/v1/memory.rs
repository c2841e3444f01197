//! v1's memory limit, and swap as what memory and swap together may have beyond it.

use crate::Error;
use crate::convert::{is_v1_memory_max, round_to_page};
use crate::hierarchy::Controller;
use crate::limits::{Limits, Setting};
use crate::plan::{self, At, Undo, Write, parsed};
use crate::stat;
use rustix::param::page_size;

pub(super) const LIMIT: &str = "memory.limit_in_bytes";
pub(super) const MEMSW: &str = "memory.memsw.limit_in_bytes";
/// Buffers of TCP sockets: a quarter of the memory limit, within these bounds.
const TCP: &str = "memory.kmem.tcp.limit_in_bytes";
const TCP_LEAST: u64 = 4 << 20;
const TCP_MOST: u64 = 64 << 20;

pub(super) fn memory_bytes(text: &str) -> Option<Setting<u64>> {
    let bytes = stat::number(text)?;
    Some(if is_v1_memory_max(bytes, page_size() as u64) {
        Setting::Max
    } else {
        Setting::To(bytes)
    })
}

/// As v1 wants it: -1 lifts.
fn or_minus_one(setting: Setting<u64>) -> String {
    setting
        .value()
        .map_or_else(|| "-1".to_owned(), |v| v.to_string())
}

pub(super) fn plan<'a>(
    at: At<'a>,
    want: &mut Limits,
    out: &mut Vec<Write<'a>>,
) -> Result<(), Error> {
    for (limit, setting) in [
        ("memory.high", want.memory_high),
        ("memory.min", want.memory_min),
    ] {
        if let Setting::To(1..) = setting {
            return Err(Error::Unsupported {
                group: at.group.to_owned(),
                limit,
                controller: Controller::Memory,
                why: "cgroup v1 has nothing like it (its soft limit is another thing); leave it out, or boot with \
                      systemd.unified_cgroup_hierarchy=1"
                    .into(),
            });
        }
    }
    let page = page_size() as u64;
    want.memory_max = want.memory_max.map(|bytes| round_to_page(bytes, page));
    want.swap_max = want.swap_max.map(|bytes| round_to_page(bytes, page));
    if want.memory_max.is_keep() && want.swap_max.is_keep() {
        return Ok(());
    }
    let (old, old_sum) = match at.new {
        true => (Setting::Max, None),
        false => (
            parsed(at.dir, LIMIT, memory_bytes)?,
            at.dir
                .read_optional(MEMSW)?
                .and_then(|text| memory_bytes(&text)),
        ),
    };
    let new = if want.memory_max.is_keep() {
        old
    } else {
        want.memory_max
    };
    let sum = new_sum(at.group, old, new, old_sum, want.swap_max)?;
    if let (Setting::To(new), false) = (new, want.memory_max.is_keep() || at.new) {
        check_room(at, new)?;
    }
    let limit = (!want.memory_max.is_keep()).then(|| Write {
        dir: at.dir,
        limit: "memory.max",
        file: LIMIT,
        text: or_minus_one(new),
        undo: Undo::FirstLine,
    });
    let sum_write = sum.map(|sum| Write {
        dir: at.dir,
        limit: "memory.swap.max",
        file: MEMSW,
        text: or_minus_one(sum),
        undo: Undo::FirstLine,
    });
    if !want.memory_max.is_keep() && at.dir.exists(TCP) {
        // v1 counts socket buffers apart from memory, and not at all where this is not set.
        out.push(Write {
            dir: at.dir,
            limit: "memory.kmem.tcp.limit",
            file: TCP,
            text: or_minus_one(
                new.map(|bytes| round_to_page((bytes / 4).clamp(TCP_LEAST, TCP_MOST), page)),
            ),
            undo: Undo::FirstLine,
        });
    }
    // The kernel wants memory <= memory + swap at every moment.
    if above(new, old_sum.unwrap_or(Setting::Max)) {
        out.extend(sum_write.into_iter().chain(limit));
    } else {
        out.extend(limit.into_iter().chain(sum_write));
    }
    Ok(())
}

fn above(a: Setting<u64>, b: Setting<u64>) -> bool {
    match (a, b) {
        (_, Setting::Max) => false,
        (Setting::Max, _) => true,
        (Setting::To(a), Setting::To(b)) => a > b,
        _ => false,
    }
}

/// The new limit of memory and swap together, if it has to be written; a swap limit of before is kept.
fn new_sum(
    group: &str,
    old: Setting<u64>,
    new: Setting<u64>,
    old_sum: Option<Setting<u64>>,
    swap: Setting<u64>,
) -> Result<Option<Setting<u64>>, Error> {
    let swap = match (swap, old, old_sum) {
        (Setting::Keep, Setting::To(old), Some(Setting::To(sum))) => {
            Setting::To(sum.saturating_sub(old))
        }
        (Setting::Keep, _, _) => return Ok(None),
        (asked, _, _) => asked,
    };
    match (swap, new) {
        (Setting::To(swap), Setting::To(memory)) => Ok(Some(Setting::To(memory.saturating_add(swap)))),
        (Setting::To(swap), _) => Err(Error::Refused {
            group: group.to_owned(),
            limit: "memory.swap.max",
            value: crate::convert::human_bytes(swap),
            why: "cgroup v1 limits memory and swap together, so a swap limit needs memory.max too; set both or lift both"
                .into(),
        }),
        _ => Ok(Some(Setting::Max)),
    }
}

/// v1 reclaims by itself and answers EBUSY; asking before gives the figure and spares the work.
fn check_room(at: At<'_>, new: u64) -> Result<(), Error> {
    let current = parsed(at.dir, "memory.usage_in_bytes", stat::number)?;
    if new >= current {
        return Ok(());
    }
    let text = at.dir.read("memory.stat")?;
    let cache = ["total_inactive_file", "total_active_file"];
    let cache = cache
        .into_iter()
        .filter_map(|key| stat::flat(&text, key))
        .fold(0, u64::saturating_add);
    plan::check_in_use(at.group, new, current, cache)
}
