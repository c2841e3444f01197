//! The process that becomes a container's command. It is confined while init, its parent, builds the root, and, where both
//! were made ahead, while the agent makes the cgroups: little is left to do once all of these are there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio;
use shim::protocol::{Later, Program, Report, Request, Rlimit, Run};

use crate::command::{Command, beyond_listening};
use crate::fds::{Fds, need, status_of};
use crate::host::Host;
use crate::plumbing::{Gate, Plumbing};
use crate::reap::FORWARDED;
use crate::report::{Done, Step, failure, send_report, told_if_not};
use crate::{confine, init, packet, sys, validate};

/// What holds it back between its confinement and its execution.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Where init lets it go.
    gate: Gate,
    /// Where its cgroups come, if it is not in them yet.
    later: Option<OwnedFd>,
}

fn is_of_files(limit: &Rlimit) -> bool {
    // RLIMIT_NOFILE of both architectures; the libraries differ about its type.
    limit.resource == 7
}

/// The end of [`Entry::later`].
fn agent_is_gone() -> shim::protocol::Failure {
    failure("wait for", "its cgroups", libc::EPIPE)
}

/// For one made ahead: waits for what to become.
pub(crate) fn wait(socket: OwnedFd, plumbing: &Plumbing, host: &Host) -> ! {
    let keep = [
        stdio::stdin(),
        stdio::stdout(),
        stdio::stderr(),
        socket.as_fd(),
        plumbing.out.write.as_fd(),
        plumbing.err.write.as_fd(),
        plumbing.gate.as_fd(),
    ];
    // Init has none of these to lose: whatever fails here it finds out by its child's end.
    if sys::close_all_but(&keep).is_err() {
        sys::exit_now(126);
    }
    let given = receive(&socket);
    // Whatever was sent to one that waited was not meant for the command.
    for signal in FORWARDED {
        sys::set_signal(*signal, true);
        sys::set_signal(*signal, false);
    }
    match given {
        Ok(Some((given, fds))) => run(
            &given.vhost,
            &given.program,
            fds,
            plumbing,
            host,
            Some(socket),
        ),
        Ok(None) => sys::exit_now(0),
        Err(_) => sys::exit_now(126),
    }
}

/// What to become; None when the agent is gone.
fn receive(socket: &OwnedFd) -> Done<Option<(Box<Run>, Fds)>> {
    let Some((Request::Run(run), fds)) = packet::request(socket.as_fd())? else {
        return Ok(None);
    };
    let status = status_of(&fds, &run.fds);
    let fds = told_if_not(status, validate::run(&run, fds))?;
    Ok(Some((run, fds)))
}

/// Becomes the command. `later` is where what follows comes; without it the process is where it is to be, and its limits
/// are in force.
pub(crate) fn run(
    vhost: &str,
    program: &Program,
    mut fds: Fds,
    plumbing: &Plumbing,
    host: &Host,
    later: Option<OwnedFd>,
) -> ! {
    let Ok(status) = need(&mut fds.status, "Status") else {
        sys::exit_now(126)
    };
    let f = match become_it(
        vhost,
        program,
        &mut fds,
        plumbing,
        host,
        later,
        status.as_fd(),
    ) {
        Ok(never) => match never {},
        Err(f) => f,
    };
    send_report(&status, &Report::Failed(f));
    sys::exit_now(126)
}

fn become_it(
    vhost: &str,
    program: &Program,
    fds: &mut Fds,
    plumbing: &Plumbing,
    host: &Host,
    later: Option<OwnedFd>,
    status: BorrowedFd<'_>,
) -> Done<std::convert::Infallible> {
    init::name_process(vhost)?;
    confine::raise_hard_limits(&program.rlimits)?;
    confine::enter_network_namespace(need(&mut fds.netns, "NetNs")?)?;
    confine::enter_user_namespace(need(&mut fds.container_users, "ContainerUsers")?)?;
    confine::settle_as_root()?;
    let listen = std::mem::take(&mut fds.listen);
    let first = beyond_listening(listen.len());
    let away = |fd: BorrowedFd<'_>| fcntl_dupfd_cloexec(fd, first).step("move a descriptor", "");
    let entry = Entry {
        gate: Gate::from(away(plumbing.gate.as_fd())?),
        later: later.as_ref().map(|fd| away(fd.as_fd())).transpose()?,
    };
    let command = Command {
        program,
        stdin: None,
        output: [plumbing.out.write.as_fd(), plumbing.err.write.as_fd()],
        listen: &listen,
        terminal: false,
        bound_to_parent: false,
        entry: Some(&entry),
    };
    command.close_others(status, &[])?;
    // The number of descriptors after those have come that it needs for its cgroups.
    confine::limit(program.rlimits.iter().filter(|r| !is_of_files(r)))?;
    confine::filter(&host.filter)?;
    command.run(status)
}

impl Entry {
    /// Its descriptors.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let later = self.later.as_ref().map(AsFd::as_fd);
        [self.gate.as_fd()].into_iter().chain(later)
    }

    /// Joins its cgroups, and sees no others; then it has the last of its resource limits.
    pub(crate) fn join(&self, program: &Program) -> Done<()> {
        if let Some(later) = &self.later {
            let (next, fds) = next(later.as_fd())?.ok_or_else(agent_is_gone)?;
            let Later::Join(roles) = next else {
                return Err(failure("join", "its cgroups", libc::EBADMSG));
            };
            init::join_cgroups(&Fds::groups(fds, &roles)?)?;
            init::see_own_cgroups()?;
        }
        confine::limit(program.rlimits.iter().filter(|r| is_of_files(r)))
    }

    /// Waits for its limits and its root.
    pub(crate) fn pass(&self) -> Done<()> {
        if let Some(later) = &self.later {
            match next(later.as_fd())?.ok_or_else(agent_is_gone)? {
                (Later::Go, _) => {}
                (Later::Join(_), _) => {
                    return Err(failure("wait for", "its limits", libc::EBADMSG));
                }
            }
        }
        self.gate.pass()
    }
}

/// What comes next; None when the agent is gone.
pub(crate) fn next(socket: BorrowedFd<'_>) -> Done<Option<(Later, Vec<OwnedFd>)>> {
    let mut buffer = [0; 256];
    let Some((length, fds)) = packet::receive(socket, &mut buffer)? else {
        return Ok(None);
    };
    match postcard::from_bytes(buffer.get(..length).unwrap_or_default()) {
        Ok(later) => Ok(Some((later, fds))),
        Err(_) => Err(failure("decode", "what follows a request", libc::EBADMSG)),
    }
}
