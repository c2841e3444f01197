//! The ways this program makes processes. It has one thread, and no child but the idle one shares its memory, so that a
//! child may do whatever its parent may.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getppid, pidfd_send_signal, set_parent_process_death_signal};

/// `struct clone_args` of linux/sched.h, version 2 (88 bytes, Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// On which side of a clone the caller finds itself.
pub(crate) enum Side {
    /// The new process.
    Child,
    /// The old one.
    Parent {
        /// The child's pid here.
        pid: i32,
        /// A pidfd of the child.
        pidfd: OwnedFd,
    },
}

/// clone3 with `namespaces` (`CLONE_NEW*`), into `cgroup` if there is one, always with a pidfd, without shared memory.
pub(crate) fn clone3(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Side, Errno> {
    const CLONE_PIDFD: u64 = 0x1000;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: i32 = -1;
    let mut args = CloneArgs {
        flags: namespaces | CLONE_PIDFD,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid clone_args of the size given and `pidfd` outlives the call. Without CLONE_VM and
    // with no stack given this is fork: the child has its own copy of this single thread's memory and stack.
    let r = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match r {
        0 => Ok(Side::Child),
        pid if pid > 0 => {
            // SAFETY: the kernel put a new descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Side::Parent {
                pid: i32::try_from(pid).unwrap_or(-1),
                pidfd,
            })
        }
        _ => Err(crate::sys::last_errno()),
    }
}

/// A stack that more than suffices for a few system calls, in pages of its own.
#[repr(C, align(4096))]
struct Stack([MaybeUninit<u8>; 16_384]);

/// An idle process at a time: it shares all memory with this one, so that nothing has to be copied for it, neither now nor
/// when this one goes on and writes.
pub(crate) struct Idle {
    stack: &'static mut Stack,
    pidfd: Option<OwnedFd>,
}

impl Idle {
    /// None as yet. The stack is for ever: it outlives whoever runs on it.
    pub(crate) fn new() -> Self {
        let stack = Box::leak(Box::new(Stack([MaybeUninit::uninit(); 16_384])));
        Self { stack, pidfd: None }
    }

    /// A process in new `namespaces` that does nothing until [`Self::end`]; its pid. The last one is over first.
    pub(crate) fn start(&mut self, namespaces: i32) -> Result<i32, Errno> {
        const CLONE_PIDFD: i32 = 0x1000;
        self.end();
        if let Some(pidfd) = self.pidfd.take() {
            let mut over = [PollFd::new(&pidfd, PollFlags::IN)];
            if let Err(error) = rustix::io::retry_on_intr(|| poll(&mut over, None)) {
                // It may still be on the stack.
                self.pidfd = Some(pidfd);
                return Err(error);
            }
        }
        let top = (&raw mut *self.stack).wrapping_add(1);
        let parent = rustix::process::getpid().as_raw_nonzero().get();
        let parent = std::ptr::without_provenance_mut(parent as usize);
        let mut pidfd: i32 = -1;
        let flags = namespaces | libc::CLONE_VM | CLONE_PIDFD | libc::SIGCHLD;
        // SAFETY: the stack is 16 kB of our own that grows down from its aligned end, lives for ever, and has nobody on it:
        // whoever was there before is over. `pidfd` outlives the call. The child shares this process's memory and
        // thread-local data, and `idle` writes to neither but on that stack: it makes its system calls directly, which sets
        // no errno, and calls nothing else. It handles no signal.
        let pid = unsafe { libc::clone(idle, top.cast(), flags, parent, &raw mut pidfd) };
        if pid < 0 {
            return Err(crate::sys::last_errno());
        }
        // SAFETY: the kernel put a new descriptor there, which nobody else owns.
        self.pidfd = Some(unsafe { OwnedFd::from_raw_fd(pidfd) });
        Ok(pid)
    }

    /// Ends it, if there is one, without waiting. Nobody has to wait for it later: SIGCHLD is ignored.
    pub(crate) fn end(&self) {
        if let Some(pidfd) = &self.pidfd {
            // Err: it is over.
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }
}

/// Waits to be killed. `parent` is a pid.
extern "C" fn idle(parent: *mut libc::c_void) -> libc::c_int {
    // Not to outlive a parent that dies before it kills; it may have before this.
    let told = set_parent_process_death_signal(Some(Signal::KILL)).is_ok();
    let now = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if !told || now as usize != parent.addr() {
        return 1;
    }
    loop {
        let _interrupted = poll(&mut [], None);
    }
}

/// fork; None is the child.
pub(crate) fn fork() -> Result<Option<Pid>, Errno> {
    // SAFETY: this program has one thread, so that the child may use everything the parent may.
    match unsafe { libc::fork() } {
        -1 => Err(crate::sys::last_errno()),
        pid => Ok(Pid::from_raw(pid)),
    }
}
