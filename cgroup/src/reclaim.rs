//! Giving a group's memory back while it keeps existing.

use crate::Error;
use crate::dir::Dir;
use crate::group::Group;
use crate::hierarchy::Controller;
use crate::{stat, v1};
use rustix::io::Errno;

/// Asks for anonymous memory alone, in the words of newer kernels and of those since 6.11.
const ANONYMOUS: [&str; 2] = ["swappiness=max", "swappiness=200"];

impl Group {
    /// Bytes of memory that it has now, cache included, and bytes that it has in swap; those are 0 where the kernel does
    /// not count them.
    pub fn memory_and_swap(&self) -> Result<(u64, u64), Error> {
        let Some((root, dir)) = self.slot(Controller::Memory) else {
            return Ok((0, 0));
        };
        let [memory, swap] = match root.v2 {
            true => ["memory.current", "memory.swap.current"],
            false => ["memory.usage_in_bytes", "memory.memsw.usage_in_bytes"],
        };
        let memory = stat::number(&dir.read(memory)?).unwrap_or(0);
        let swap = dir.read_optional(swap)?;
        let swap = swap.and_then(|text| stat::number(&text)).unwrap_or(0);
        // v1 counts the sum of both.
        let swap = if root.v2 {
            swap
        } else {
            swap.saturating_sub(memory)
        };
        Ok((memory, swap))
    }

    /// Bytes of anonymous memory that it has now; 0 where the kernel does not count it.
    pub fn anonymous(&self) -> Result<u64, Error> {
        Ok(self.shares()?.0)
    }

    /// Anonymous memory, and page cache that [`Self::reclaim_anonymous`] may take with it.
    fn shares(&self) -> Result<(u64, u64), Error> {
        let Some((root, dir)) = self.slot(Controller::Memory) else {
            return Ok((0, 0));
        };
        let text = dir.read("memory.stat")?;
        let [anonymous, cold, mapped] = match root.v2 {
            true => ["anon", "inactive_file", "file_mapped"],
            false => ["total_rss", "total_inactive_file", "total_mapped_file"],
        }
        .map(|key| stat::flat(&text, key).unwrap_or(0));
        Ok((anonymous, if mapped < cold / 8 { cold } else { 0 }))
    }

    /// Writes about as much as `most` bytes of its anonymous memory to swap, that which processes share included. Page cache
    /// stays: on a host that shares files between groups, that is other groups' too. But the kernel takes cold page cache
    /// first, whatever it is told (`cache_trim_mode`); how much memory is left to be taken counts that too, unless much is mapped.
    /// None where the kernel cannot be asked (cgroup v2 before Linux 6.11) or nothing was to be done.
    ///
    /// Blocks for as long as the swap device takes. On cgroup v1 the group has a lower limit for a moment: nobody else may
    /// write limits meanwhile, and its processes should be frozen.
    pub fn reclaim_anonymous(&self, most: u64) -> Result<Option<u64>, Error> {
        let Some((root, dir)) = self.slot(Controller::Memory) else {
            return Ok(None);
        };
        let bytes = self.anonymous()?.min(most);
        if bytes == 0 {
            return Ok(None);
        }
        let able = match root.v2 {
            true => ask(dir, bytes)?,
            false => v1::squeeze(dir, bytes).map(|()| true)?,
        };
        let left = || self.shares().map(|(anonymous, cold)| anonymous + cold);
        able.then(left).transpose()
    }

    /// Puts right what a [`Self::reclaim_anonymous`] that did not come to its end, because its process was killed, has left.
    pub fn settle(&self) -> Result<(), Error> {
        match self.slot(Controller::Memory) {
            Some((root, dir)) if !root.v2 => v1::release(dir),
            _ => Ok(()),
        }
    }
}

/// Whether this kernel could be asked.
fn ask(dir: &Dir, bytes: u64) -> Result<bool, Error> {
    for word in ANONYMOUS {
        match dir.write_raw("memory.reclaim", &format!("{bytes} {word}")) {
            // EAGAIN: less than asked was reclaimed.
            Ok(()) | Err(Errno::AGAIN) => return Ok(true),
            // This kernel does not know the word.
            Err(Errno::INVAL) => {}
            // Before 5.19.
            Err(Errno::NOENT) => return Ok(false),
            Err(e) => return Err(dir.error(&format!("write {bytes} to"), "memory.reclaim", e)),
        }
    }
    Ok(false)
}
