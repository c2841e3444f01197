//! What a container leaves behind, and how it goes: everything, in reverse, going on after an error.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use netns::Slots as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use crate::persist;
use crate::platform::Platform;

/// How long the kernel may take to end a killed container before it counts as stuck.
pub const KILL_LIMIT: Duration = Duration::from_secs(5);

/// The container cannot be ended: a process is in an uninterruptible sleep.
#[derive(Debug, thiserror::Error)]
#[error("cannot end {vhost}: {pids} of its processes do not die within {:.0} s; a process waits for storage that does not answer", KILL_LIMIT.as_secs_f64())]
pub struct Unkillable {
    vhost: String,
    pids: usize,
}

/// What may exist of a container; each part is removed if it is there.
#[derive(Default)]
pub struct Remains {
    /// Its init, while that may not have joined the cgroup yet: it does so by itself.
    pub init: Option<OwnedFd>,
    /// Its cgroup.
    pub group: Option<Arc<cgroup::Group>>,
    /// Its network namespace; the last descriptor of a namespace without processes ends it, with its veth.
    pub namespace: Option<Arc<netns::Namespace>>,
    /// Detached mounts that were not used.
    pub mounts: Vec<OwnedFd>,
    /// Its address, for the firewall's sets.
    pub address: Option<std::net::Ipv4Addr>,
    /// Its slot, given back at the very end.
    pub slot: Option<u32>,
    /// Its uid range, likewise.
    pub range: Option<u32>,
}

impl Remains {
    /// Removes everything if all processes have ended already, which takes a fraction of a millisecond; else false.
    pub fn remove_at_once(&mut self, platform: &Arc<Platform>, vhost: &str) -> bool {
        self.remove_with(platform, vhost, Duration::ZERO, |group| {
            match group.remove_if_empty() {
                Ok(true) => Ok(()),
                _ => Err(1),
            }
        })
        .is_ok()
    }

    /// Removes everything. Blocks for as long as the kernel needs to end processes, at most about `patience`.
    ///
    /// On `Err` the processes are still there and so are their cgroup and slot: call it again later.
    pub fn remove(
        &mut self,
        platform: &Arc<Platform>,
        vhost: &str,
        patience: Duration,
    ) -> Result<(), Unkillable> {
        self.remove_with(platform, vhost, patience, |group| {
            // Mostly its processes have ended already.
            match group.remove_if_empty() {
                Ok(true) => Ok(()),
                _ => end(group, vhost, patience),
            }
        })
        .map_err(|pids| Unkillable {
            vhost: vhost.to_owned(),
            pids,
        })
    }

    /// The group by `remove_group`, then the rest; Err says how many processes are left.
    fn remove_with(
        &mut self,
        platform: &Arc<Platform>,
        vhost: &str,
        patience: Duration,
        remove_group: impl FnOnce(&cgroup::Group) -> Result<(), usize>,
    ) -> Result<(), usize> {
        if let Some(init) = &self.init {
            // Err: it has ended.
            let _ = pidfd_send_signal(init, Signal::KILL);
        }
        // The cgroup before the rest: once its directory is gone, a clone that the spawner still has in hand fails.
        if let Some(group) = &self.group {
            remove_group(group)?;
            platform.owners.leave(group);
            if let Some(owner) = group.path().first() {
                platform.owner_groups.one_less(owner);
            }
            self.group = None;
        }
        if let Some(init) = &self.init {
            // It holds the network namespace and with it the address, which somebody else gets next.
            if !has_ended(init, patience) {
                return Err(1);
            }
            self.init = None;
        }
        self.remove_what_it_used(platform, vhost);
        Ok(())
    }

    /// All but the processes and their cgroup, which are gone.
    fn remove_what_it_used(&mut self, platform: &Arc<Platform>, vhost: &str) {
        self.mounts.clear();
        if let Some(address) = self.address.take()
            && let Err(error) = platform.host.revoke(address)
        {
            tracing::error!("{vhost}: cannot remove its firewall entries: {error}");
        }
        self.namespace = None;
        let site = platform.site_dir(vhost);
        for path in [
            platform.record_path(vhost),
            site.join("container.json.new"),
            platform.exit_path(vhost),
            site.join("activated"),
        ] {
            if let Err(error) = persist::remove(&path) {
                tracing::error!("{vhost}: {error:#}");
            }
        }
        if let Err(error) = super::upstream::remove(platform, vhost) {
            tracing::error!("{vhost}: {error:#}");
        }
        // Err: not empty, or never made; both are fine.
        let _ = std::fs::remove_dir(site);
        if let Some(slot) = self.slot.take() {
            platform.slots.give_back(slot);
        }
        if let Some(range) = self.range.take() {
            platform.ranges.give_back(range);
        }
    }
}

/// Whether a process ends within `limit`.
fn has_ended(pidfd: &OwnedFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).ok();
    let look = || poll(&mut [PollFd::new(pidfd, PollFlags::IN)], limit.as_ref());
    matches!(rustix::io::retry_on_intr(look), Ok(n) if n > 0)
}

/// Removes the group with everything in it; Err says how many processes are left.
fn end(group: &cgroup::Group, vhost: &str, patience: Duration) -> Result<(), usize> {
    kill(group, vhost, patience)?;
    let Err(error) = group.remove_alone(patience) else {
        return Ok(());
    };
    // Somebody came in between the two steps.
    if group.populated().unwrap_or(false) {
        kill(group, vhost, patience)?;
        return group.remove_alone(patience).map_err(|_| left(group));
    }
    tracing::error!("{vhost}: {error}");
    Ok(())
}

/// Ends every process of the group; Err says how many are left.
fn kill(group: &cgroup::Group, vhost: &str, patience: Duration) -> Result<(), usize> {
    if !group.populated().unwrap_or(true) {
        return Ok(());
    }
    // Thawed first: on v1 a frozen process does not die.
    let _ = group.thaw(Duration::from_millis(100));
    if let Err(error) = group.kill() {
        tracing::error!("{vhost}: {error}");
    }
    match group.wait_empty(patience) {
        Ok(()) => Ok(()),
        Err(error) => {
            tracing::debug!("{vhost}: {error}");
            match left(group) {
                0 => Ok(()),
                pids => Err(pids),
            }
        }
    }
}

/// How many processes are in it.
fn left(group: &cgroup::Group) -> usize {
    group.pids().map_or(1, |pids| pids.len())
}
