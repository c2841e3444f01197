//! Gives everything below a directory to a project.
//!
//! The tree may belong to a tenant and change meanwhile. A directory is labelled before it is read, and from then on the
//! kernel lets nothing into it that has another project: new files inherit, moved and linked ones are refused (EXDEV).
//! So whatever is not labelled yet is below a directory that has still to be read.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use super::kernel;

/// Trees that may be walked at the same time: a walk takes as long as their owner likes.
const MOST_WALKS: usize = 8;

/// How many are.
#[derive(Debug, Default)]
pub(super) struct Walks(AtomicUsize);

/// One of them.
pub(super) struct Place<'a>(&'a Walks);

impl Walks {
    pub(super) fn take(&self) -> Result<Place<'_>> {
        let others = self.0.fetch_add(1, Ordering::Relaxed);
        let place = Place(self);
        if others >= MOST_WALKS {
            bail!("the documents of {MOST_WALKS} others are being gone through; try again later");
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A directory costs a descriptor for as long as what is below it is walked.
const DEEPEST: usize = 256;

/// Who else a project belongs to, if anybody.
pub(super) type Others<'a> = &'a dyn Fn(u32) -> Option<String>;

/// What is done to a tree.
pub(super) struct Walk<'a> {
    /// Who gets its files.
    pub(super) project: u32,
    pub(super) others: Others<'a>,
    /// Told that it gets on.
    pub(super) step: &'a dyn Fn(),
    /// Makes room where the project's limit lets nothing more in, or says why not.
    pub(super) full: &'a dyn Fn() -> Result<()>,
}

/// Labels `top` and all files and directories below it, on this mount. Returns how many were not labelled before.
pub(super) fn label_all(top: BorrowedFd<'_>, walk: &Walk<'_>) -> Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(top, ".", flags, Mode::empty()).context("cannot read them")?;
    // Whoever makes files as fast as they are read does not keep us for ever.
    let most = rustix::fs::fstatvfs(&top).map_or(0, |fs| fs.f_files);
    let mut left = most
        .checked_mul(2)
        .filter(|most| *most > 0)
        .unwrap_or(u64::MAX);
    let mut new = u64::from(walk.label(&top, true)?);
    let mut open = vec![Dir::new(top)?];
    while let Some(directory) = open.last_mut() {
        let Some(entry) = directory.read() else {
            open.pop();
            continue;
        };
        let entry = entry.context("cannot list them")?;
        (walk.step)();
        left -= 1;
        if left == 0 {
            bail!("they become more all the time; stop the site first");
        }
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let about = || format!("{:?} in them", name);
        let Some((file, kind)) = open_entry(directory.fd()?, name).with_context(about)? else {
            continue;
        };
        let is_directory = kind == FileType::Directory;
        new += u64::from(walk.label(&file, is_directory).with_context(about)?);
        if is_directory {
            if open.len() == DEEPEST {
                bail!("they have directories in each other more than {DEEPEST} deep");
            }
            open.push(Dir::new(file)?);
        }
    }
    Ok(new)
}

/// A file or directory of an open directory. None: gone, another mount, or of a kind that holds no data (links, sockets,
/// pipes, devices), which is never opened.
fn open_entry(directory: BorrowedFd<'_>, name: &CStr) -> Result<Option<(OwnedFd, FileType)>> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let handle = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::openat2(directory, name, handle, Mode::empty(), resolve) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::XDEV) => return Ok(None),
        Err(errno) => return Err(errno).context("cannot open it"),
    };
    let status = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)
        .context("cannot read its type")?;
    let kind = FileType::from_raw_mode(status.stx_mode.into());
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return Ok(None);
    }
    // The same file again, now that its kind is known: no name is looked up any more.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let read = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::open(path, read, Mode::empty()) {
        Ok(file) => Ok(Some((file, kind))),
        Err(Errno::AGAIN) => bail!("somebody holds a lease on it"),
        Err(errno) => Err(errno).context("cannot read it"),
    }
}

impl Walk<'_> {
    /// Labels one file unless it is; whether it was not.
    fn label(&self, file: &OwnedFd, inherit: bool) -> Result<bool> {
        let now = kernel::label(file.as_fd()).context("cannot read its project")?;
        if let Some(other) = (self.others)(now.project) {
            bail!(
                "it is counted for the disk limit of {other}; no documents may be inside those of another site with one"
            );
        }
        if now.project == self.project && (now.inherited || !inherit) {
            return Ok(false);
        }
        let mut done = kernel::set_label(file.as_fd(), self.project, inherit);
        let errno = |done: &std::io::Result<()>| done.as_ref().err()?.raw_os_error();
        if matches!(errno(&done), Some(libc::EDQUOT | libc::ENOSPC)) {
            (self.full)()?;
            done = kernel::set_label(file.as_fd(), self.project, inherit);
        }
        if errno(&done) == Some(libc::EPERM) {
            bail!("it may not be changed; if it is immutable: chattr -i")
        }
        done.context("cannot set its project")?;
        Ok(true)
    }
}
