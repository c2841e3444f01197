//! Inits made ahead of need: each sits in its namespaces, in a bare root with its /proc, and waits for the request that
//! tells it what container to become. Making one costs more than half of a start.
//!
//! Each has a socket, whose other end the agent has: there it takes the packet of its start, straight from the agent, and it
//! ends when that end is closed. Until it is given a container an init runs in the agent's own cgroups; what the kernel has set
//! aside for its namespaces stays charged to those.

use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::stdio;
use shim::protocol::{FdRole, MAX_PACKET, Report, Request, Start};

use crate::clone::{Side, clone3};
use crate::fds::Fds;
use crate::host::Host;
use crate::packet;
use crate::plumbing::Plumbing;
use crate::report::{Done, Step, failure, send_report};
use crate::root::Bare;
use crate::{init, sys, validate};

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
}

/// What one has made when its request comes.
pub(crate) struct Ahead {
    pub(crate) bare: Bare,
    pub(crate) plumbing: Plumbing,
}

impl Ready {
    /// Makes one. It builds its root by itself, beside the spawner.
    pub(crate) fn make(host: &Host) -> Done<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .step("make", "a socket pair")?;
        match clone3(NAMESPACES, None).step("clone", "an init")? {
            Side::Parent { pid, pidfd } => Ok(Self {
                pid,
                pidfd,
                socket: ours,
            }),
            Side::Child => wait(&theirs, host),
        }
    }
}

fn wait(socket: &OwnedFd, host: &Host) -> ! {
    // Above all the spawner's ends of all sockets. The standard streams keep the numbers occupied that the command's are
    // going to have.
    let keep = [
        stdio::stdin(),
        stdio::stdout(),
        stdio::stderr(),
        socket.as_fd(),
    ];
    let work = sys::close_all_but(&keep)
        .step("close", "the spawner's descriptors")
        .and_then(|()| {
            let bare = Bare::build(host)?;
            let plumbing = Plumbing::lay()?;
            let mut buffer = vec![0; MAX_PACKET];
            // Written to, or its pages would be made only when the request is there. Few need more.
            for page in buffer.chunks_mut(4096).take(2) {
                page.fill(1);
            }
            Ok((Ahead { bare, plumbing }, receive(socket, buffer)?))
        });
    // Whoever is about to use it finds its socket closed and does without.
    let Ok((ahead, Some((start, fds)))) = work else {
        sys::exit_now(0)
    };
    init::run(&start, fds, host, Some(ahead))
}

/// The request; None when the agent is gone.
fn receive(socket: &OwnedFd, mut buffer: Vec<u8>) -> Done<Option<(Box<Start>, Fds)>> {
    let Some((length, fds)) = packet::receive(socket.as_fd(), &mut buffer)? else {
        return Ok(None);
    };
    let packet = buffer.get(..length).unwrap_or_default();
    let Ok(Request::Start(start)) = postcard::from_bytes(packet) else {
        return Err(failure("take over", "a request", libc::EBADMSG));
    };
    let status = start.fds.iter().position(|role| *role == FdRole::Status);
    let status = status.and_then(|at| fds.get(at)?.try_clone().ok());
    let mut fds = validate::with_descriptors(&start, fds).inspect_err(|f| {
        if let Some(status) = &status {
            send_report(status, &Report::Failed(f.clone()));
        }
    })?;
    // It was cloned elsewhere.
    if let Some(directory) = &fds.cgroup_dir {
        let procs = rustix::fs::openat(
            directory,
            "cgroup.procs",
            rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        // First: processes are found and killed by the v2 side.
        fds.cgroup_procs
            .insert(0, procs.step("open", "cgroup.procs")?);
    }
    Ok(Some((start, fds)))
}
