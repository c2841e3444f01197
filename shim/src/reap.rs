//! Waiting: children are reaped, signals go on to the command, output goes to the logs.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, WaitStatus, wait, waitid};
use shim::protocol::ExitStatus;

use crate::logs::{Logs, Stream};
use crate::sys;

/// The signals that are read rather than delivered: all but SIGCHLD are passed on.
pub(crate) const FORWARDED: &[i32] = &[
    libc::SIGCHLD,
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGWINCH,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGPWR,
];

/// Waits until `command` has ended and returns how.
pub(crate) fn watch(signals: &OwnedFd, command: Pid, mut logs: Option<&mut Logs>) -> ExitStatus {
    // It may have ended before anybody looked at signals.
    if let Some(status) = reap(command) {
        return status;
    }
    loop {
        let (ready_signal, ready) = wait_for_any(signals, logs.as_deref());
        if let Some(logs) = logs.as_deref_mut() {
            for stream in ready {
                logs.read(stream);
            }
            logs.tick();
        }
        if !ready_signal {
            continue;
        }
        let mut child = false;
        while let Some(signal) = sys::next_signal(signals.as_fd()) {
            match signal {
                libc::SIGCHLD => child = true,
                _ if logs.is_some() => pass_on(command, signal),
                _ => pass_on_to_group(command, signal),
            }
        }
        if child && let Some(status) = reap(command) {
            return status;
        }
    }
}

fn pass_on(command: Pid, signal: i32) {
    // It may have ended this very moment.
    let _ended = sys::kill(command.as_raw_nonzero().get(), signal);
}

/// For a command that was added to a running container (the one without logs): what it started in the background
/// gets the signal as well, and PWR, which nobody else sends, means that the whole group is to be killed.
fn pass_on_to_group(command: Pid, signal: i32) {
    let signal = if signal == libc::SIGPWR {
        libc::SIGKILL
    } else {
        signal
    };
    if sys::kill(-command.as_raw_nonzero().get(), signal).is_err() {
        // It has not made its group yet.
        pass_on(command, signal);
    }
}

fn wait_for_any(signals: &OwnedFd, logs: Option<&Logs>) -> (bool, Vec<Stream>) {
    let streams: Vec<(Stream, _)> = logs.map(|l| l.open_streams().collect()).unwrap_or_default();
    let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(signals, PollFlags::IN)];
    fds.extend(
        streams
            .iter()
            .map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)),
    );
    let timeout = logs.and_then(Logs::timeout);
    if poll(&mut fds, timeout.as_ref()).is_err() {
        return (false, Vec::new());
    }
    let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
    let signalled = fds.first().is_some_and(ready);
    let readable = fds
        .iter()
        .skip(1)
        .zip(&streams)
        .filter(|(fd, _)| ready(fd))
        .map(|(_, (s, _))| *s)
        .collect();
    (signalled, readable)
}

/// Collects every child that has ended; the command's status if it was among them.
fn reap(command: Pid) -> Option<ExitStatus> {
    let mut found = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == command => found = exit_status(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return found,
        }
    }
}

/// Whether anything is left of what the command has started: all of it becomes init's children.
pub(crate) fn has_children() -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::All, look), Err(Errno::CHILD))
}

fn exit_status(status: WaitStatus) -> Option<ExitStatus> {
    status
        .exit_status()
        .map(ExitStatus::Code)
        .or_else(|| status.terminating_signal().map(ExitStatus::Signal))
}

/// The exit code that shows `status`, as shells do.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    match status {
        ExitStatus::Code(n) => n,
        ExitStatus::Signal(n) => 128 + n,
    }
}
