//! Killing everything in a group.

use crate::dir::Dir;
use crate::group::Group;
use crate::{Error, stat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeSet;

/// Each round finds only what was forked while the round before ran; a group limits its processes, so this ends.
const ROUNDS: u32 = 1_000;

impl Group {
    /// Sends SIGKILL to every process, frozen ones included; [`Group::wait_empty`] tells when they have gone.
    pub fn kill(&self) -> Result<(), Error> {
        let mut errors = Vec::new();
        for (root, dir) in self.each() {
            let result = if root.v2 {
                kill_v2(dir)
            } else {
                self.kill_stragglers(dir)
            };
            errors.extend(result.err());
        }
        Error::from_all(errors)
    }

    /// On a v1 hierarchy only those are signalled that the v2 side could not reach.
    fn kill_stragglers(&self, dir: &Dir) -> Result<(), Error> {
        let has_v2 = self.v2().is_some();
        if has_v2 && !self.v2_is_empty()? {
            return Ok(());
        }
        if !has_v2 {
            // A process in a frozen v1 group does not die.
            if let Some((_, freezer)) = self
                .each()
                .find(|(root, _)| root.serves.contains(&crate::Controller::Freezer))
            {
                freezer.write("freezer.state", "THAWED")?;
            }
        }
        kill_each(dir)
    }

    fn v2_is_empty(&self) -> Result<bool, Error> {
        let Some(dir) = self.v2() else {
            return Ok(true);
        };
        let events = dir.read_optional("cgroup.events")?;
        Ok(events.is_none_or(|text| stat::flat(&text, "populated") == Some(0)))
    }
}

fn kill_v2(dir: &Dir) -> Result<(), Error> {
    match dir.write_raw("cgroup.kill", "1") {
        Ok(()) => Ok(()),
        // Before Linux 5.14, or the group has been removed.
        Err(Errno::NOENT) => kill_each(dir),
        Err(e) => Err(dir.error("write 1 to", "cgroup.kill", e)),
    }
}

/// Signals process by process until a listing shows none that has not been signalled.
fn kill_each(dir: &Dir) -> Result<(), Error> {
    let mut signalled = BTreeSet::new();
    for _ in 0..ROUNDS {
        let listed = stat::pids(&dir.members()?);
        let new: Vec<i32> = listed
            .into_iter()
            .filter(|pid| !signalled.contains(pid))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        // The descriptors first, then the membership again: a number that was reused in between is another process.
        let handles: Vec<_> = new
            .iter()
            .filter_map(|pid| {
                Some((
                    *pid,
                    pidfd_open(Pid::from_raw(*pid)?, PidfdFlags::empty()).ok()?,
                ))
            })
            .collect();
        let still: BTreeSet<i32> = stat::pids(&dir.members()?).into_iter().collect();
        for (pid, handle) in handles.into_iter().filter(|(pid, _)| still.contains(pid)) {
            match pidfd_send_signal(&handle, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => signalled.insert(pid),
                Err(e) => return Err(dir.error(&format!("kill process {pid} of"), "", e)),
            };
        }
    }
    Err(dir
        .error("kill all processes of", "", Errno::AGAIN)
        .with_hint("it forks faster than it can be killed; set pids.max to stop that"))
}
