//! Inits made ahead of need: each sits in its namespaces, in a bare root with its /proc, and waits for the request that
//! tells it what container to become. Making one costs more than half of a start.
//!
//! Each has forked the process that becomes the command (`main_process.rs`), as yet with an empty root. Both have a socket, whose
//! other end the agent has: there they take the packets of a start, straight from the agent, and they end when that end is
//! closed. Until they are given a container they run in the agent's own cgroups; what the kernel has set aside for their
//! namespaces and for themselves stays charged to those.

use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::Pid;
use rustix::stdio;
use shim::protocol::{Request, Start};

use crate::clone::{Side, clone3, fork};
use crate::fds::{Fds, status_of};
use crate::host::Host;
use crate::packet;
use crate::plumbing::Plumbing;
use crate::report::{Done, Step, told_if_not};
use crate::root::Bare;
use crate::{init, main_process, sys, validate};

/// All namespaces of a container but those that come with the request (user, network, and the cgroup's, whose root is
/// where it will be).
pub(crate) const NAMESPACES: u64 =
    (libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64;

/// An init that waits.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    /// Where it does.
    pub(crate) socket: OwnedFd,
    /// Where its child does.
    pub(crate) main: OwnedFd,
}

/// What one has made when its request comes.
pub(crate) struct Ahead {
    pub(crate) bare: Bare,
    pub(crate) plumbing: Plumbing,
    /// The process that becomes the command.
    pub(crate) main: Pid,
    /// Where what was not ready with the request follows.
    pub(crate) later: Option<OwnedFd>,
}

impl Ready {
    /// Makes one. It builds its root by itself, beside the spawner.
    pub(crate) fn make(host: &Host) -> Done<Self> {
        let pair = || {
            socketpair(
                AddressFamily::UNIX,
                SocketType::SEQPACKET,
                SocketFlags::CLOEXEC,
                None,
            )
            .step("make", "a socket pair")
        };
        let ((socket, own), (main, child)) = (pair()?, pair()?);
        match clone3(NAMESPACES, None).step("clone", "an init")? {
            Side::Parent { pid, pidfd } => Ok(Self {
                pid,
                pidfd,
                socket,
                main,
            }),
            Side::Child => wait(own, child, host),
        }
    }
}

fn wait(socket: OwnedFd, main: OwnedFd, host: &Host) -> ! {
    // Above all the spawner's ends of all sockets. The standard streams keep the numbers occupied that the command's are
    // going to have.
    let keep = [
        stdio::stdin(),
        stdio::stdout(),
        stdio::stderr(),
        socket.as_fd(),
        main.as_fd(),
        host.lone.as_fd(),
    ];
    let prepared = sys::close_all_but(&keep)
        .step("close", "the spawner's descriptors")
        .and_then(|()| Ok((Bare::build(host)?, Plumbing::lay()?)));
    // Whoever is about to use it finds its socket closed and does without.
    let Ok((bare, plumbing)) = prepared else {
        sys::exit_now(0)
    };
    let pid = match fork() {
        Ok(Some(pid)) => pid,
        Ok(None) => main_process::wait(main, &plumbing, host),
        Err(_) => sys::exit_now(0),
    };
    drop(main);
    let Ok(Some((start, fds))) = receive(&socket) else {
        sys::exit_now(0)
    };
    let ahead = Ahead {
        bare,
        plumbing,
        main: pid,
        later: Some(socket),
    };
    init::run(&start, fds, host, Some(ahead))
}

/// The request; None when the agent is gone.
fn receive(socket: &OwnedFd) -> Done<Option<(Box<Start>, Fds)>> {
    let Some((Request::Start(start), fds)) = packet::request(socket.as_fd())? else {
        return Ok(None);
    };
    let status = status_of(&fds, &start.fds);
    let fds = told_if_not(status, validate::with_descriptors(&start, fds, true))?;
    Ok(Some((start, fds)))
}
