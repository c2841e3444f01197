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
use crate::idmap::Maker;
use crate::ready::{NAMESPACES, Ready};
use crate::report::{Done, Step, failure};
use crate::{exec, host, init, packet, sys, validate};

/// The agent's socket.
const CONTROL: i32 = 3;
/// See [`Host::lone`].
const LONE: i32 = 4;

/// What a request came to: its reply, and what goes with that.
type Answer = Result<(Reply, Vec<OwnedFd>), (u64, Failure)>;

/// An init is made ahead when nothing has been asked for this long: not beside other starts.
const REST: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 3_000_000,
};

/// Serves until the agent closes its end.
pub(crate) fn run() -> Done<()> {
    let inherited = |number, what: &str| {
        let missing = || failure("use", what, Errno::BADF.raw_os_error());
        sys::inherited(number).ok_or_else(missing)
    };
    let control = inherited(CONTROL, "the agent's socket, descriptor 3")?;
    let lone = inherited(LONE, "the empty network namespace, descriptor 4")?;
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
    let (host, proc) = Host::look(lone)?;
    host::own_mounts(&proc, &host.lone)?;
    let mut spawner = Spawner {
        control,
        host,
        namespaces: Maker::new(proc)?,
        ahead: VecDeque::new(),
    };
    let mut buffer = vec![0u8; MAX_PACKET].into_boxed_slice();
    loop {
        spawner.make_ahead()?;
        let (length, fds) = match packet::receive(spawner.control.as_fd(), &mut buffer) {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(()),
            Err(f) => {
                spawner.answer(Err((0, f)))?;
                continue;
            }
        };
        if let Some(done) = spawner.handle(buffer.get(..length).unwrap_or_default(), fds) {
            spawner.answer(done)?;
        }
    }
}

struct Spawner {
    control: OwnedFd,
    host: Host,
    namespaces: Maker,
    /// The requests for inits made ahead that are not answered yet.
    ahead: VecDeque<u64>,
}

impl Spawner {
    /// Until another request comes, or all that were asked for are there.
    fn make_ahead(&mut self) -> Done<()> {
        while !self.ahead.is_empty() && is_idle(self.control.as_fd(), REST) {
            let Some(id) = self.ahead.pop_front() else {
                return Ok(());
            };
            let made = Ready::make(&self.host);
            self.answer(made.map_err(|f| (id, f)).map(|ready| {
                let reply = Reply::Ready { id, pid: ready.pid };
                (reply, vec![ready.pidfd, ready.socket, ready.main])
            }))?;
        }
        Ok(())
    }

    /// None if it is answered later.
    fn handle(&mut self, packet: &[u8], fds: Vec<OwnedFd>) -> Option<Answer> {
        let started = |id, done: Done<(i32, OwnedFd)>| {
            done.map(|(pid, pidfd)| (Reply::Started { id, pid }, vec![pidfd]))
                .map_err(|f| (id, f))
        };
        Some(match postcard::from_bytes::<Request>(packet) {
            Ok(Request::Start(start)) => started(start.id, self.start(&start, fds)),
            Ok(Request::Exec(request)) => started(request.id, self.exec(&request, fds)),
            Ok(Request::Users { id, ids }) => validate::ids(&ids)
                .and_then(|()| self.namespaces.make(ids))
                .map(|users| (Reply::Users { id }, vec![users.container, users.site]))
                .map_err(|f| (id, f)),
            Ok(Request::Ahead { id }) => {
                self.ahead.push_back(id);
                return None;
            }
            Ok(Request::Run(_)) | Err(_) => {
                Err((0, failure("decode the request", "", libc::EBADMSG)))
            }
        })
    }

    fn start(&self, start: &shim::protocol::Start, fds: Vec<OwnedFd>) -> Done<(i32, OwnedFd)> {
        let fds = validate::with_descriptors(start, fds, false)?;
        let cgroup = fds.cgroup_dir.as_ref().map(AsFd::as_fd);
        match clone3(NAMESPACES, cgroup).step("clone", "the container's init")? {
            Side::Parent { pid, pidfd } => Ok((pid, pidfd)),
            Side::Child => init::run(start, fds, &self.host, None),
        }
    }

    fn exec(&self, request: &shim::protocol::Exec, fds: Vec<OwnedFd>) -> Done<(i32, OwnedFd)> {
        validate::exec(request)?;
        let fds = Fds::sort(fds, &request.fds, 0)?;
        fds.check_exec()?;
        let cgroup = fds.cgroup_dir.as_ref().map(AsFd::as_fd);
        match clone3(0, cgroup).step("clone", "the command's parent")? {
            Side::Parent { pid, pidfd } => Ok((pid, pidfd)),
            Side::Child => exec::run(request, fds, &self.host),
        }
    }

    /// Tells the agent. If it is gone, what was just started is ended: nobody would ever know of it. (An init made ahead
    /// ends with its socket.)
    fn answer(&self, done: Answer) -> Done<()> {
        let (reply, fds) =
            done.unwrap_or_else(|(id, failure)| (Reply::Refused { id, failure }, Vec::new()));
        let encoding = |_| failure("encode the reply", "", libc::EMSGSIZE);
        let bytes = postcard::to_stdvec(&reply).map_err(encoding)?;
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let sent =
            packet::send(self.control.as_fd(), &bytes, &borrowed).step("answer", "the agent");
        if let (Err(_), Reply::Started { .. }, Some(pidfd)) = (&sent, &reply, fds.first()) {
            let _already_dead = pidfd_send_signal(pidfd, Signal::KILL);
        }
        sent
    }
}

/// Whether a request has come; waits for one for `limit`.
fn is_idle(control: BorrowedFd<'_>, limit: Timespec) -> bool {
    let mut control = [PollFd::from_borrowed_fd(control, PollFlags::IN)];
    matches!(poll(&mut control, Some(&limit)), Ok(0))
}
