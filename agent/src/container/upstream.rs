//! Unix sockets between a container and the servers in front of it.
//!
//! A container that listens on a Unix socket does so in a directory that the tenant can write; a web server that
//! connects to a path in there could be led anywhere by a symbolic link. So the directory lies on a small tmpfs
//! of its own (what a tenant can fill is bounded), and what the front is told is a hard link to the socket that
//! the agent makes in that tmpfs's top directory, where only root can write:
//!
//! ```text
//! sites/VHOST/socket/            tmpfs, root:front 0710
//! sites/VHOST/socket/app/        the tenant's, shown at the socket's directory inside
//! sites/VHOST/socket/upstream    hard link to the socket, verified after it was made
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, OpenTreeFlags, UnmountFlags};
use shim::protocol::Ids;

use crate::platform::Platform;

/// Where the tmpfs is.
fn directory(platform: &Platform, vhost: &str) -> PathBuf {
    platform.site_dir(vhost).join("socket")
}

/// Where the front connects to.
pub(super) fn path(platform: &Platform, vhost: &str) -> PathBuf {
    directory(platform, vhost).join("upstream")
}

/// What is linked before it is known to be a socket.
const NEW: &str = "new";

/// The longest path that fits into an address with the NUL that most programs, nginx among them, want behind it.
const SOCKET_PATH: usize = 107;

fn check_length(path: &Path) -> Result<()> {
    let length = path.as_os_str().len();
    if length > SOCKET_PATH {
        bail!(
            "nobody could connect to {}: it has {length} bytes, and the path of a socket at most {SOCKET_PATH}; listen on TCP, or give the vhost a shorter name",
            path.display()
        );
    }
    Ok(())
}

/// Makes the tmpfs; returns a detached mount of the tenant's directory.
pub(super) fn prepare(platform: &Platform, vhost: &str, ids: Ids) -> Result<OwnedFd> {
    check_length(&path(platform, vhost))?;
    let directory = directory(platform, vhost);
    remove(platform, vhost)?;
    std::fs::create_dir(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let options = c"size=64k,nr_inodes=64,mode=0710";
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("fastcontainer", &directory, "tmpfs", flags, options)
        .with_context(|| format!("cannot mount a tmpfs on {}", directory.display()))?;
    let front = platform.front_gid.map(rustix::fs::Gid::from_raw);
    rustix::fs::chownat(CWD, &directory, None, front, AtFlags::SYMLINK_NOFOLLOW)
        .context("cannot set its group")?;
    let app = directory.join("app");
    rustix::fs::mkdirat(CWD, &app, Mode::from_raw_mode(0o755))
        .context("cannot make the socket's directory")?;
    let (uid, gid) = (
        rustix::fs::Uid::from_raw(ids.host_uid()),
        rustix::fs::Gid::from_raw(ids.host_gid()),
    );
    rustix::fs::chownat(CWD, &app, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .context("cannot set its owner")?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    rustix::mount::open_tree(CWD, &app, clone)
        .context("cannot make a mount of the socket's directory")
}

/// One at a time, since requests publish as well; it takes microseconds.
static PUBLISHING: Mutex<()> = Mutex::new(());

/// Links the socket that the tenant's server has made to where the front finds it, in the place of one that it had made
/// before.
pub(super) fn publish(platform: &Platform, vhost: &str, socket: &str, ids: Ids) -> Result<()> {
    let _one_at_a_time = PUBLISHING.lock().unwrap_or_else(PoisonError::into_inner);
    let name = Path::new(socket)
        .file_name()
        .context("the socket has no name")?;
    let directory = directory(platform, vhost);
    let open = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
            .with_context(|| format!("cannot open {}", path.display()))
    };
    let (top, app) = (open(&directory)?, open(&directory.join("app"))?);
    let discard = || match rustix::fs::unlinkat(top.as_fd(), NEW, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    };
    // Without AT_SYMLINK_FOLLOW a link is linked itself, so what was linked is checked afterwards, where nobody
    // else can exchange it.
    let link = || rustix::fs::linkat(app.as_fd(), name, top.as_fd(), NEW, AtFlags::empty());
    let linked = match link() {
        // Of an agent that was killed.
        Err(Errno::EXIST) => discard().and_then(|()| link()),
        linked => linked,
    };
    linked.with_context(|| format!("cannot link the socket {socket} of {vhost}"))?;
    let status = rustix::fs::statat(top.as_fd(), NEW, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::Socket
        || status.st_uid != ids.host_uid()
    {
        discard()?;
        bail!("{socket} of {vhost} is not a socket of the site's user");
    }
    let mode = Mode::from_raw_mode(0o666);
    rustix::fs::chmodat(top.as_fd(), NEW, mode, AtFlags::empty())
        .context("cannot open the socket to the front")?;
    rustix::fs::renameat(top.as_fd(), NEW, top.as_fd(), "upstream")
        .context("cannot publish the socket")?;
    // Where both were links to the same socket, nothing was renamed.
    Ok(discard()?)
}

/// Removes everything of it; nothing there is no error.
pub(super) fn remove(platform: &Platform, vhost: &str) -> Result<()> {
    let directory = directory(platform, vhost);
    if !directory.exists() {
        return Ok(());
    }
    loop {
        match rustix::mount::unmount(&directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Not a mount point (any more).
            Err(Errno::INVAL) => break,
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot unmount {}", directory.display()));
            }
        }
    }
    std::fs::remove_dir(&directory)
        .with_context(|| format!("cannot remove {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_no_address_can_hold_is_refused() {
        let of = |name: usize| {
            PathBuf::from("/run/fastcontainer/sites")
                .join("a".repeat(name))
                .join("socket/upstream")
        };
        assert_eq!(of(66).as_os_str().len(), SOCKET_PATH);
        assert!(check_length(&of(66)).is_ok());
        assert!(check_length(&of(67)).is_err_and(|e| e.to_string().contains("108 bytes")));
    }
}
