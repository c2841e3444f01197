//! The container's file system tree, built from nothing before any code of the tenant runs.
//!
//! The root is a small tmpfs of the container. Below it lie the detached mounts of the request, the container's own
//! /proc, the shared /dev, and the writable directories, each a bind of a part of the tmpfs, since the root itself
//! becomes read-only. All namespaces but the user namespace (and the cgroup namespace of one made ahead) belong to the host's user namespace, so that not even a
//! process with all capabilities of the container's user namespace could change any of these mounts.
//!
//! Things that are shown somewhere inside a mounted template lie in the tmpfs below `dev`, where the shared /dev
//! hides them in the end.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, Uid, chownat, mkdirat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_string, fspick};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use shim::protocol::{Ids, Start};

use crate::fds::Fds;
use crate::files::{self, Layout};
use crate::host::Host;
use crate::idmap::UserNamespaces;
use crate::report::{Done, Step};
use crate::{mounts, procfs, sys};

/// Where sysfs is.
const SYS: &str = "sys";

/// A root under construction.
pub(crate) struct Root {
    /// The root directory of the tmpfs.
    pub(crate) fd: OwnedFd,
    /// Whom its files belong to.
    pub(crate) ids: Ids,
}

/// What is the same for every container: a root with its /proc, already this process's own. Everything in it belongs to
/// the host's root.
pub(crate) struct Bare {
    root: OwnedFd,
    /// The shared /dev, attached last.
    dev: OwnedFd,
    /// The shared sysfs, still where the spawner has it.
    sys: OwnedFd,
}

impl Bare {
    /// Builds it and makes it this process's root.
    pub(crate) fn build(host: &Host) -> Done<Self> {
        let (dev, sys) = (mounts::dev()?, mounts::sys()?);
        let root = Root {
            fd: mounts::attach_tmpfs()?,
            ids: Ids {
                base: 0,
                uid: 0,
                gid: 0,
                direct: true,
            },
        };
        enter(&root)?;
        for own in ["proc", "dev"] {
            root.directories(own)?;
        }
        files::mount_point(&root, procfs::EMPTY_DIRECTORY, true)?;
        files::mount_point(&root, procfs::EMPTY_FILE, false)?;
        // Binds made while the root is read-only are read-only.
        mounts::set_read_only(root.fd.as_fd(), true).step("make read-only", "/")?;
        procfs::mount_proc(&root, host)?;
        mounts::set_read_only(root.fd.as_fd(), false).step("make writable", "/")?;
        Ok(Self {
            root: root.fd,
            dev,
            sys,
        })
    }

    /// Makes the places in it that the request names. None of it holds anything yet, nor leads anywhere.
    pub(crate) fn furnish(self, start: &Start) -> Done<Furnished> {
        limit_tmpfs(&self.root, start)?;
        let root = Root {
            fd: self.root,
            ids: start.program.ids,
        };
        for path in [".", procfs::EMPTY_DIRECTORY, procfs::EMPTY_FILE] {
            root.own(path, root.ids.base, root.ids.base)?;
        }
        let layout = Layout::new(start);
        root.as_its_owner(|| {
            if start.shared_sys {
                files::mount_point(&root, SYS, true)?;
            }
            for m in &start.mounts {
                if !layout.is_covered(&m.target) {
                    files::mount_point(&root, &m.target, m.directory)?;
                }
            }
            files::writable(&root, &layout)
        })?;
        Ok(Furnished {
            root,
            dev: self.dev,
            sys: self.sys,
            layout,
        })
    }
}

/// A root with all its places.
pub(crate) struct Furnished {
    root: Root,
    dev: OwnedFd,
    sys: OwnedFd,
    layout: Layout,
}

impl Furnished {
    /// Puts everything in its place.
    pub(crate) fn finish(
        self,
        start: &Start,
        fds: &mut Fds,
        users: &UserNamespaces,
        host: &Host,
    ) -> Done<()> {
        self.root.as_its_owner(|| {
            fill(&self.root, &self.layout, start, fds, users)?;
            if start.shared_sys {
                mounts::attach(&self.root, self.sys.as_fd(), SYS)?;
            }
            if start.shared_sys || start.mounts.iter().any(|m| m.target == SYS) {
                procfs::mask_sys(host)?;
            }
            mounts::attach(&self.root, self.dev.as_fd(), "dev")?;
            fds.mounts.clear();
            Ok(())
        })
    }
}

