//! What an init needs of the kernel whatever its container is: signals as a descriptor, a session, the pipes of the command's
//! output, the gate at which the command waits.

use std::os::fd::OwnedFd;

use rustix::fs::{Gid, OFlags, Uid, fchown, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use shim::protocol::Ids;

use crate::command::Gate;
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
