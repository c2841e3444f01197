//! Giving the memory of frozen processes back: to swap, which on a host made for this is compressed memory (zram). Blocks.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::maps;
use crate::sys::page_out;

/// Processes of one container that are gone through; further ones keep their memory.
const PROCESSES: usize = 1024;
/// Processes that are opened at a time.
const BATCH: usize = 64;
/// What the group is asked for at a time: whoever wakes the site may have to wait for that.
const STEP: u64 = 4 << 20;
/// This part of what there was is much.
const MUCH: u64 = 8;

/// Gives the anonymous memory of the group's processes back, for as long as `still` says so.
///
/// Shared files stay, whoever's cgroup they are charged to: `memory.reclaim` before Linux 6.11 cannot spare them, so the
/// processes' own mappings are named to the kernel. That passes over what processes share with their parents since they were
/// forked; if that is much, the kernel is asked for it by `squeeze` (see [`cgroup::Group::reclaim_anonymous`]).
pub(super) fn give_back(
    group: &cgroup::Group,
    squeeze: &dyn Fn(u64) -> Result<Option<u64>>,
    still: &dyn Fn() -> bool,
) -> Result<()> {
    let had = group.anonymous()?;
    let mut left = Left {
        text: maps::MOST,
        portions: maps::MOST_PORTIONS,
    };
    let mut pids = group.pids()?;
    pids.truncate(PROCESSES);
    'processes: for batch in pids.chunks(BATCH) {
        let open = |pid: &i32| {
            Some((
                *pid,
                pidfd_open(Pid::from_raw(*pid)?, PidfdFlags::empty()).ok()?,
            ))
        };
        let opened: Vec<(i32, OwnedFd)> = batch.iter().filter_map(open).collect();
        // Who is listed after being opened is no stranger that got the number of one who has ended.
        let members = group.pids()?;
        for (pid, process) in opened {
            if members.binary_search(&pid).is_ok() {
                of_process(pid, &process, &mut left, still)?;
            }
            if left.text == 0 || left.portions == 0 || !still() {
                break 'processes;
            }
        }
    }
    if group.anonymous()? < had / MUCH {
        return Ok(());
    }
    // As long as that takes what it may.
    let mut left = u64::MAX;
    while still()
        && let Some(now) = squeeze(STEP)?
        && now.saturating_add(STEP / 4) <= left
    {
        left = now;
    }
    Ok(())
}

/// What may still be done for one container: it decides itself how much there would be to do.
struct Left {
    /// Bytes of maps.
    text: u64,
    /// Calls of the kernel.
    portions: u32,
}

fn of_process(
    pid: i32,
    process: &OwnedFd,
    left: &mut Left,
    still: &dyn Fn() -> bool,
) -> Result<()> {
    let mut text = Vec::new();
    let outcome = File::open(format!("/proc/{pid}/maps")).and_then(|file| {
        let longest = maps::LONGEST.min(left.text);
        file.take(longest).read_to_end(&mut text)
    });
    left.text -= text.len() as u64;
    match outcome {
        Ok(_) => {}
        // It has ended: somebody has killed it.
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read the maps of process {pid}"));
        }
    }
    let text = String::from_utf8_lossy(&text);
    for portion in maps::portions(maps::anonymous(&text)) {
        let mut rest = portion.as_slice();
        while !rest.is_empty() {
            if left.portions == 0 || !still() {
                return Ok(());
            }
            left.portions -= 1;
            match page_out(process.as_fd(), rest) {
                Ok(done) => rest = after(rest, done),
                Err(error) if is_gone(&error) => return Ok(()),
                // Locked, or of a device: that stays.
                Err(error)
                    if error.raw_os_error() == Some(libc::EINVAL)
                        || error.raw_os_error() == Some(libc::ENOMEM) =>
                {
                    rest = rest.get(1..).unwrap_or_default();
                }
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("cannot give memory of process {pid} back (process_madvise)")
                    });
                }
            }
        }
    }
    Ok(())
}

fn is_gone(error: &io::Error) -> bool {
    [Some(libc::ESRCH), Some(libc::ENOENT)].contains(&error.raw_os_error())
}

/// What is left behind so many bytes; a range that was done in part is left out, and so is the first if nothing was done.
fn after(ranges: &[(usize, usize)], done: usize) -> &[(usize, usize)] {
    let mut sum = 0;
    let through = ranges.iter().take_while(|(_, length)| {
        sum += length;
        sum <= done
    });
    let through = through.count();
    ranges.get(through.max(1)..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_behind_what_was_done() {
        let ranges = [(0, 10), (20, 10), (40, 10)];
        assert_eq!(after(&ranges, 30), &[]);
        assert_eq!(after(&ranges, 20), &ranges[2..]);
        assert_eq!(after(&ranges, 10), &ranges[1..]);
        assert_eq!(after(&ranges, 15), &ranges[1..]);
        assert_eq!(after(&ranges, 0), &ranges[1..], "it always gets on");
    }
}
