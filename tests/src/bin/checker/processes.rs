//! Other processes: none outside is visible or can be signalled, and pid 1 keeps its own to itself.

use std::fs;

use crate::report::Report;
use crate::sys::{Arg, call, errno};

/// Files of /proc/1 that belong to init alone, and links that lead out of the container's view.
const CLOSED: [&str; 12] = [
    "environ",
    "mem",
    "maps",
    "smaps",
    "auxv",
    "stack",
    "syscall",
    "io",
    "pagemap",
    "personality",
    "map_files",
    "fd",
];
const LINKS: [&str; 8] = [
    "root", "cwd", "exe", "ns/mnt", "ns/user", "ns/net", "ns/pid", "fd/0",
];

pub(crate) fn check(report: &mut Report) {
    let own = std::process::id();
    let seen: Vec<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let strangers: Vec<String> = seen
        .iter()
        .filter(|pid| **pid != 1 && **pid != own)
        .map(|pid| {
            format!(
                "{pid} {}",
                fs::read_to_string(format!("/proc/{pid}/comm"))
                    .unwrap_or_default()
                    .trim()
            )
        })
        // The site's own server, where this is not it.
        .filter(|line| !line.ends_with(" checker"))
        .collect();
    report.none("strange processes", &strangers);
    let most: u64 = fs::read_to_string("/proc/sys/kernel/pid_max")
        .ok()
        .and_then(|t| t.trim().parse().ok())
        .unwrap_or(32_768);
    let exists = |pid: &u64| match call(libc::SYS_kill, &[Arg::N(*pid), Arg::N(0)]) {
        Ok(_) => true,
        Err(e) => e != libc::ESRCH,
    };
    let reached: Vec<String> = (1..most.min(100_000))
        .filter(exists)
        .filter(|pid| !u32::try_from(*pid).is_ok_and(|pid| seen.contains(&pid)))
        .map(|pid| pid.to_string())
        .collect();
    report.none(
        "processes that are not listed but can be signalled",
        &reached,
    );
    let opened = |name: &&&str| {
        let path = format!("/proc/1/{name}");
        fs::read_dir(&path).is_ok() || fs::read(&path).is_ok_and(|bytes| !bytes.is_empty())
    };
    report.none(
        "readable of pid 1",
        &CLOSED
            .iter()
            .filter(opened)
            .map(|n| (*n).to_owned())
            .collect::<Vec<_>>(),
    );
    let followed = |name: &&&str| {
        fs::read_link(format!("/proc/1/{name}")).is_ok()
            || fs::metadata(format!("/proc/1/{name}")).is_ok()
    };
    report.none(
        "links of pid 1",
        &LINKS
            .iter()
            .filter(followed)
            .map(|n| (*n).to_owned())
            .collect::<Vec<_>>(),
    );
    let memory = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/proc/1/mem");
    report.add("memory of pid 1", memory.is_err(), format!("{memory:?}"));
    let attached = call(
        libc::SYS_ptrace,
        &[
            Arg::N(libc::PTRACE_SEIZE as u64),
            Arg::N(1),
            Arg::N(0),
            Arg::N(0),
        ],
    );
    report.add("trace pid 1", attached.is_err(), format!("{attached:?}"));
    let pidfd = call(libc::SYS_pidfd_open, &[Arg::N(1), Arg::N(0)]);
    if let Ok(pidfd) = pidfd {
        let stolen = call(
            libc::SYS_pidfd_getfd,
            &[Arg::N(pidfd.unsigned_abs()), Arg::N(0), Arg::N(0)],
        );
        report.add(
            "take a descriptor of pid 1",
            stolen.is_err(),
            format!("{stolen:?}"),
        );
        let entered = call(
            libc::SYS_setns,
            &[
                Arg::N(pidfd.unsigned_abs()),
                Arg::N(libc::CLONE_NEWNS as u64),
            ],
        );
        report.add(
            "enter the mount namespace of pid 1",
            entered.is_err(),
            format!("{entered:?}"),
        );
    } else {
        report.add("open pid 1", true, format!("errno {}", errno()));
    }
    // 100 bytes of ours, 100 of theirs: only the permission is of interest.
    let kill = call(libc::SYS_kill, &[Arg::N(1), Arg::N(libc::SIGKILL as u64)]);
    // uid 0 of the container may send it, and pid 1 does not take it from inside.
    let alive = call(libc::SYS_kill, &[Arg::N(1), Arg::N(0)]) != Err(libc::ESRCH);
    report.add("kill pid 1", alive, format!("{kill:?}"));
}
