//! The system calls that rustix does not offer, or not for a raw signal, resource or descriptor number.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// errno of the system call just made through libc.
pub(crate) fn last_errno() -> Errno {
    std::io::Error::last_os_error()
        .raw_os_error()
        .map_or(Errno::IO, Errno::from_raw_os_error)
}

fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(result)
    }
}

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MountAttr {
    /// `MOUNT_ATTR_*` to set.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub(crate) clear: u64,
    /// `MS_PRIVATE` and the like, or 0.
    pub(crate) propagation: u64,
    /// User namespace for `MOUNT_ATTR_IDMAP`.
    pub(crate) userns: u64,
}

/// mount_setattr on the mount that `fd` is the root of.
pub(crate) fn mount_setattr(fd: BorrowedFd<'_>, attr: &MountAttr) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH;
    // SAFETY: the path is a C string, `attr` is a mount_attr of the size given; the kernel only reads both.
    let r = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    check(r).map(drop)
}

/// Sets as whom this process makes files, and leaves everything else about its ids.
pub(crate) fn make_files_as(uid: u32, gid: u32) -> Result<(), Errno> {
    // SAFETY: a plain number.
    unsafe { libc::setfsgid(gid) };
    // SAFETY: a plain number.
    unsafe { libc::setfsuid(uid) };
    // The calls return the old id instead of an error; with an invalid one they change nothing.
    // SAFETY: a plain number.
    let gid_now = unsafe { libc::setfsgid(u32::MAX) };
    // SAFETY: a plain number.
    let uid_now = unsafe { libc::setfsuid(u32::MAX) };
    if (uid_now.cast_unsigned(), gid_now.cast_unsigned()) == (uid, gid) {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}

/// unshare of namespaces (never of the descriptor table).
pub(crate) fn unshare(namespace: i32) -> Result<(), Errno> {
    // SAFETY: no descriptor's meaning changes.
    check(unsafe { libc::unshare(namespace) }.into()).map(drop)
}

/// Takes descriptor `raw`, which the parent process passed on; None if it is not open.
pub(crate) fn inherited(raw: i32) -> Option<OwnedFd> {
    // SAFETY: F_GETFD only asks whether the number is in use.
    if unsafe { libc::fcntl(raw, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, was given to this process for this purpose, and this is called once for each, before
    // anything else is opened.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(fd)
}

/// dup2 onto a fixed number that stays open across execve.
pub(crate) fn place(fd: BorrowedFd<'_>, number: i32) -> Result<(), Errno> {
    // SAFETY: `fd` is open; the caller gives numbers that no OwnedFd of this process is going to use again (it is
    // about to execve).
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into()).map(drop)
}

/// Marks every descriptor from `first` on to be closed by execve.
pub(crate) fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: only flags of descriptors change.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Closes every descriptor that is not in `keep`. Only for a process that goes on with these alone: every other
/// OwnedFd it may still hold in its copied memory must be forgotten, never dropped.
pub(crate) fn close_all_but(keep: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut numbers: Vec<u32> = keep
        .iter()
        .filter_map(|f| u32::try_from(f.as_raw_fd()).ok())
        .collect();
    numbers.sort_unstable();
    let mut first = 0;
    for n in numbers.into_iter().chain([u32::MAX]) {
        if first < n {
            // SAFETY: the caller does not use the others any more.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, n - 1, 0) })?;
        }
        first = n.saturating_add(1);
    }
    Ok(())
}

/// setrlimit of this process through `RLIMIT_*` numbers; returns the old soft and hard values.
pub(crate) fn rlimit(resource: u32, new: Option<(u64, u64)>) -> Result<(u64, u64), Errno> {
    let mut old = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let new = new.map(|(soft, hard)| libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    });
    let new_ptr = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both point to a rlimit64 or are null; pid 0 is the caller.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, new_ptr, &raw mut old) })?;
    Ok((old.rlim_cur, old.rlim_max))
}

/// Sets a signal's action to default or ignored. Not through libc, which keeps signals 32 to 34 to itself; they may
/// have been inherited ignored all the same.
pub(crate) fn set_signal(signal: i32, ignored: bool) {
    /// The kernel's `struct sigaction` of x86_64 and aarch64.
    #[repr(C)]
    struct Action {
        handler: usize,
        flags: usize,
        restorer: usize,
        mask: u64,
    }
    let action = Action {
        handler: if ignored {
            libc::SIG_IGN
        } else {
            libc::SIG_DFL
        },
        flags: 0,
        restorer: 0,
        mask: 0,
    };
    // SAFETY: the action has the kernel's layout, and neither of the two runs any code of ours. Fails only for numbers
    // that have no action (KILL, STOP), which need none.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            &raw const action,
            std::ptr::null::<Action>(),
            size_of::<u64>(),
        )
    };
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the whole set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for &s in signals {
        // SAFETY: the set is initialised.
        unsafe { libc::sigaddset(set.as_mut_ptr(), s) };
    }
    // SAFETY: the set is initialised.
    unsafe { set.assume_init() }
}

/// Makes exactly `signals` blocked.
pub(crate) fn block_only(signals: &[i32]) {
    let set = signal_set(signals);
    // SAFETY: the set is valid and the old one is not asked for; fails only for a wrong first argument.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
}

/// A non-blocking signalfd for `signals`, which must be blocked.
pub(crate) fn signalfd(signals: &[i32]) -> Result<OwnedFd, Errno> {
    let set = signal_set(signals);
    // SAFETY: the set is valid; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    let fd = i32::try_from(check(fd.into())?).map_err(|_| Errno::BADF)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next pending signal of a signalfd, None if there is none.
pub(crate) fn next_signal(fd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(fd, &mut info) {
        // ssi_signo is the first member.
        Ok(n) if n == info.len() => {
            i32::try_from(u32::from_ne_bytes([info[0], info[1], info[2], info[3]])).ok()
        }
        _ => None,
    }
}

/// kill with any signal number.
pub(crate) fn kill(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: plain numbers.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// Installs a seccomp filter; no_new_privs must be set.
pub(crate) fn install_filter(filter: &[libc::sock_filter]) -> Result<(), Errno> {
    let len = u16::try_from(filter.len()).map_err(|_| Errno::TOOBIG)?;
    let program = libc::sock_fprog {
        len,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the program points to `len` instructions, which the kernel copies and never writes.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    })
    .map(drop)
}

/// Replaces the inherited session keyring, so that no key of the host can be reached through possession.
pub(crate) fn new_session_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let r = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<u8>(),
            0,
            0,
            0,
        )
    };
    match check(r) {
        // A kernel without keyrings has nothing to leave behind.
        Ok(_) | Err(Errno::NOSYS) => Ok(()),
        Err(e) => Err(e),
    }
}

/// execve; returns only if it failed.
pub(crate) fn execve(path: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    let pointers = |v: &[CString]| {
        v.iter()
            .map(|s| s.as_ptr())
            .chain([std::ptr::null()])
            .collect::<Vec<_>>()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with a null pointer and their strings live as long as the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    last_errno()
}

/// Ends this process without running exit handlers or destructors of what was copied from the parent.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
}
