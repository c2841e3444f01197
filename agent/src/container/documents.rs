//! The site's documents: opened without following anything that a tenant could have planted, checked, and turned
//! into a detached mount.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use tokio::sync::Semaphore;

/// Threads that may wait for storage at a time, over all vhosts: what hangs is bounded, however many names are asked for.
const MOST_WAITING: usize = 256;
static WAITING: Semaphore = Semaphore::const_new(MOST_WAITING);

/// Documents, ready to be mounted.
#[derive(Debug)]
pub struct Documents {
    /// Detached mount of the directory.
    pub mount: OwnedFd,
    /// Owner of the directory on disk.
    pub uid: u32,
    /// Group of the directory on disk.
    pub gid: u32,
    /// Device number of the file system, to remember what it can do.
    pub device: u64,
}

/// Why documents cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentsError {
    /// A system call failed.
    #[error("cannot {step} {path}: {source}{hint}", path = path.display())]
    System {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The storage did not answer in time; the thread that asked still waits for it.
    #[error("the storage under {} did not answer within {:.1} s", path.display(), after.as_secs_f64())]
    Hangs {
        /// On what.
        path: PathBuf,
        /// How long it was waited for.
        after: Duration,
        /// Resolves when the storage has answered after all.
        released: tokio::sync::oneshot::Receiver<()>,
    },
}

impl DocumentsError {
    /// Whether there certainly is no such directory.
    pub fn says_absent(&self) -> bool {
        let Self::System { source, .. } = self else {
            return false;
        };
        let absent = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].map(Errno::raw_os_error);
        source
            .raw_os_error()
            .is_some_and(|errno| absent.contains(&errno))
    }
}

/// Opens documents, waiting no longer than `limit`.
///
/// Where the kernel has everything in its caches this is done at once and cannot block; else a thread of its own
/// asks the storage, so that a storage that hangs costs this one thread and nothing else.
pub async fn open(path: &Path, limit: Duration) -> Result<Documents, DocumentsError> {
    match resolve(path, ResolveFlags::CACHED, AtFlags::STATX_DONT_SYNC) {
        Err(DocumentsError::System { source, .. })
            if source.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => {}
        result => return result,
    }
    // Held by the thread, not by the asker: it is the threads that wait which are bounded.
    let Ok(place) = WAITING.try_acquire() else {
        return Err(DocumentsError::System {
            step: "open the documents",
            path: path.into(),
            source: Errno::BUSY.into(),
            hint: "; too many threads wait for storage that does not answer, this one is not tried",
        });
    };
    let (tell, told) = tokio::sync::oneshot::channel();
    let (release, released) = tokio::sync::oneshot::channel();
    let owned = path.to_owned();
    let thread = std::thread::Builder::new()
        .name("documents".into())
        .stack_size(128 * 1024)
        .spawn(move || {
            // The asker may have given up; the receiver of `release` may be gone as well.
            let _ = tell.send(resolve(&owned, ResolveFlags::empty(), AtFlags::empty()));
            drop(place);
            let _ = release.send(());
        });
    if let Err(source) = thread {
        return Err(DocumentsError::System {
            step: "start a thread to open",
            path: path.into(),
            source,
            hint: "",
        });
    }
    match tokio::time::timeout(limit, told).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) | Err(_) => Err(DocumentsError::Hangs {
            path: path.into(),
            after: limit,
            released,
        }),
    }
}

fn resolve(path: &Path, cached: ResolveFlags, sync: AtFlags) -> Result<Documents, DocumentsError> {
    let fail = |step, errno: Errno| DocumentsError::System {
        step,
        path: path.into(),
        source: errno.into(),
        hint: hint(errno),
    };
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | cached;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat2(CWD, path, flags, Mode::empty(), resolve)
        .map_err(|e| fail("open the documents", e))?;
    let wanted = StatxFlags::UID | StatxFlags::GID | StatxFlags::TYPE;
    let status = rustix::fs::statx(directory.as_fd(), "", AtFlags::EMPTY_PATH | sync, wanted)
        .map_err(|e| fail("read the owner of the documents", e))?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = rustix::mount::open_tree(directory.as_fd(), "", clone)
        .map_err(|e| fail("make a mount of the documents", e))?;
    let device = rustix::fs::makedev(status.stx_dev_major, status.stx_dev_minor);
    Ok(Documents {
        mount,
        uid: status.stx_uid,
        gid: status.stx_gid,
        device,
    })
}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::LOOP => {
            "; the path leads through a symbolic link, which is not followed: name the real directory"
        }
        Errno::NOENT => "; create the directory and give it to the site's user",
        Errno::NOTDIR => "; documents must be a directory",
        Errno::ACCESS => {
            "; the file system does not let root in (a FUSE file system needs allow_other)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    #[tokio::test]
    async fn links_are_refused_wherever_they_are() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let base = tempfile::tempdir_in("/var/tmp").unwrap();
        let real = base.path().canonicalize().unwrap().join("a/b");
        std::fs::create_dir_all(&real).unwrap();
        let top = real.parent().unwrap().parent().unwrap();
        symlink(top.join("a"), top.join("link")).unwrap();
        symlink(&real, top.join("a/last")).unwrap();
        std::fs::write(top.join("file"), "").unwrap();
        let limit = Duration::from_secs(5);
        open(&real, limit).await.unwrap();
        for (path, says) in [
            ("link/b", "symbolic link"),
            ("a/last", "symbolic link"),
            ("file", "must be a directory"),
            ("no", "create"),
        ] {
            let error = open(&top.join(path), limit).await.unwrap_err().to_string();
            assert!(error.contains(says), "{path}: {error}");
        }
    }
}
