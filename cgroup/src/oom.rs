//! Being told that the kernel kills in a group for want of memory, without looking at its counters all the time.

use std::os::fd::RawFd;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::dir::{read_all, write_fd};
use crate::hierarchy::Controller;
use crate::{Error, Group};

/// Becomes ready when a process of the group may have been killed for want of memory. A hint: the counter
/// ([`crate::Usage::oom_kills`]) says whether it was, on v1 a moment later.
#[derive(Debug)]
pub struct OomEvents {
    fd: OwnedFd,
    v2: bool,
}

impl OomEvents {
    /// Whether readiness is an exceptional condition (POLLPRI, on v2) rather than readable data (POLLIN, on v1).
    #[must_use]
    pub fn is_priority(&self) -> bool {
        self.v2
    }

    /// Takes note of what has happened so far: ready again after the next time.
    pub fn clear(&self) -> Result<(), Error> {
        let failed = |e| Error::sys("read", "the notices of memory shortage", e);
        if self.v2 {
            return read_all(&self.fd).map(drop).map_err(failed);
        }
        match rustix::io::read(&self.fd, &mut [0u8; 8]) {
            // Nothing new.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(e) => Err(failed(e)),
        }
    }
}

impl AsFd for OomEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for OomEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Group {
    /// Processes that the kernel has killed for want of memory, as [`crate::Usage::oom_kills`], for one read instead of a
    /// dozen; `None` where the group has no memory controller.
    pub fn oom_kills(&self) -> Result<Option<u64>, Error> {
        let Some((root, dir)) = self.slot(Controller::Memory) else {
            return Ok(None);
        };
        root.backend().oom_kills(dir)
    }

    /// Asks to be told; `None` where the group has no memory controller.
    pub fn oom_events(&self) -> Result<Option<OomEvents>, Error> {
        let Some((root, dir)) = self.slot(Controller::Memory) else {
            return Ok(None);
        };
        let open = |name, flags| {
            dir.open_file(name, flags)
                .map_err(|e| dir.error("open", name, e))
        };
        if root.v2 {
            let fd = open("memory.events", OFlags::RDONLY)?;
            let events = OomEvents { fd, v2: true };
            // The kernel compares with what was read last.
            events.clear()?;
            return Ok(Some(events));
        }
        let control = open("memory.oom_control", OFlags::RDONLY)?;
        let register = open("cgroup.event_control", OFlags::WRONLY)?;
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| Error::sys("make", "an eventfd", e))?;
        let text = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
        write_fd(&register, &text)
            .map_err(|e| dir.error("register with", "cgroup.event_control", e))?;
        Ok(Some(OomEvents { fd, v2: false }))
    }
}
