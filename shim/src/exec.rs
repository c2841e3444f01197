//! One more command in a running container: this process joins its namespaces, forks the command, and ends with the
//! command's status.

use std::os::fd::{AsFd, OwnedFd};

use rustix::process::Pid;
use rustix::thread::{CapabilitySet, ThreadNameSpaceType, move_into_thread_name_spaces};
use shim::protocol::{Exec, Report};

use crate::clone::fork;
use crate::command::Command;
use crate::fds::{Fds, need};
use crate::host::Host;
use crate::reap::{self, FORWARDED};
use crate::report::{Done, Step, send_report};
use crate::{confine, init, sys};

/// Runs the command of `request`.
pub(crate) fn run(request: &Exec, mut fds: Fds, host: &Host) -> ! {
    let started = need(&mut fds.status, "Status").and_then(|status| {
        let started = start(request, &mut fds, host, &status);
        if let Err(f) = &started {
            send_report(&status, &Report::Failed(f.clone()));
        }
        started
    });
    let exit_file = fds.exit_file.take();
    std::mem::forget(fds);
    let Ok((command, signals)) = started else {
        sys::exit_now(126)
    };
    let mut keep = vec![signals.as_fd()];
    keep.extend(exit_file.as_ref().map(AsFd::as_fd));
    // The streams above all, or their readers would not see the end.
    let confined = sys::close_all_but(&keep)
        .step("close the descriptors", "")
        .and_then(|()| confine::keep_capabilities(CapabilitySet::KILL));
    if confined.is_err() {
        // The command ends with this process.
        sys::exit_now(126);
    }
    let status = reap::watch(&signals, command, None);
    if let Some(file) = &exit_file {
        init::record(file, status);
    }
    sys::exit_now(reap::exit_code(status))
}

fn start(request: &Exec, fds: &mut Fds, host: &Host, status: &OwnedFd) -> Done<(Pid, OwnedFd)> {
    sys::set_signal(libc::SIGCHLD, false);
    sys::block_only(FORWARDED);
    let signals = sys::signalfd(FORWARDED).step("make a signal descriptor", "")?;
    init::join_cgroups(&fds.cgroup_procs)?;
    confine::raise_hard_limits(&request.program.rlimits)?;
    let target = need(&mut fds.target, "Target")?;
    let all = ThreadNameSpaceType::USER
        | ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    move_into_thread_name_spaces(target.as_fd(), all)
        .step("enter", "the container's namespaces")?;
    drop(target);
    confine::settle_as_root()?;
    let (stdin, stdout, stderr) = (
        need(&mut fds.stdin, "Stdin")?,
        need(&mut fds.stdout, "Stdout")?,
        need(&mut fds.stderr, "Stderr")?,
    );
    let command = Command {
        program: &request.program,
        stdin: Some(stdin.as_fd()),
        output: [stdout.as_fd(), stderr.as_fd()],
        listen: &[],
        terminal: request.terminal,
        bound_to_parent: true,
        entry: None,
    };
    let mut own = vec![signals.as_fd()];
    own.extend(fds.exit_file.as_ref().map(AsFd::as_fd));
    command.close_others(status.as_fd(), &own)?;
    // For this process and the command alike: translating it twice would cost a tenth of the whole start.
    confine::limit(&request.program.rlimits)?;
    confine::filter(&host.filter)?;
    let Some(pid) = fork().step("fork", "")? else {
        command.run(status.as_fd())
    };
    Ok((pid, signals))
}
