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
use rustix::process::{DumpableBehavior, Signal, pidfd_send_signal, set_dumpable_behavior};
use rustix::thread::{CapabilitiesSecureBits, set_capabilities_secure_bits, set_thread_res_uid};
use shim::protocol::Ids;

use crate::clone::{Side, clone3};
use crate::report::{Done, Step};
use crate::sys;

/// The two user namespaces of a site.
#[derive(Debug)]
pub(crate) struct UserNamespaces {
    /// What its processes live in.
    pub(crate) container: OwnedFd,
    /// Maps the site's on-disk uid and gid to the site's host ids, and nothing else.
    pub(crate) site: OwnedFd,
}

/// Makes them.
#[derive(Debug)]
pub(crate) struct Maker {
    /// The host's /proc.
    proc: OwnedFd,
}

impl Maker {
    /// `proc` is the host's /proc.
    pub(crate) fn new(proc: OwnedFd) -> Done<Self> {
        keep_power()?;
        Ok(Self { proc })
    }

    /// New namespaces for `ids`.
    pub(crate) fn make(&self, ids: Ids) -> Done<UserNamespaces> {
        let container = self.user_namespace(ids.base, &ids.uid_map(), &ids.gid_map())?;
        let single = |inside: u32, host: u32| format!("{inside} {host} 1\n");
        let site = self.user_namespace(
            ids.base,
            &single(ids.uid, ids.host_uid()),
            &single(ids.gid, ids.host_gid()),
        )?;
        Ok(UserNamespaces { container, site })
    }

    fn user_namespace(&self, owner: u32, uid_map: &str, gid_map: &str) -> Done<OwnedFd> {
        be_effectively(Uid::from_raw(owner))?;
        let side = clone3(libc::CLONE_NEWUSER as u64, None);
        if matches!(side, Ok(Side::Child)) {
            wait_to_be_killed();
        }
        be_effectively(Uid::ROOT)?;
        match side.step("make a user namespace", "")? {
            Side::Child => wait_to_be_killed(),
            Side::Parent { pid, pidfd } => {
                let made = self.map_and_open(pid, uid_map, gid_map);
                // Ignored SIGCHLD means that nobody has to wait for it.
                pidfd_send_signal(&pidfd, Signal::KILL).step("end a helper process", "")?;
                made
            }
        }
    }

    fn map_and_open(&self, pid: i32, uid_map: &str, gid_map: &str) -> Done<OwnedFd> {
        let dir = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let process = openat(&self.proc, pid.to_string(), dir, Mode::empty())
            .step("open /proc of", "a helper")?;
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

fn wait_to_be_killed() -> ! {
    // Not to outlive a spawner that dies between clone and kill.
    if rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        sys::exit_now(1);
    }
    loop {
        let _interrupted = rustix::event::poll(&mut [], None);
    }
}
