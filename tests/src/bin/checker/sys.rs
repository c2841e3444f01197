//! System calls that no crate offers, or that must be made exactly as an attacker would.
#![allow(unsafe_code)]

use std::ffi::CStr;

/// An argument of a system call.
#[derive(Clone, Copy)]
pub(crate) enum Arg<'a> {
    /// A number.
    N(u64),
    /// A text.
    S(&'a CStr),
    /// Memory that the kernel reads.
    M(&'a [u8]),
}

/// The errno of the last call.
pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Makes a system call: its result or its errno. Only for calls that write to none of the memory given.
pub(crate) fn call(number: i64, args: &[Arg<'_>]) -> Result<i64, i32> {
    let mut raw = [0u64; 6];
    for (slot, arg) in raw.iter_mut().zip(args) {
        *slot = match arg {
            Arg::N(n) => *n,
            Arg::S(text) => text.as_ptr() as u64,
            Arg::M(memory) => memory.as_ptr() as u64,
        };
    }
    // SAFETY: pointers are to borrowed memory that outlives the call, which does not write there (see above); all
    // other arguments are numbers, and null where a pointer is left out.
    match unsafe { libc::syscall(number, raw[0], raw[1], raw[2], raw[3], raw[4], raw[5]) } {
        -1 => Err(errno()),
        result => Ok(result),
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Code(i32),
    Signal(i32),
}

/// Runs `work` in a child of its own; its result is the exit code.
pub(crate) fn in_child(work: impl FnOnce() -> i32) -> std::io::Result<End> {
    // SAFETY: this program has one thread, so that the child may do whatever its parent may.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()),
        0 => {
            let code = work();
            // SAFETY: never returns.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(wait(pid)),
    }
}

/// Makes a child that sleeps until it is killed; its pid.
pub(crate) fn sleeping_child() -> Result<i32, i32> {
    // SAFETY: as above.
    match unsafe { libc::fork() } {
        -1 => Err(errno()),
        0 => loop {
            // SAFETY: no arguments.
            unsafe { libc::pause() };
        },
        pid => Ok(pid),
    }
}

/// Waits for a child.
pub(crate) fn wait(pid: i32) -> End {
    let mut status = 0;
    // SAFETY: `status` is written before it is read; interrupted calls are repeated.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } == -1 && errno() == libc::EINTR {}
    if libc::WIFSIGNALED(status) {
        End::Signal(libc::WTERMSIG(status))
    } else {
        End::Code(libc::WEXITSTATUS(status))
    }
}

/// getpid through the 32-bit entry of this processor, whose numbers mean other calls.
#[cfg(target_arch = "x86_64")]
pub(crate) fn call_i386_getpid() -> i32 {
    let result: i32;
    // SAFETY: getpid (20) reads and writes no memory; the interrupt clobbers nothing but eax and r8 to r11.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") 20 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    result
}

/// The seccomp filter of a process that is being traced and stopped.
pub(crate) fn filter_of(pid: i32) -> Result<Vec<libc::sock_filter>, i32> {
    const PTRACE_SECCOMP_GET_FILTER: i64 = 0x420c;
    let null = std::ptr::null_mut::<libc::sock_filter>();
    // SAFETY: with a null buffer only the number of instructions is returned.
    let count = unsafe { libc::syscall(libc::SYS_ptrace, PTRACE_SECCOMP_GET_FILTER, pid, 0, null) };
    let count = usize::try_from(count).map_err(|_| errno())?;
    let mut code = vec![
        libc::sock_filter {
            code: 0,
            jt: 0,
            jf: 0,
            k: 0
        };
        count
    ];
    // SAFETY: the buffer has room for as many instructions as the kernel has just named; a filter never changes.
    match unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            PTRACE_SECCOMP_GET_FILTER,
            pid,
            0,
            code.as_mut_ptr(),
        )
    } {
        -1 => Err(errno()),
        _ => Ok(code),
    }
}

/// Installs a filter in this process.
pub(crate) fn install(filter: &[libc::sock_filter]) -> Result<(), i32> {
    let len = u16::try_from(filter.len()).map_err(|_| libc::E2BIG)?;
    let program = libc::sock_fprog {
        len,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the program points to `len` instructions, which the kernel copies and never writes.
    match unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    } {
        -1 => Err(errno()),
        _ => Ok(()),
    }
}

/// Soft and hard value of a resource limit.
pub(crate) fn rlimit(resource: i64) -> (u64, u64) {
    let mut limit = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let none = std::ptr::null::<libc::rlimit64>();
    // SAFETY: only the old value is asked for, and there is room for it.
    unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, none, &raw mut limit) };
    (limit.rlim_cur, limit.rlim_max)
}

/// Whether the kernel says that this program got more power by its execution than its caller had.
pub(crate) fn secure_execution() -> bool {
    // SAFETY: reads a value that the kernel has put beside the arguments.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// How many pages of an open file are in memory.
pub(crate) fn resident(fd: i32, length: usize) -> Result<usize, i32> {
    const PAGE: usize = 4096;
    let (null, shared) = (std::ptr::null_mut(), libc::MAP_SHARED);
    // SAFETY: a mapping of its own, at an address of the kernel's choice.
    let at = unsafe { libc::mmap(null, length, libc::PROT_READ, shared, fd, 0) };
    if at == libc::MAP_FAILED {
        return Err(errno());
    }
    let mut pages = vec![0u8; length.div_ceil(PAGE)];
    // SAFETY: the range is the mapping, and there is a byte for each of its pages.
    let result = unsafe { libc::mincore(at, length, pages.as_mut_ptr()) };
    let failed = (result == -1).then(errno);
    // SAFETY: the mapping from above, to which nothing points.
    unsafe { libc::munmap(at, length) };
    match failed {
        Some(errno) => Err(errno),
        None => Ok(pages.iter().filter(|page| *page & 1 == 1).count()),
    }
}
