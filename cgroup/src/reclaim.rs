//! Giving a group's memory back while it keeps existing.

use crate::Error;
use crate::group::Group;
use crate::hierarchy::Controller;
use crate::stat;
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

    /// Writes at most `most` bytes of its anonymous memory to swap (`memory.reclaim`). Its page cache stays: on a host that
    /// shares files between groups, that is other groups' too. How much is anonymous then, None where the kernel cannot do
    /// that (cgroup v1, or before 6.11) or nothing was to be done.
    ///
    /// Blocks for as long as the swap device takes.
    pub fn reclaim_anonymous(&self, most: u64) -> Result<Option<u64>, Error> {
        let Some(dir) = self
            .slot(Controller::Memory)
            .filter(|(root, _)| root.v2)
            .map(|(_, dir)| dir)
        else {
            return Ok(None);
        };
        let anonymous = || -> Result<u64, Error> {
            Ok(stat::flat(&dir.read("memory.stat")?, "anon").unwrap_or(0))
        };
        let bytes = anonymous()?.min(most);
        if bytes == 0 {
            return Ok(None);
        }
        for word in ANONYMOUS {
            match dir.write_raw("memory.reclaim", &format!("{bytes} {word}")) {
                // EAGAIN: less than asked was reclaimed.
                Ok(()) | Err(Errno::AGAIN) => return anonymous().map(Some),
                // This kernel does not know the word.
                Err(Errno::INVAL) => {}
                // Before 5.19.
                Err(Errno::NOENT) => return Ok(None),
                Err(e) => return Err(dir.error(&format!("write {bytes} to"), "memory.reclaim", e)),
            }
        }
        Ok(None)
    }
}