fn fill(
    root: &Root,
    layout: &Layout,
    start: &Start,
    fds: &Fds,
    users: &UserNamespaces,
) -> Done<()> {
    files::generated(root, layout, start)?;
    for (name, to) in &start.symlinks {
        if let Some((parent, _)) = name.rsplit_once('/') {
            root.directories(parent)?;
        }
        symlinkat(to, &root.fd, name).step("make the link", name)?;
    }
    // Binds made before the root turns read-only are writable, those made after it are not.
    let writable = files::bind_writable(root, layout)?;
    mounts::set_read_only(root.fd.as_fd(), true).step("make read-only", "/")?;
    let (covered, own): (Vec<_>, Vec<_>) = writable.into_iter().partition(|w| w.covered);
    for w in &own {
        mounts::attach(root, w.mount.as_fd(), &w.path)?;
    }
    for (m, fd) in start.mounts.iter().zip(&fds.mounts) {
        let fd = fd
            .as_ref()
            .ok_or(Errno::BADF)
            .step("use the mount", &m.target)?;
        mounts::prepare(fd.as_fd(), m, users)?;
        mounts::attach(root, fd.as_fd(), &m.target)?;
    }
    for w in &covered {
        mounts::attach(root, w.mount.as_fd(), &w.path)?;
    }
    files::bind_generated(root, layout, start)
}

/// Changes whom new files belong to.
fn be_on_files(id: u32) -> Done<()> {
    sys::make_files_as(id, id).step("make files as", &id.to_string())?;
    // The change has set it to whatever the host has in fs.suid_dumpable.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("become untraceable", "")
}

fn limit_tmpfs(root: &OwnedFd, start: &Start) -> Done<()> {
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    let fs = fspick(root, "", flags).step("open the file system of", "/")?;
    for (key, value) in [
        ("size", start.tmpfs_bytes.to_string()),
        ("nr_inodes", start.tmpfs_inodes.to_string()),
    ] {
        fsconfig_set_string(&fs, key, value).step("configure tmpfs", key)?;
    }
    fsconfig_reconfigure(&fs).step("limit the file system of", "/")
}

/// Makes it this process's root, and of whoever enters its mount namespace. Beneath it is the spawner's own, in which there is
/// nothing but the shared /dev and /sys. Not by pivot_root, which looks at every process of the host for whose root it would change.
fn enter(root: &Root) -> Done<()> {
    rustix::process::fchdir(&root.fd).step("enter", "the new root")?;
    rustix::process::chroot(".").step("change the root", "")
}

impl Root {
    /// Does `work` so that what it makes belongs to the container's uid 0 at once. The capabilities stay, see
    /// `idmap::keep_power`.
    fn as_its_owner(&self, work: impl FnOnce() -> Done<()>) -> Done<()> {
        be_on_files(self.ids.base)?;
        work()?;
        be_on_files(0)
    }

    /// Makes every directory of `path` that is missing, owned by the container's uid 0. Only for paths that lie in
    /// the tmpfs: nothing there is a symbolic link yet.
    pub(crate) fn directories(&self, path: &str) -> Done<()> {
        let ends = path.match_indices('/').map(|(i, _)| i).chain([path.len()]);
        for end in ends {
            self.directory(&path[..end], 0o755, self.ids.base, self.ids.base)?;
        }
        Ok(())
    }

    /// Makes one directory if it is missing; true if it was.
    pub(crate) fn directory(&self, path: &str, mode: u32, uid: u32, gid: u32) -> Done<bool> {
        match mkdirat(&self.fd, path, Mode::from_raw_mode(mode)) {
            Ok(()) if (uid, gid) == (self.ids.base, self.ids.base) => Ok(true),
            Ok(()) => self.own(path, uid, gid).map(|()| true),
            Err(Errno::EXIST) => Ok(false),
            Err(e) => Err(e).step("make the directory", path),
        }
    }

    /// Gives a new file of the tmpfs to host ids.
    pub(crate) fn own(&self, path: &str, uid: u32, gid: u32) -> Done<()> {
        chownat(
            &self.fd,
            path,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .step("change the owner of", path)
    }
}
