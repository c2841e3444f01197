//! Detached mounts: their attributes, their id mapping, and how they get into the tree.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use shim::protocol::{IdMap, MAP_IDS, Mount};

use crate::host::DEV;
use crate::idmap::UserNamespaces;
use crate::report::{Done, Step};
use crate::root::Root;
use crate::sys::{MountAttr, mount_setattr};

const MS_PRIVATE: u64 = 1 << 18;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// Sets what the request says on a mount that is not attached anywhere yet. This only concerns the mount: a file
/// system that does not answer cannot block it.
pub(crate) fn prepare(mount: BorrowedFd<'_>, wanted: &Mount, users: &UserNamespaces) -> Done<()> {
    let mut set = MountAttrFlags::MOUNT_ATTR_NOSUID;
    if !wanted.devices {
        set |= MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    if !wanted.exec {
        set |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
    }
    if wanted.read_only {
        set |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let mut attr = MountAttr {
        set: set.bits().into(),
        propagation: MS_PRIVATE,
        ..MountAttr::default()
    };
    let users = match wanted.idmap {
        IdMap::None => None,
        IdMap::Container => Some(&users.container),
        IdMap::Site => Some(&users.site),
    };
    if let Some(fd) = users {
        attr.set |= MOUNT_ATTR_IDMAP;
        attr.userns = u64::try_from(fd.as_raw_fd()).unwrap_or(u64::MAX);
    }
    let step = if users.is_some() {
        MAP_IDS
    } else {
        "set the attributes of"
    };
    mount_setattr(mount, &attr).step(step, &wanted.target)
}

/// Attaches a detached mount at `target`, which must exist and be reached without any symbolic link.
pub(crate) fn attach(root: &Root, mount: BorrowedFd<'_>, target: &str) -> Done<()> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // Without NOFOLLOW, which together with PATH would open a last symbolic link itself and thus let it be covered.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let at = openat2(&root.fd, target, flags, Mode::empty(), resolve)
        .step("find the mount point", target)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", &at, "", flags).step("mount", target)
}

/// A detached bind of a path that init itself made or that lies in its own /proc.
pub(crate) fn clone_of(root: &Root, path: &str) -> Done<OwnedFd> {
    open_tree(
        &root.fd,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
    .step("bind", path)
}

/// Makes a mount read-only.
pub(crate) fn set_read_only(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    let set = MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into();
    mount_setattr(
        mount,
        &MountAttr {
            set,
            ..MountAttr::default()
        },
    )
}

/// Forbids to execute what lies on a mount.
pub(crate) fn set_no_exec(mount: &OwnedFd) -> Result<(), Errno> {
    let set = MountAttrFlags::MOUNT_ATTR_NOEXEC.bits().into();
    mount_setattr(
        mount.as_fd(),
        &MountAttr {
            set,
            ..MountAttr::default()
        },
    )
}

/// Shows the spawner's device directory as `dev`.
pub(crate) fn attach_dev(root: &Root) -> Done<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let dev = open_tree(CWD, DEV, flags).step("bind", "dev")?;
    // The spawner's own mount is nosuid and noexec already.
    set_read_only(dev.as_fd()).step("make read-only", "dev")?;
    move_mount(
        &dev,
        "",
        &root.fd,
        "dev",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .step("mount", "dev")
}
