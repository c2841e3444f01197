//! The two ways this program makes processes. It has one thread, and no child shares its memory, so that a child
//! may do whatever its parent may.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::Pid;

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

/// fork; None is the child.
pub(crate) fn fork() -> Result<Option<Pid>, Errno> {
    // SAFETY: this program has one thread, so that the child may use everything the parent may.
    match unsafe { libc::fork() } {
        -1 => Err(crate::sys::last_errno()),
        pid => Ok(Pid::from_raw(pid)),
    }
}
