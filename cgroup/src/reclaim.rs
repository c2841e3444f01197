//! Giving a group's memory back while it keeps existing.

use crate::Error;
use crate::group::Group;
use crate::hierarchy::Controller;
use crate::stat;
use rustix::io::Errno;

/// Asks for anonymous memory alone, in the words of newer kernels and of those since 6.11.
const ANONYMOUS: [&str; 2] = ["swappiness=max", "swappiness=200"];

impl Group {
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
