//! Whom the kernel ends first when the host itself is out of memory: whatever is promised nothing.
//!
//! Containers are born with [`SHED`], from the spawner. It is taken from those of guaranteed sites once they are ready;
//! what they fork from then on inherits that.

use std::fs;

use cgroup::Group;

use crate::container::Container;

/// As if a process used half of the host's memory beside its own: before the host's services, and among its like the
/// greatest first. Also in the shim.
const SHED: i32 = 500;

/// Puts a container's processes into the order that its class has.
pub(super) fn apply(container: &Container, guaranteed: bool) {
    let wanted = if guaranteed { 0 } else { SHED };
    let main = container.record.main_pid;
    if read(main).is_none_or(|now| now == wanted) {
        return;
    }
    for pid in container.group.pids().unwrap_or_default() {
        // Whoever has ended needs no order.
        if let Err(error) = write(&container.group, pid, wanted)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!("cannot set the order in which process {pid} is ended: {error}");
            return;
        }
    }
}

fn path(pid: i32) -> String {
    format!("/proc/{pid}/oom_score_adj")
}

fn read(pid: i32) -> Option<i32> {
    fs::read_to_string(path(pid)).ok()?.trim().parse().ok()
}

fn write(group: &Group, pid: i32, value: i32) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = fs::File::options().write(true).open(path(pid))?;
    // The file is that process's: if the number has been given to another one, this one is not in the group.
    if group.pids().is_ok_and(|pids| pids.contains(&pid)) {
        file.write_all(value.to_string().as_bytes())?;
    }
    Ok(())
}
