//! Whom the kernel ends first when the host itself is out of memory: whatever is promised nothing.
//!
//! Containers are born with [`SHED`], from the spawner. It is taken from those of guaranteed sites once they are ready;
//! what they fork from then on inherits that.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;

use crate::container::Container;

/// As if a process used half of the host's memory beside its own: before the host's services, and among its like the
/// greatest first. Also in the shim.
const SHED: i32 = 500;

/// New processes may come as fast as they are found.
const PASSES: usize = 5;

/// Puts a container's processes into the order that its class has. All of them each time: what one of them says about itself
/// is its own to write.
pub(super) fn apply(container: &Container, guaranteed: bool) {
    let wanted = if guaranteed { 0 } else { SHED };
    let mut done = HashSet::new();
    for _ in 0..PASSES {
        let pids = container.group.pids().unwrap_or_default();
        let new: Vec<(i32, File)> = pids
            .into_iter()
            .filter(|pid| !done.contains(pid))
            .filter_map(|pid| Some((pid, open(pid)?)))
            .collect();
        if new.is_empty() {
            return;
        }
        // The files are those processes': whoever is still in the group has not had its number given to another one.
        let members: HashSet<i32> = container
            .group
            .pids()
            .unwrap_or_default()
            .into_iter()
            .collect();
        for (pid, mut file) in new {
            done.insert(pid);
            if members.contains(&pid)
                && let Err(error) = file.write_all(wanted.to_string().as_bytes())
                // It has ended meanwhile.
                && error.raw_os_error() != Some(libc::ESRCH)
            {
                tracing::warn!("cannot set the order in which process {pid} is ended: {error}");
            }
        }
    }
}

/// None: it has ended.
fn open(pid: i32) -> Option<File> {
    let path = format!("/proc/{pid}/oom_score_adj");
    File::options().write(true).open(path).ok()
}
