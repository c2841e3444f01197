//! The kernel's settings of a new namespace.
//!
//! The kernel keeps an entry for /proc/sys/net/ipv4 of every namespace in which somebody has looked it up, all by the same name
//! in the same directory, and compares each of them to find one: with thousands of namespaces that takes longer than to make
//! one. So these are written by a proc file system of our own, which is given up, with all its entries, after a few namespaces.

use crate::{Error, Result};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::sync::{Mutex, PoisonError};

/// Tenants own all ports of their namespace. IPv6 stays on the loopback device only: a veth gets no link-local address, sends no
/// router solicitation and hears none.
const SETTINGS: [(&str, &str); 2] = [
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv6/conf/default/disable_ipv6", "1"),
];
/// Namespaces for each file system.
const FOR: u32 = 64;

/// A proc file system's sys/net, and for how many namespaces it was used.
struct Own {
    net: OwnedFd,
    used: u32,
}

static OWN: Mutex<Option<Own>> = Mutex::new(None);

/// Writes them in the namespace that the calling thread is in.
pub(crate) fn write() -> Result<()> {
    let mut kept = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut own = match kept.take() {
        Some(own) if own.used < FOR => own,
        _ => Own {
            net: open()?,
            used: 0,
        },
    };
    own.used += 1;
    for (path, value) in SETTINGS {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let written = rustix::fs::openat(&own.net, path, flags, Mode::empty())
            .and_then(|file| rustix::io::write(&file, value.as_bytes()));
        match written {
            // A kernel without IPv6 has nothing to switch off.
            Err(Errno::NOENT) if path.starts_with("ipv6/") => {}
            other => {
                let path = format!("/proc/sys/net/{path}");
                other.map_err(|source| Error::os("write", path, source))?;
            }
        }
    }
    *kept = Some(own);
    Ok(())
}

/// Opens sys/net of a proc file system of our own; of the host's where the kernel makes only one for each pid namespace (before
/// Linux 5.8).
fn open() -> Result<OwnedFd> {
    let failed = |step| move |source: Errno| Error::os(step, "proc", source);
    let context =
        rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("fsopen"))?;
    rustix::mount::fsconfig_create(&context).map_err(failed("fsconfig create"))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(failed("fsmount"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(mount.as_fd(), "sys/net", flags, Mode::empty())
        .map_err(|source| Error::os("open", "/proc/sys/net", source))
}
