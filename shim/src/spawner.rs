//! The loop that takes requests from the agent and clones a process for each.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{DumpableBehavior, Signal, pidfd_send_signal, set_dumpable_behavior};
use shim::protocol::{Failure, MAX_FDS, MAX_PACKET, Reply, Request};

use crate::clone::{Side, clone3};
use crate::fds::Fds;
use crate::host::Host;
use crate::idmap::Cache;
use crate::report::{Done, Step, failure};
use crate::{exec, host, init, sys, validate};

/// The agent's socket.
const CONTROL: i32 = 3;

/// What a request came to.
struct Started {
    id: u64,
    pid: i32,
    pidfd: OwnedFd,
}

/// Serves until the agent closes its end.
pub(crate) fn run() -> Done<()> {
    let control = sys::inherited(CONTROL).ok_or_else(|| {
        failure(
            "use the agent's socket",
            "descriptor 3",
            Errno::BADF.raw_os_error(),
        )
    })?;
    for signal in 1..=64 {
        sys::set_signal(signal, false);
    }
    // Nobody waits for the children: the agent has their pidfds, and their exit status comes by the exit file.
    sys::set_signal(libc::SIGCHLD, true);
    sys::set_signal(libc::SIGPIPE, true);
    sys::block_only(&[]);
    // Inherited by every child until it executes something: none of them can be traced from inside a container.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("become untraceable", "")?;
    rustix::thread::set_name(c"fc-spawner").step("set the process name", "")?;
    host::be_killable()?;
    // Modes are given exactly by whoever makes a file.
    rustix::process::umask(Mode::empty());
    let (host, proc) = Host::look()?;
    host::own_mounts()?;
    let mut spawner = Spawner {
        control,
        host,
        namespaces: Cache::new(proc)?,
    };
    let mut buffer = vec![0u8; MAX_PACKET].into_boxed_slice();
    loop {
        let (length, fds) = match receive(spawner.control.as_fd(), &mut buffer) {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(()),
            Err(f) => {
                spawner.answer(&Err((0, f)))?;
                continue;
            }
        };
        let done = spawner.handle(buffer.get(..length).unwrap_or_default(), fds);
        spawner.answer(&done)?;
    }
}

struct Spawner {
    control: OwnedFd,
    host: Host,
    namespaces: Cache,
}

impl Spawner {
    fn handle(&mut self, packet: &[u8], fds: Vec<OwnedFd>) -> Result<Started, (u64, Failure)> {
        let bad = |_| (0, failure("decode the request", "", libc::EBADMSG));
        match postcard::from_bytes::<Request>(packet).map_err(bad)? {
            Request::Start(start) => {
                let id = start.id;
                self.start(&start, fds)
                    .map(|(pid, pidfd)| Started { id, pid, pidfd })
                    .map_err(|f| (id, f))
            }
            Request::Exec(request) => {
                let id = request.id;
                self.exec(&request, fds)
                    .map(|(pid, pidfd)| Started { id, pid, pidfd })
                    .map_err(|f| (id, f))
            }
        }
    }

    fn start(&mut self, start: &shim::protocol::Start, fds: Vec<OwnedFd>) -> Done<(i32, OwnedFd)> {
        validate::start(start)?;
        let fds = Fds::sort(fds, &start.fds, start.mounts.len())?;
        fds.check_start()?;
        let users = self.namespaces.get(start.ids)?;
        let namespaces =
            libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        let cgroup = fds.cgroup_dir.as_ref().map(AsFd::as_fd);
        match clone3(namespaces as u64, cgroup).step("clone", "the container's init")? {
            Side::Parent { pid, pidfd } => Ok((pid, pidfd)),
            Side::Child => init::run(start, fds, &users, &self.host),
        }
    }

    fn exec(&mut self, request: &shim::protocol::Exec, fds: Vec<OwnedFd>) -> Done<(i32, OwnedFd)> {
        validate::exec(request)?;
        let fds = Fds::sort(fds, &request.fds, 0)?;
        fds.check_exec()?;
        let cgroup = fds.cgroup_dir.as_ref().map(AsFd::as_fd);
        match clone3(0, cgroup).step("clone", "the command's parent")? {
            Side::Parent { pid, pidfd } => Ok((pid, pidfd)),
            Side::Child => exec::run(request, fds, &self.host),
        }
    }

    /// Tells the agent. If it is gone, what was just started is ended: nobody would ever know of it.
    fn answer(&self, done: &Result<Started, (u64, Failure)>) -> Done<()> {
        let (reply, pidfd) = match done {
            Ok(s) => (
                Reply::Started {
                    id: s.id,
                    pid: s.pid,
                },
                Some(s.pidfd.as_fd()),
            ),
            Err((id, f)) => (
                Reply::Refused {
                    id: *id,
                    failure: f.clone(),
                },
                None,
            ),
        };
        let sent = send_reply(self.control.as_fd(), &reply, pidfd);
        if let (Err(_), Some(fd)) = (&sent, pidfd) {
            let _already_dead = pidfd_send_signal(fd, Signal::KILL);
        }
        sent
    }
}

/// One packet and its descriptors; None at end of file.
fn receive(control: BorrowedFd<'_>, buffer: &mut [u8]) -> Done<Option<(usize, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut iov = [IoSliceMut::new(buffer)];
        match recvmsg(control, &mut iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            // The other end was closed with packets of ours unread.
            Err(Errno::CONNRESET) => return Ok(None),
            other => break other.step("receive from", "the agent")?,
        }
    };
    let mut fds = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    if message
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(failure(
            "receive a request",
            "too long, or with too many descriptors",
            libc::EMSGSIZE,
        ));
    }
    Ok((message.bytes > 0).then_some((message.bytes, fds)))
}

fn send_reply(control: BorrowedFd<'_>, reply: &Reply, pidfd: Option<BorrowedFd<'_>>) -> Done<()> {
    let encoding = |_| failure("encode the reply", "", libc::EMSGSIZE);
    let bytes = postcard::to_stdvec(reply).map_err(encoding)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = pidfd.into_iter().collect();
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    }
    loop {
        match sendmsg(
            control,
            &[IoSlice::new(&bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        ) {
            Err(Errno::INTR) => {}
            other => return other.map(drop).step("answer", "the agent"),
        }
    }
}
