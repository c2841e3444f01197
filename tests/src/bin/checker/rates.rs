//! How fast this container's disk is read and written, past the page cache.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

/// There before, with all its blocks: writing it changes nothing but what is in them.
const FILE: &str = "/site/direct";
const ALIGN: usize = 4096;
const READERS: usize = 8;
/// What may have been saved up while nothing was done.
const BEFORE: Duration = Duration::from_millis(300);

/// Operations of `piece` bytes per second.
pub(crate) fn operations(write: bool, piece: usize, time: Duration) -> std::io::Result<f64> {
    let mut options = OpenOptions::new();
    options.read(true).write(write).custom_flags(libc::O_DIRECT);
    let file = options.open(FILE)?;
    let pieces = file.metadata()?.len() / piece as u64;
    let mut memory = vec![7u8; piece + ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN);
    let memory = &mut memory[start..start + piece];
    let mut next = 0;
    let mut one = || {
        let at = next % pieces * piece as u64;
        next += 1;
        match write {
            true => file.write_all_at(memory, at),
            false => file.read_exact_at(memory, at),
        }
    };
    let begin = Instant::now();
    while begin.elapsed() < BEFORE {
        one()?;
    }
    let (began, mut done) = (Instant::now(), 0u32);
    while began.elapsed() < time {
        one()?;
        done += 1;
    }
    Ok(f64::from(done) / began.elapsed().as_secs_f64())
}

/// The same reads by many at once, so that the disk always has something to choose from. They have all ended when this
/// returns.
pub(crate) fn reads_at_once(piece: usize, time: Duration) -> std::io::Result<f64> {
    std::thread::scope(|scope| {
        let one = || scope.spawn(|| operations(false, piece, time));
        let all: Vec<_> = (0..READERS).map(|_| one()).collect();
        let ended = all.into_iter().map(|thread| {
            let broken = |_| Err(std::io::Error::other("a reader broke off"));
            thread.join().unwrap_or_else(broken)
        });
        ended.sum()
    })
}
