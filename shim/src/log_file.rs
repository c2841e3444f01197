//! A log file that is rotated before it grows past its size: `current`, then `.1`, `.2` and so on, the older the
//! higher.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;

const CURRENT: &str = "current";
/// Lines are collected up to this size before they are written.
const BATCH: usize = 16 * 1024;

/// The files of one directory.
#[derive(Debug)]
pub(crate) struct LogFile {
    dir: OwnedFd,
    longest: u64,
    files: u32,
    /// Opened at the first line.
    open: Option<OwnedFd>,
    size: u64,
    pending: String,
}

impl LogFile {
    /// At most `files` files of at most `longest` bytes in `dir`.
    pub(crate) fn new(dir: OwnedFd, longest: u64, files: u32) -> Self {
        Self {
            dir,
            longest,
            files,
            open: None,
            size: 0,
            pending: String::new(),
        }
    }

    /// The directory's descriptor.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Adds a line, which must end with a line end.
    pub(crate) fn add(&mut self, line: &str) {
        self.open_current(false);
        if self.size + (self.pending.len() + line.len()) as u64 > self.longest {
            self.flush();
            self.rotate();
        }
        self.pending.push_str(line);
        if self.pending.len() >= BATCH {
            self.flush();
        }
    }

    /// Writes what was added. What cannot be written is lost: the application must not wait for a full disk.
    pub(crate) fn flush(&mut self) {
        let mut rest = self.pending.as_bytes();
        while let Some(file) = &self.open
            && !rest.is_empty()
        {
            match rustix::io::write(file, rest) {
                Ok(n) => {
                    self.size += n as u64;
                    rest = rest.get(n..).unwrap_or_default();
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.pending.clear();
    }

    fn rotate(&mut self) {
        self.open = None;
        let name = |n: u32| {
            if n == 0 {
                CURRENT.to_owned()
            } else {
                format!(".{n}")
            }
        };
        // Files beyond the count, left by a rule that kept more.
        let mut beyond = self.files;
        while unlinkat(&self.dir, name(beyond), AtFlags::empty()).is_ok() {
            beyond += 1;
        }
        for n in (1..self.files).rev() {
            let _missing = renameat(&self.dir, name(n - 1), &self.dir, name(n));
        }
        // Truncated, so that the bound holds even where the rename failed.
        self.open_current(true);
    }

    fn open_current(&mut self, empty: bool) {
        if self.open.is_some() {
            return;
        }
        let mut flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::APPEND
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        if empty {
            flags |= OFlags::TRUNC;
        }
        self.open = openat(&self.dir, CURRENT, flags, Mode::from_raw_mode(0o640)).ok();
        let size = self
            .open
            .as_ref()
            .and_then(|f| fstat(f).ok())
            .map_or(0, |s| s.st_size);
        self.size = u64::try_from(size).unwrap_or(0);
    }
}
