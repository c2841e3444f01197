//! The container's own /proc, and what of it and of /sys is hidden or read-only.
//!
//! All of it belongs to the host's uid 0, which no id of the container maps to; hiding is the second fence.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsmount, fsopen,
    mount_bind, move_mount,
};

use crate::host::{Host, Masked};
use crate::mounts;
use crate::report::{Done, Step};
use crate::root::Root;

/// Mounts proc of this pid namespace at `proc` of what is this process's root.
pub(crate) fn mount_proc(root: &Root, host: &Host) -> Done<()> {
    let fs = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).step("open a file system", "proc")?;
    fsconfig_create(&fs).step("create a file system", "proc")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).step("mount", "proc")?;
    move_mount(
        &mount,
        "",
        &root.fd,
        "proc",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .step("attach", "proc")?;
    for entry in &host.proc_read_only {
        let path = format!("proc/{}", entry.path);
        let bind = mounts::clone_of(root, &path)?;
        mounts::set_read_only(bind.as_fd(), true).step("make read-only", &path)?;
        move_mount(
            &bind,
            "",
            &root.fd,
            &path,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .step("mount", &path)?;
    }
    mask("proc", &host.proc_masked)
}

/// Hides parts of the sysfs.
pub(crate) fn mask_sys(host: &Host) -> Done<()> {
    mask("sys", &host.sys_masked)
}

/// Shows an empty directory or file over each entry. Both lie in the (read-only) root. These paths are the kernel's own and
/// lead through no symbolic link, so that one call with paths does, which costs half of what detached mounts do.
fn mask(below: &str, entries: &[Masked]) -> Done<()> {
    for entry in entries {
        let path = format!("/{below}/{}", entry.path);
        let empty = if entry.directory {
            EMPTY_DIRECTORY
        } else {
            EMPTY_FILE
        };
        match mount_bind(format!("/{empty}"), &path) {
            // It was there when the spawner looked (a module may have been unloaded since).
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e).step("hide", &path),
        }
    }
    Ok(())
}

/// Empty directory of the root's hidden part.
pub(crate) const EMPTY_DIRECTORY: &str = "dev/none";
/// Empty file of the root's hidden part.
pub(crate) const EMPTY_FILE: &str = "dev/nothing";
