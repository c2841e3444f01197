#![allow(unsafe_code)]
//! The few system calls that no safe crate offers.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Supplementary groups of the peer of a Unix socket (SO_PEERGROUPS, Linux 4.13).
pub(crate) fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 64];
    loop {
        let mut size = libc::socklen_t::try_from(groups.len() * size_of::<u32>())
            .unwrap_or(libc::socklen_t::MAX);
        // SAFETY: `groups` is valid for writes of `size` bytes, which is what the kernel is told, and the kernel
        // writes no more than that; a gid_t is a u32 and every bit pattern of it is valid.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut size,
            )
        };
        let count = size as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // ERANGE: `size` now says how much is needed; the kernel bounds it (NGROUPS_MAX is 65,536).
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

/// Soft and hard limit of the open files of a process; with `new` they are set, and those before are answered.
///
/// With `owner` the kernel is asked as that user, to whom the process's user namespace belongs and who therefore may do
/// that there. Only for this thread and call, and nobody gains power over the thread: its real and saved uid stay.
pub(crate) fn open_files(
    pid: i32,
    new: Option<(u64, u64)>,
    owner: Option<u32>,
) -> io::Result<(u64, u64)> {
    let mut old = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let new = new.map(|(soft, hard)| libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    });
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    if let Some(owner) = owner {
        be_effectively(owner)?;
    }
    // SAFETY: `new` is null or points to a rlimit64 that the kernel reads, `old` to one that it writes; both live until
    // it has returned.
    let result = match unsafe { libc::prlimit64(pid, libc::RLIMIT_NOFILE, new, &raw mut old) } {
        0 => Ok((old.rlim_cur, old.rlim_max)),
        _ => Err(io::Error::last_os_error()),
    };
    if owner.is_some() && be_effectively(0).is_err() {
        // It may always become again what it still is by its real uid; no thread goes on as somebody else.
        std::process::abort();
    }
    result
}

/// Sets the effective uid of this thread alone, which libc's function would do for all.
fn be_effectively(uid: u32) -> io::Result<()> {
    let keep = u32::MAX;
    // SAFETY: takes and changes no memory of this process; libc keeps no copy of the ids.
    match unsafe { libc::syscall(libc::SYS_setresuid, keep, uid, keep) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has the allocator give back to the kernel every page that it keeps and nobody uses; no other thread allocates from the
/// part of the heap that it is at.
#[cfg(target_env = "gnu")]
pub(crate) fn trim_heap() {
    // SAFETY: takes no pointer and invalidates none: what is allocated stays where it is. Callable from any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Bytes that are allocated, by the allocator's own count (glibc 2.33).
#[cfg(target_env = "gnu")]
pub(crate) fn allocated() -> usize {
    // SAFETY: takes no pointer; answers a structure by value. Callable from any thread.
    let now = unsafe { libc::mallinfo2() };
    now.uordblks + now.hblkhd
}

/// A descriptor that tokio watches.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `register` asks that the raw descriptor stays the same open one for as long as the AsyncFd lives. It is
    // owned by the OwnedFd inside, of which only shared references are given out and which closes it when dropped.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}

/// [`watch`], but for one kind of news only.
pub(crate) fn watch_for(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: as in `watch`.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(Into::into)
}

/// The notices of a control group, watched by tokio.
pub(crate) fn watch_oom(
    events: cgroup::OomEvents,
) -> io::Result<(AsyncFd<cgroup::OomEvents>, Interest)> {
    let interest = if events.is_priority() {
        Interest::PRIORITY
    } else {
        Interest::READABLE
    };
    // SAFETY: as in `watch`: the events own their descriptor for as long as they live, and never exchange it.
    let watched = unsafe { AsyncFd::register_with_interest(events, interest) };
    Ok((watched?, interest))
}

/// What tells of data on a namespace's loopback, watched by tokio.
pub(crate) fn watch_arrivals(
    arrivals: netns::LocalArrivals,
) -> io::Result<AsyncFd<netns::LocalArrivals>> {
    // SAFETY: as in `watch`: they own their descriptor for as long as they live, and never exchange it.
    unsafe { AsyncFd::register_with_interest(arrivals, Interest::READABLE) }.map_err(Into::into)
}

/// Asks the kernel to write these ranges (address, length) of another process to swap (`MADV_PAGEOUT`, Linux 5.10). How
/// many bytes it has gone through: it ends before a range of which it cannot, and that as the first one is an error.
pub(crate) fn page_out(process: BorrowedFd<'_>, ranges: &[(usize, usize)]) -> io::Result<usize> {
    let vectors: Vec<libc::iovec> = ranges
        .iter()
        .map(|(address, length)| libc::iovec {
            iov_base: std::ptr::without_provenance_mut(*address),
            iov_len: *length,
        })
        .collect();
    // SAFETY: `vectors` is valid for reads of as many iovecs as the kernel is told. What they name is memory of the other
    // process, which is neither read nor written: the advice leaves its content as it is, whichever process that were.
    let done = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            process.as_raw_fd(),
            vectors.as_ptr(),
            vectors.len(),
            libc::MADV_PAGEOUT,
            0,
        )
    };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}
