//! Detached mounts: their attributes, their id mapping, and how they get into the tree.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use shim::protocol::{IdMap, MAP_IDS, Mount};

use crate::host::{DEV, SYS};
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

/// Makes a mount read-only or writable; not what is mounted below it.
pub(crate) fn set_read_only(mount: BorrowedFd<'_>, yes: bool) -> Result<(), Errno> {
    let flag = MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into();
    let (set, clear) = if yes { (flag, 0) } else { (0, flag) };
    mount_setattr(
        mount,
        &MountAttr {
            set,
            clear,
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

/// A detached bind of the spawner's device directory, read-only.
pub(crate) fn dev() -> Done<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let dev = open_tree(CWD, DEV, flags).step("bind", "dev")?;
    // The spawner's own mount is nosuid and noexec already.
    set_read_only(dev.as_fd(), true).step("make read-only", "dev")?;
    Ok(dev)
}

/// The spawner's sysfs, as this mount namespace has it: whoever takes it leaves nothing there.
pub(crate) fn sys() -> Done<OwnedFd> {
    open_tree(CWD, SYS, OpenTreeFlags::OPEN_TREE_CLOEXEC).step("open", "sys")
}

/// A new tmpfs over the spawner's root. Its limits come when the request is known.
pub(crate) fn attach_tmpfs() -> Done<OwnedFd> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).step("open a file system", "tmpfs")?;
    for (key, value) in [("size", "1m"), ("nr_inodes", "64"), ("mode", "0755")] {
        fsconfig_set_string(&fs, key, value).step("configure tmpfs", key)?;
    }
    fsconfig_create(&fs).step("create a file system", "tmpfs")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).step("mount", "tmpfs")?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&mount, "", CWD, "/", flags).step("attach", "the root")?;
    Ok(mount)
}
