//! Giving a group's anonymous memory back. cgroup v1 knows only one way to be asked for that, the limit: before a lower one is in
//! force the kernel takes back what is above it, and if it cannot, the old one stays.

use super::memory::LIMIT;
use crate::Error;
use crate::dir::Dir;
use crate::note;
use crate::plan::parsed;
use crate::stat;
use rustix::io::Errno;

const USAGE: &str = "memory.usage_in_bytes";
const SWAPPINESS: &str = "memory.swappiness";
/// Anonymous memory rather than page cache, as kernels since 5.8 know it, and those before.
const ANONYMOUS: [&str; 2] = ["200", "100"];
/// Limit and swappiness as they have to be again, noted at the group while they are otherwise.
const BEFORE: &str = "trusted.squeezed";

/// Takes about so many bytes back.
pub(crate) fn squeeze(dir: &Dir, bytes: u64) -> Result<(), Error> {
    let lower = parsed(dir, USAGE, stat::number)?.saturating_sub(bytes);
    let (limit, swappiness) = (dir.read(LIMIT)?, dir.read(SWAPPINESS)?);
    note::keep(
        dir,
        BEFORE,
        &format!("{} {}", limit.trim(), swappiness.trim()),
    )?;
    let lowered = ANONYMOUS
        .into_iter()
        .map(|word| dir.write(SWAPPINESS, word))
        .find(Result::is_ok)
        .map_or(Ok(()), |_| dir.write_raw(LIMIT, &lower.to_string()));
    release(dir)?;
    match lowered {
        // EBUSY: not all of it could be had.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(e) => Err(dir.error(&format!("write {lower} to"), LIMIT, e)),
    }
}

/// Limit and swappiness are what they were before.
pub(crate) fn release(dir: &Dir) -> Result<(), Error> {
    let Some(before) = note::kept(dir, BEFORE)? else {
        return Ok(());
    };
    if let Some((limit, swappiness)) = before.split_once(' ') {
        dir.write(LIMIT, limit)?;
        dir.write(SWAPPINESS, swappiness)?;
    }
    note::forget(dir, BEFORE)
}
