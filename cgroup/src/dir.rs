//! One directory of a cgroup file system, and the few file operations on it, all relative to its descriptor.

use crate::Error;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;
use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A directory and its path for messages.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: Arc<OwnedFd>,
    /// Where it is below `fd`; it is that itself without.
    below: Option<Below>,
    path: String,
}

/// A directory that is not kept open: a host with thousands of groups in six hierarchies would run out of descriptors.
#[derive(Debug)]
struct Below {
    name: String,
    /// The group it was of has been removed: what is there by this name now, if anything, is another's.
    gone: Gone,
}

/// Whether a group has been removed.
pub(crate) type Gone = Arc<AtomicBool>;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);

impl Dir {
    /// Opens a mount point.
    pub(crate) fn open_root(path: &Path) -> Result<Self, Error> {
        let shown = path.display().to_string();
        let fd = retry(|| rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty()))
            .map_err(|e| Error::sys("open", &shown, e))?;
        Ok(Self {
            fd: Arc::new(fd),
            below: None,
            path: shown,
        })
    }

    /// Opens `relative` below this directory.
    pub(crate) fn open_dir(&self, relative: &str) -> Result<Self, Errno> {
        let at = self.at(relative)?;
        let fd = retry(|| rustix::fs::openat(&self.fd, &*at, DIRECTORY, Mode::empty()))?;
        self.still()?;
        Ok(Self {
            fd: Arc::new(fd),
            below: None,
            path: self.path_of(relative),
        })
    }

    /// The directory of a group by its name below this one, not opened. Only for where nobody but this program makes and
    /// removes groups.
    pub(crate) fn below(&self, name: &str, gone: Gone) -> Self {
        Self {
            fd: Arc::clone(&self.fd),
            below: Some(Below {
                name: name.to_owned(),
                gone,
            }),
            path: self.path_of(name),
        }
    }

    /// The path of something in it, from `fd`.
    fn at<'a>(&self, relative: &'a str) -> Result<Cow<'a, str>, Errno> {
        match &self.below {
            None => Ok(relative.into()),
            Some(below) => {
                self.still()?;
                Ok(format!("{}/{relative}", below.name).into())
            }
        }
    }

    /// Fails if the group has been removed. Asked after something was opened, too: no other of its name is made before this is
    /// known, so that what was opened was its own.
    fn still(&self) -> Result<(), Errno> {
        match &self.below {
            Some(below) if below.gone.load(Ordering::Acquire) => Err(Errno::NODEV),
            _ => Ok(()),
        }
    }

    pub(crate) fn mkdir(&self, relative: &str) -> Result<(), Errno> {
        let at = self.at(relative)?;
        retry(|| rustix::fs::mkdirat(&self.fd, &*at, Mode::from_raw_mode(0o755)))
    }

    pub(crate) fn rmdir(&self, relative: &str) -> Result<(), Errno> {
        let at = self.at(relative)?;
        retry(|| rustix::fs::unlinkat(&self.fd, &*at, AtFlags::REMOVEDIR))
    }

    /// Its descriptor, if it is open.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.below.is_none().then(|| self.fd.as_fd())
    }

    /// Does something with its descriptor.
    pub(crate) fn with_fd<T>(
        &self,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match self.fd() {
            Some(fd) => work(fd),
            None => work(self.open_dir(".")?.fd.as_fd()),
        }
    }

    pub(crate) fn path_of(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    pub(crate) fn open_file(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let at = self.at(name)?;
        let fd = retry(|| rustix::fs::openat(&self.fd, &*at, flags, Mode::empty()))?;
        self.still()?;
        Ok(fd)
    }

    /// The whole file, which may be too long for one read.
    pub(crate) fn read(&self, name: &str) -> Result<String, Error> {
        let fd = self
            .open_file(name, OFlags::RDONLY)
            .map_err(|e| self.error("open", name, e))?;
        read_all(&fd).map_err(|e| self.error("read", name, e))
    }

    /// As [`Self::read`], but `None` where the kernel has no such file.
    pub(crate) fn read_optional(&self, name: &str) -> Result<Option<String>, Error> {
        match self.open_file(name, OFlags::RDONLY) {
            Ok(fd) => read_all(&fd)
                .map(Some)
                .map_err(|e| self.error("read", name, e)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(self.error("open", name, e)),
        }
    }

    /// The processes in this group, one a line; none if it has been removed.
    pub(crate) fn members(&self) -> Result<String, Error> {
        const NAME: &str = "cgroup.procs";
        let text = self
            .open_file(NAME, OFlags::RDONLY)
            .and_then(|fd| read_all(&fd));
        match text {
            Err(Errno::NOENT | Errno::NODEV) => Ok(String::new()),
            other => other.map_err(|e| self.error("read", NAME, e)),
        }
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        self.write_raw(name, text)
            .map_err(|e| self.error(&format!("write {text} to"), name, e))
    }

    pub(crate) fn write_raw(&self, name: &str, text: &str) -> Result<(), Errno> {
        let fd = self.open_file(name, OFlags::WRONLY)?;
        write_fd(&fd, text)
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        let exists = rustix::fs::Access::EXISTS;
        self.at(name)
            .is_ok_and(|at| rustix::fs::accessat(&self.fd, &*at, exists, AtFlags::empty()).is_ok())
    }

    /// The names of the groups directly below.
    pub(crate) fn subdirs(&self) -> Result<Vec<String>, Error> {
        // A descriptor of its own: the read position belongs to the open file, which others may share.
        let fd = self
            .open_file(".", OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|e| self.error("open", "", e))?;
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(fd, &mut buffer);
        let mut out = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|e| self.error("list", "", e))?;
            if entry.file_type() != FileType::Directory {
                continue;
            }
            // Names that are not UTF-8 are none of ours.
            if let Ok(name) = entry.file_name().to_str()
                && name != "."
                && name != ".."
            {
                out.push(name.to_owned());
            }
        }
        Ok(out)
    }

    pub(crate) fn error(&self, action: &str, name: &str, errno: Errno) -> Error {
        Error::sys(
            action,
            if name.is_empty() {
                self.path.clone()
            } else {
                self.path_of(name)
            },
            errno,
        )
    }
}

/// Reads from the beginning to the end.
pub(crate) fn read_all(fd: &OwnedFd) -> Result<String, Errno> {
    let mut out = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        let n = retry(|| rustix::io::pread(fd, &mut buffer[..], out.len() as u64))?;
        out.extend_from_slice(buffer.get(..n).unwrap_or_default());
        // These files end a read early only where the next line does not fit, and no line is 2 kB long:
        // less than half a buffer is the end of the file, which saves the call that would say so.
        if n < buffer.len() / 2 {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Writes all of `text` with one call: kernel files take a value as a whole.
pub(crate) fn write_fd(fd: &OwnedFd, text: &str) -> Result<(), Errno> {
    match retry(|| rustix::io::pwrite(fd, text.as_bytes(), 0))? {
        n if n == text.len() => Ok(()),
        _ => Err(Errno::IO),
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
