//! Asking processes that are certain to be a container's.

use std::os::fd::OwnedFd;

use anyhow::{Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Container;

/// Descriptors of processes that are held at a time.
const CHUNK: usize = 512;

impl Container {
    /// Asks something of those of these processes that are the container's and live.
    ///
    /// Whoever is in its group after a descriptor of it was opened, and has not ended when it has been asked, had its number
    /// all that time. One that is killed in between keeps it until its parent, which is stopped, takes notice; if that is
    /// killed too, the number comes round again only when all others have been given, which no host does in microseconds.
    pub(super) fn members<T>(
        &self,
        pids: &[i32],
        mut ask: impl FnMut(i32) -> std::io::Result<T>,
    ) -> Result<Vec<(i32, T)>> {
        let mut all = Vec::with_capacity(pids.len());
        for chunk in pids.chunks(CHUNK) {
            let opened: Vec<(i32, OwnedFd)> = chunk
                .iter()
                .filter_map(|pid| {
                    let pidfd = pidfd_open(Pid::from_raw(*pid)?, PidfdFlags::empty());
                    Some((*pid, pidfd.ok()?))
                })
                .collect();
            let members = self.group.pids()?;
            for (pid, pidfd) in opened {
                if members.binary_search(&pid).is_err() || has_ended(&pidfd) {
                    continue;
                }
                match ask(pid) {
                    Ok(answer) => all.push((pid, answer)),
                    Err(_) if has_ended(&pidfd) => {}
                    Err(error) => bail!(
                        "cannot ask or change nofile of process {pid} of {} (prlimit): {error}; raising it needs \
                         CAP_SYS_RESOURCE in the host's user namespace and a value within fs.nr_open",
                        self.vhost
                    ),
                }
            }
        }
        Ok(all)
    }
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let now = Timespec::default();
    let look = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now));
    look.is_ok_and(|ready| ready > 0)
}
