//! On the host, as root: becomes uid 0 of a container's user namespace, in all its namespaces, then reports.
//!
//! Given the pid of the container's command it takes that one's filter and gives up what it has given up; `bare` keeps
//! every capability of the container's user namespace and has no filter, which shows what the namespaces alone hold.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{
    CapabilitySet, Gid, ThreadNameSpaceType, Uid, move_into_thread_name_spaces,
    remove_capability_from_bounding_set, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::sys::{self, Arg, End, call};

pub(crate) fn run(pid: &str, like: Option<&str>) -> ExitCode {
    match enter(pid, like) {
        Ok(End::Code(0)) => ExitCode::SUCCESS,
        Ok(end) => {
            eprintln!("checker: the report ended with {end:?}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("checker: cannot {error}");
            ExitCode::FAILURE
        }
    }
}

fn enter(pid: &str, like: Option<&str>) -> Result<End, String> {
    let number = |pid: &str| -> Result<i32, String> {
        pid.parse().map_err(|e| format!("read the pid {pid}: {e}"))
    };
    let raw = number(pid)?;
    let pid = Pid::from_raw(raw).ok_or("use pid 0")?;
    let say = |what: &str| {
        let what = what.to_owned();
        move |e: rustix::io::Errno| format!("{what}: {e}")
    };
    let filter = like.map(|pid| filter(number(pid)?)).transpose()?;
    let target: OwnedFd =
        pidfd_open(pid, PidfdFlags::empty()).map_err(say("open the container's init"))?;
    let all = ThreadNameSpaceType::USER
        | ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    // The container's cgroups first: its cgroup namespace shows everything else as above it.
    join_cgroups(raw)?;
    move_into_thread_name_spaces(target.as_fd(), all).map_err(say("enter the namespaces"))?;
    set_thread_groups(&[]).map_err(say("drop the groups"))?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).map_err(say("become gid 0"))?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).map_err(say("become uid 0"))?;
    drop(target);
    // Standard output is the way back; nothing else of the host stays open.
    let root =
        open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(say("open the root"))?;
    rustix::process::fchdir(&root).map_err(say("enter the root"))?;
    drop(root);
    let child = sys::in_child(|| {
        if let Some(filter) = &filter
            && let Err(error) = confine(filter)
        {
            eprintln!("checker: cannot {error}");
            return 3;
        }
        // By execution, so that this is a program of the container and nothing of the host.
        let own = c"/site/checker";
        let words = [own.as_ptr() as u64, c"report".as_ptr() as u64, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let failed = call(
            libc::SYS_execve,
            &[Arg::S(own), Arg::M(&bytes), Arg::M(&[0; 8])],
        );
        eprintln!("checker: cannot execute /site/checker: {failed:?}");
        4
    });
    child.map_err(|e| format!("fork: {e}"))
}

/// Its cgroups as the host sees them.
fn join_cgroups(pid: i32) -> Result<(), String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(|e| format!("read mountinfo: {e}"))?;
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
        .map_err(|e| format!("read its cgroups: {e}"))?;
    for line in groups.lines() {
        let mut words = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let is_it = |mount: &&str| {
            let Some((left, right)) = mount.split_once(" - ") else {
                return false;
            };
            let place = left.split(' ').nth(4).unwrap_or_default();
            if controllers.is_empty() {
                return right.starts_with("cgroup2 ");
            }
            // `name=x` or `cpu,cpuacct` in the super block's options.
            let options = right.rsplit(' ').next().unwrap_or_default();
            right.starts_with("cgroup ")
                && controllers
                    .split(',')
                    .all(|c| options.split(',').any(|o| o == c))
                && !place.is_empty()
        };
        let Some(mount) = mounts.lines().find(is_it) else {
            continue;
        };
        let place = mount.split(' ').nth(4).unwrap_or_default();
        std::fs::write(format!("{place}{path}/cgroup.procs"), "0")
            .map_err(|e| format!("join {place}{path}: {e}"))?;
    }
    Ok(())
}

/// The filter of a process, which has exactly one.
fn filter(pid: i32) -> Result<Vec<libc::sock_filter>, String> {
    let target = Arg::N(u64::from(pid.unsigned_abs()));
    let attach = [
        Arg::N(libc::PTRACE_ATTACH as u64),
        target,
        Arg::N(0),
        Arg::N(0),
    ];
    call(libc::SYS_ptrace, &attach).map_err(|e| format!("trace {pid}: errno {e}"))?;
    // It is stopped when this returns.
    call(
        libc::SYS_wait4,
        &[target, Arg::N(0), Arg::N(0x4000_0000), Arg::N(0)],
    )
    .map_err(|e| format!("wait for {pid}: errno {e}"))?;
    let filter = sys::filter_of(pid);
    let detach = [
        Arg::N(libc::PTRACE_DETACH as u64),
        target,
        Arg::N(0),
        Arg::N(0),
    ];
    call(libc::SYS_ptrace, &detach).map_err(|e| format!("let {pid} go on: errno {e}"))?;
    filter.map_err(|e| format!("read the filter of {pid}: errno {e}"))
}

fn confine(filter: &[libc::sock_filter]) -> Result<(), String> {
    for n in 0..64 {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << n)) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) if n > 0 => break,
            Err(e) => return Err(format!("drop capability {n}: {e}")),
        }
    }
    set_no_new_privs(true).map_err(|e| format!("set no_new_privs: {e}"))?;
    let nothing = rustix::thread::CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, nothing)
        .map_err(|e| format!("drop the capabilities: {e}"))?;
    sys::install(filter).map_err(|e| format!("install the filter: errno {e}"))
}
