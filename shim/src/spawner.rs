//! The loop that takes requests from the agent and clones a process for each.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal, pidfd_send_signal, set_dumpable_behavior};
use shim::protocol::{Failure, MAX_PACKET, Reply, Request};

use crate::clone::{Side, clone3};
use crate::fds::Fds;
use crate::host::Host;
use crate::idmap::Cache;
use crate::ready::{NAMESPACES, Ready};
use crate::report::{Done, Step, failure};
use crate::{exec, host, init, packet, sys, validate};

/// The agent's socket.
const CONTROL: i32 = 3;

/// What a request came to.
struct Started {
    id: u64,
    pid: i32,
    pidfd: OwnedFd,
}

/// An init is made ahead when nothing has been asked for this long: not beside the start that has just taken one.
const REST: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 3_000_000,
};

/// How long an init that waits may take to end.
const END_LIMIT: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// Serves until the agent closes its end, with up to `ahead` inits made ahead.
pub(crate) fn run(ahead: usize) -> Done<()> {
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
        ready: VecDeque::new(),
        ahead,
    };
    let mut buffer = vec![0u8; MAX_PACKET].into_boxed_slice();
    loop {
        spawner.make_ahead();
        let (length, fds) = match packet::receive(spawner.control.as_fd(), &mut buffer) {
            Ok(Some(packet)) => packet,
            Ok(None) => {
                spawner.end();
                return Ok(());
            }
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
    ready: VecDeque<Ready>,
    ahead: usize,
}

impl Spawner {
    /// The agent is gone: the inits that wait end with their sockets. Waits for them, so that nobody finds them where the
    /// agent was.
    fn end(self) {
        let waiting: Vec<OwnedFd> = self.ready.into_iter().map(Ready::end).collect();
        for init in &waiting {
            let mut ended = [PollFd::new(init, PollFlags::IN)];
            // Err or none: it is left to whoever ends what is left.
            let _ = poll(&mut ended, Some(&END_LIMIT));
        }
    }

    /// Until a request comes or there are enough.
    fn make_ahead(&mut self) {
        while self.ready.len() < self.ahead && is_idle(self.control.as_fd(), REST) {
            match Ready::make(&self.host) {
                Ok(init) => self.ready.push_back(init),
                // No more processes, say. The next request finds out, and after it this is tried again.
                Err(_) => return,
            }
        }
    }

    fn handle(&mut self, packet: &[u8], fds: Vec<OwnedFd>) -> Result<Started, (u64, Failure)> {
        let bad = |_| (0, failure("decode the request", "", libc::EBADMSG));
        match postcard::from_bytes::<Request>(packet).map_err(bad)? {
            Request::Start(start) => {
                let id = start.id;
                self.start(&start, packet, fds)
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

    fn start(
        &mut self,
        start: &shim::protocol::Start,
        packet: &[u8],
        fds: Vec<OwnedFd>,
    ) -> Done<(i32, OwnedFd)> {
        validate::start(start)?;
        let fds = Fds::sort(fds, &start.fds, start.mounts.len())?;
        fds.check_start(start.joins_later)?;
        let users = self.namespaces.get(start.ids)?;
        while let Some(init) = self.ready.pop_front() {
            if let Some(started) = init.become_container(packet, fds.in_order(&start.fds), &users) {
                return Ok(started);
            }
        }
        let cgroup = fds.cgroup_dir.as_ref().map(AsFd::as_fd);
        match clone3(NAMESPACES, cgroup).step("clone", "the container's init")? {
            Side::Parent { pid, pidfd } => Ok((pid, pidfd)),
            Side::Child => init::run(start, fds, &users, &self.host, None),
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
        let encoding = |_| failure("encode the reply", "", libc::EMSGSIZE);
        let bytes = postcard::to_stdvec(&reply).map_err(encoding)?;
        let fds: Vec<BorrowedFd<'_>> = pidfd.into_iter().collect();
        let sent = packet::send(self.control.as_fd(), &bytes, &fds).step("answer", "the agent");
        if let (Err(_), Some(fd)) = (&sent, pidfd) {
            let _already_dead = pidfd_send_signal(fd, Signal::KILL);
        }
        sent
    }
}

/// Whether a request has come; waits for one for `limit`.
fn is_idle(control: BorrowedFd<'_>, limit: Timespec) -> bool {
    let mut control = [PollFd::from_borrowed_fd(control, PollFlags::IN)];
    matches!(poll(&mut control, Some(&limit)), Ok(0))
}
