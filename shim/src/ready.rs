//! Inits made ahead of need: each sits in its namespaces, in a bare root with its /proc, and waits for the request that
//! tells it what container to become. Making one costs more than half of a start.
//!
//! They are the spawner's children and end with it: their socket says so. Until it is given a container an init runs in
//! the agent's own cgroups; what the kernel has set aside for its namespaces stays charged to those.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::stdio;
use shim::protocol::{MAX_PACKET, Request, Start};

use crate::clone::{Side, clone3};
use crate::fds::Fds;
use crate::host::Host;
use crate::idmap::UserNamespaces;
use crate::packet;
use crate::report::{Done, Step, failure};
use crate::root::Bare;
use crate::{init, sys};

/// All namespaces of a container but those that come with the request (user, network, and the cgroup's, whose root is
/// where it will be).
pub(crate) const NAMESPACES: u64 =
    (libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64;

/// An init that waits.
#[derive(Debug)]
pub(crate) struct Ready {
    pid: i32,
    pidfd: OwnedFd,
    socket: OwnedFd,
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

    /// Tells it that nobody needs it; what is answered is readable once it has ended.
    pub(crate) fn end(self) -> OwnedFd {
        self.pidfd
    }

    /// Gives it the packet of a start, with its descriptors. None if it is gone, or could not build its root.
    pub(crate) fn become_container<'a>(
        self,
        packet: &[u8],
        mut fds: Vec<BorrowedFd<'a>>,
        users: &'a UserNamespaces,
    ) -> Option<(i32, OwnedFd)> {
        fds.extend([users.container.as_fd(), users.site.as_fd()]);
        packet::send(self.socket.as_fd(), packet, &fds).ok()?;
        Some((self.pid, self.pidfd))
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
            let mut buffer = vec![0; MAX_PACKET];
            // Written to, or its pages would be made only when the request is there. Few need more.
            for page in buffer.chunks_mut(4096).take(2) {
                page.fill(1);
            }
            Ok((bare, receive(socket, buffer)?))
        });
    // Whoever is about to use it finds its socket closed and does without.
    let Ok((bare, Some((start, fds, users)))) = work else {
        sys::exit_now(0)
    };
    init::run(&start, fds, &users, host, Some(bare))
}

/// The request; None when the spawner is gone.
fn receive(
    socket: &OwnedFd,
    mut buffer: Vec<u8>,
) -> Done<Option<(Box<Start>, Fds, UserNamespaces)>> {
    let Some((length, mut fds)) = packet::receive(socket.as_fd(), &mut buffer)? else {
        return Ok(None);
    };
    let wrong = |errno| failure("take over", "a request", errno);
    let packet = buffer.get(..length).unwrap_or_default();
    let Ok(Request::Start(start)) = postcard::from_bytes(packet) else {
        return Err(wrong(libc::EBADMSG));
    };
    let (Some(site), Some(container)) = (fds.pop(), fds.pop()) else {
        return Err(wrong(libc::EBADF));
    };
    let mut fds = Fds::sort(fds, &start.fds, start.mounts.len())?;
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
    Ok(Some((start, fds, UserNamespaces { container, site })))
}
