//! Using up what can be counted, to the last piece.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::sys::{self, Arg, End};

const PAGE: usize = 4096;
const PIECE: usize = 64 << 10;
const CACHED: &str = "/site/cached";

/// Takes up to so many megabytes, page by page, in a child: how many pages it had when it ended, and how that was.
pub(crate) fn pages(megabytes: usize) -> std::io::Result<String> {
    // Each page is told when it is there: of the one for which it was killed nobody hears.
    let told = File::from(memfd_create("pages", MemfdFlags::CLOEXEC)?);
    told.write_all_at(&0u64.to_ne_bytes(), 0)?;
    let end = sys::in_child(|| {
        // One page at a time is the point.
        let alone = [libc::PR_SET_THP_DISABLE as u64, 1, 0, 0, 0].map(Arg::N);
        if sys::call(libc::SYS_prctl, &alone).is_err() {
            return 2;
        }
        let mut memory: Vec<u8> = Vec::with_capacity(megabytes << 20);
        for page in 1..=(megabytes << 20) / PAGE {
            memory.resize(page * PAGE, 1);
            std::hint::black_box(&mut memory);
            if told.write_all_at(&(page as u64).to_ne_bytes(), 0).is_err() {
                return 3;
            }
        }
        0
    })?;
    let mut count = [0; 8];
    told.read_exact_at(&mut count, 0)?;
    let count = u64::from_ne_bytes(count);
    Ok(match end {
        End::Code(code) => format!("{count} code {code}"),
        End::Signal(signal) => format!("{count} signal {signal}"),
    })
}

/// Appends to a file until it has so many KiB, all of them on the disk; see [`resident`].
pub(crate) fn cache(kib: usize) -> std::io::Result<usize> {
    let mut file = File::options().append(true).create(true).open(CACHED)?;
    let there = usize::try_from(file.metadata()?.len()).map_err(std::io::Error::other)?;
    for _ in there / PIECE..(kib << 10) / PIECE {
        file.write_all(&[b'x'; PIECE])?;
    }
    file.sync_all()?;
    // Whatever has been dropped comes back, as far as it may.
    let mut file = File::open(CACHED)?;
    while file.read(&mut [0; PIECE])? > 0 {}
    resident()
}

/// Pages of that file that are in memory.
pub(crate) fn resident() -> std::io::Result<usize> {
    let file = File::open(CACHED)?;
    let length = usize::try_from(file.metadata()?.len()).map_err(std::io::Error::other)?;
    sys::resident(file.as_raw_fd(), length).map_err(std::io::Error::from_raw_os_error)
}

/// Opens files until that fails: how many this process has then, those that it had before among them, and the errno.
pub(crate) fn files() -> std::io::Result<String> {
    // The directory itself is open while it is read.
    let before = fs::read_dir("/proc/self/fd")?.count() - 1;
    let mut open = Vec::new();
    let errno = loop {
        match File::open("/dev/null") {
            Ok(file) => open.push(file),
            Err(error) => break error.raw_os_error().unwrap_or(0),
        }
    };
    Ok(format!("{} {errno}", before + open.len()))
}
