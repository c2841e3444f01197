//! What an init needs of the kernel whatever its container is: signals as a descriptor, a session, the pipes of the command's
//! output, the gate at which the command waits.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Gid, OFlags, Uid, fchown, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use shim::protocol::Ids;

use crate::reap::FORWARDED;
use crate::report::{Done, Step};
use crate::sys;

/// See the module.
#[derive(Debug)]
pub(crate) struct Plumbing {
    pub(crate) signals: OwnedFd,
    pub(crate) out: Pipe,
    pub(crate) err: Pipe,
    pub(crate) gate: Gate,
}

/// A pipe whose write end the command gets.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// Never blocks.
    pub(crate) read: OwnedFd,
    pub(crate) write: OwnedFd,
}

/// Holds a command back until its parent has built the root. A parent that dies before that takes the whole pid
/// namespace with it.
///
/// An eventfd: the write to a pipe wakes its reader on the writer's processor, where the command would wait for the
/// parent to have done everything else.
#[derive(Debug)]
pub(crate) struct Gate(OwnedFd);

impl Gate {
    fn new() -> Done<Self> {
        eventfd(0, EventfdFlags::CLOEXEC)
            .map(Self)
            .step("make", "an eventfd")
    }

    /// The parent's side: lets the command go.
    pub(crate) fn open(&self) -> Done<()> {
        rustix::io::write(&self.0, &1u64.to_ne_bytes())
            .map(drop)
            .step("let go", "the command")
    }

    /// The command's side.
    pub(crate) fn pass(&self) -> Done<()> {
        rustix::io::read(&self.0, &mut [0; 8])
            .map(drop)
            .step("wait for", "the root")
    }
}

impl From<OwnedFd> for Gate {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Gate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Plumbing {
    /// Makes all of it, in the process that becomes init.
    pub(crate) fn lay() -> Done<Self> {
        sys::set_signal(libc::SIGCHLD, false);
        sys::block_only(FORWARDED);
        let signals = sys::signalfd(FORWARDED).step("make a signal descriptor", "")?;
        rustix::process::setsid().step("make a session", "")?;
        Ok(Self {
            signals,
            out: Pipe::new()?,
            err: Pipe::new()?,
            gate: Gate::new()?,
        })
    }

    /// Gives the pipes to the site's user, so that programs that open /dev/stderr once more can.
    pub(crate) fn give_to(&self, ids: Ids) -> Done<()> {
        let owner = (Uid::from_raw(ids.host_uid()), Gid::from_raw(ids.host_gid()));
        for pipe in [&self.out, &self.err] {
            fchown(&pipe.write, Some(owner.0), Some(owner.1))
                .step("change the owner of", "a pipe")?;
        }
        Ok(())
    }
}

impl Pipe {
    fn new() -> Done<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).step("make", "a pipe")?;
        fcntl_setfl(&read, OFlags::NONBLOCK).step("make non-blocking", "a pipe")?;
        Ok(Self { read, write })
    }
}
