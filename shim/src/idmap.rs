//! User namespaces: the container's own, and the one that shows a mount only to the site's own ids.
//!
//! A user namespace comes from a helper process that lives only until its namespace has been opened. The agent keeps it as
//! a descriptor for the next start of the same site, since nothing in it changes.
//!
//! The kernel counts what processes of a user namespace use (inotify instances and watches, pending signals) against its
//! owner as well, which is whoever made it. Made by root, all containers together would have as much as root alone,
//! and one of them could leave nothing to the host. So each belongs to the container's own uid 0, as which nothing runs
//! outside it.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, Uid, openat};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitiesSecureBits, set_capabilities_secure_bits, set_thread_res_uid};
use shim::protocol::Ids;

use crate::clone::Idle;
use crate::report::{Done, Step};

/// The two user namespaces of a site.
#[derive(Debug)]
pub(crate) struct UserNamespaces {
    /// What its processes live in.
    pub(crate) container: OwnedFd,
    /// Maps the site's on-disk uid and gid to the site's host ids, and nothing else.
    pub(crate) site: OwnedFd,
}

/// Makes them.
pub(crate) struct Maker {
    /// The host's /proc.
    proc: OwnedFd,
    /// The helper of each namespace of a site: when the next site comes, they are over.
    helpers: [Idle; 2],
}

impl Maker {
    /// `proc` is the host's /proc.
    pub(crate) fn new(proc: OwnedFd) -> Done<Self> {
        keep_power()?;
        let helpers = [Idle::new(), Idle::new()];
        Ok(Self { proc, helpers })
    }

    /// New namespaces for `ids`.
    pub(crate) fn make(&mut self, ids: Ids) -> Done<UserNamespaces> {
        let made = self.make_by_helpers(ids);
        for helper in &self.helpers {
            helper.end();
        }
        made
    }

    fn make_by_helpers(&mut self, ids: Ids) -> Done<UserNamespaces> {
        be_effectively(Uid::from_raw(ids.base))?;
        let started = self.helpers.each_mut();
        let started = started.map(|helper| helper.start(libc::CLONE_NEWUSER));
        be_effectively(Uid::ROOT)?;
        let [container, site] = started;
        let pid = container.step("make a user namespace", "")?;
        let container = map_and_open(&self.proc, pid, &ids.uid_map(), &ids.gid_map())?;
        let single = |inside: u32, host: u32| format!("{inside} {host} 1\n");
        let site = map_and_open(
            &self.proc,
            site.step("make a user namespace", "")?,
            &single(ids.uid, ids.host_uid()),
            &single(ids.gid, ids.host_gid()),
        )?;
        Ok(UserNamespaces { container, site })
    }
}

/// Maps the ids of a process's user namespace, and opens that.
fn map_and_open(proc: &OwnedFd, pid: i32, uid_map: &str, gid_map: &str) -> Done<OwnedFd> {
    let dir = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let process =
        openat(proc, pid.to_string(), dir, Mode::empty()).step("open /proc of", "a helper")?;
    for (name, text) in [("uid_map", uid_map), ("gid_map", gid_map)] {
        let file = openat(
            &process,
            name,
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .step("open", name)?;
        rustix::io::write(&file, text.as_bytes()).step("map the ids", text.trim_end())?;
    }
    openat(
        &process,
        "ns/user",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open", "ns/user")
}

/// Changes whom new namespaces belong to; all capabilities stay (see [`keep_power`]).
fn be_effectively(uid: Uid) -> Done<()> {
    set_thread_res_uid(Uid::ROOT, uid, Uid::ROOT)
        .step("become effectively", &uid.as_raw().to_string())?;
    // The change has set it to whatever the host has in fs.suid_dumpable.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("become untraceable", "")
}

/// From now on a change of the effective uid takes no capabilities away. Some hosts let only CAP_SYS_ADMIN make user
/// namespaces.
fn keep_power() -> Done<()> {
    set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)
        .step("keep the capabilities", "")
}
