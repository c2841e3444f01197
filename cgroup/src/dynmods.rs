//! Cheap joins on hybrid hosts.

use crate::Error;
use rustix::fd::OwnedFd;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

/// Keeps the kernel's `favordynmods` on while it lives: an own, empty, named v1 hierarchy that is mounted nowhere.
///
/// Without it, moving a process into a group waits milliseconds for an RCU grace period when nothing moved lately.
/// The price is that fork and exit get a little slower on the whole host. Kernels from 6.18 on do not take it back
/// when the guard goes, only at the next boot.
#[derive(Debug)]
pub struct DynmodsGuard {
    _mount: OwnedFd,
}

impl DynmodsGuard {
    pub(crate) fn new() -> Result<Self, Error> {
        let step = |what: &'static str| {
            move |errno| {
                Error::sys(what, "an own named cgroup v1 hierarchy", errno).with_hint(
                    "joining groups is slower without favordynmods (Linux 6.0), nothing else",
                )
            }
        };
        let fs = fsopen("cgroup", FsOpenFlags::FSOPEN_CLOEXEC).map_err(step("open"))?;
        fsconfig_set_flag(&fs, "none").map_err(step("configure"))?;
        fsconfig_set_string(&fs, "name", "fastcontainer").map_err(step("name"))?;
        fsconfig_set_flag(&fs, "favordynmods").map_err(step("set favordynmods of"))?;
        fsconfig_create(&fs).map_err(step("create"))?;
        let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
            .map_err(step("mount"))?;
        Ok(Self { _mount: mount })
    }
}
