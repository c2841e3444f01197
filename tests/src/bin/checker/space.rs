//! Disk space: using it up, and trying not to be counted.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;

use crate::sys::{self, Arg};

const FILE: &str = "/site/fill";
const BLOCK: usize = 1 << 10;
const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;
const FS_IOC_SETFLAGS: u64 = 0x4008_6602;
/// What every file of ext4 has, and all that it would have without a project.
const EXTENTS: u32 = 0x8_0000;

/// Appends so many KiB to a file: how many bytes it got, and the errno that ended it.
pub(crate) fn fill(kib: usize) -> String {
    let attempt = || -> Result<usize, (usize, std::io::Error)> {
        let mut options = OpenOptions::new();
        let mut file = options
            .append(true)
            .create(true)
            .open(FILE)
            .map_err(|e| (0, e))?;
        let mut written = 0;
        // Large pieces first; what does not fit any more is tried in blocks, and those of small file systems.
        for piece in [64 << 10, 4 << 10, BLOCK] {
            let data = vec![b'x'; piece];
            while written + piece <= kib << 10 {
                match file.write(&data) {
                    Ok(length) => written += length,
                    Err(error) if piece == BLOCK => return Err((written, error)),
                    Err(_) => break,
                }
            }
        }
        file.sync_all().map_err(|e| (written, e))?;
        Ok(written)
    };
    match attempt() {
        Ok(written) => format!("{written} 0"),
        Err((written, error)) => format!("{written} {}", error.raw_os_error().unwrap_or(-1)),
    }
}

/// Gives all of that back.
pub(crate) fn empty() -> String {
    fs::remove_file(FILE).map_or_else(|error| error.to_string(), |()| "empty".to_owned())
}

/// Ways out of a project: to none, to another, and to not handing it down any more.
pub(crate) fn escape(path: &str) -> String {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return error.to_string(),
    };
    let attempt = |request: u64, words: &[u32]| {
        let memory: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let fd = Arg::N(file.as_raw_fd() as u64);
        let result = sys::call(libc::SYS_ioctl, &[fd, Arg::N(request), Arg::M(&memory)]);
        result.err().unwrap_or(0).to_string()
    };
    [
        attempt(FS_IOC_FSSETXATTR, &[0; 7]),
        attempt(FS_IOC_FSSETXATTR, &[0, 0, 0, 77, 0, 0, 0]),
        attempt(FS_IOC_SETFLAGS, &[EXTENTS, 0]),
    ]
    .join(" ")
}
