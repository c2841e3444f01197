//! Which system calls a site may make. An allow-list after the default profile of the usual container engines for a
//! process without capabilities; stricter where web applications need nothing (ptrace, unusual socket families).

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allow,
    /// EPERM.
    Deny,
    /// ENOSYS, so that libraries fall back to an older call.
    Unknown,
    /// Allowed without new namespaces.
    Clone,
    /// Allowed for nothing but a new cgroup namespace. That takes a capability which no command has: it is for the process that
    /// becomes one, which has its filter before it has its cgroups.
    Unshare,
    /// Allowed but for putting characters into a terminal's input.
    Ioctl,
    /// Allowed for the few harmless values.
    Personality,
    /// Allowed for the usual families and protocols.
    Socket,
    /// Allowed but for packet filters.
    Setsockopt,
    /// Said to be done, and not done.
    Nothing,
    /// Allowed but for RLIMIT_CORE (said to be done): it is 1, which alone keeps a host's handler of core dumps from being
    /// run, as root and outside the site's limits, for whatever crashes in a site.
    Setrlimit,
    /// Likewise.
    Prlimit,
}

/// The last number this table was made for; the kernel may have newer ones.
pub(crate) const LAST_KNOWN: u32 = 462;
/// Numbers never given to a call, between the old per-architecture ones and those common to all.
const GAP: std::ops::Range<u32> = if cfg!(target_arch = "aarch64") {
    295..424
} else {
    335..424
};

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
pub(crate) const NEW_NAMESPACES: u32 = 0x7e02_0000;
pub(crate) const NEW_CGROUP: u32 = 0x0200_0000;
pub(crate) const TIOCSTI: u32 = 0x5412;
pub(crate) const TIOCLINUX: u32 = 0x541c;
/// Linux, its 32-bit uname, without address randomisation of old programs, query.
pub(crate) const PERSONALITIES: &[u32] = &[0, 0x8, 0x20000, 0x20008, 0xffff_ffff];
/// Default, ICMP, TCP, UDP, ICMPv6, multipath TCP (which Go asks for by default).
pub(crate) const INET_PROTOCOLS: &[u32] = &[0, 1, 6, 17, 58, 262];
pub(crate) const NETLINK_ROUTE: u32 = 0;
/// Of both architectures; the libraries differ about its type.
pub(crate) const RLIMIT_CORE: u32 = 4;
/// SO_ATTACH_FILTER, SO_ATTACH_BPF and their kin for SO_REUSEPORT: a program's code is in memory that the host has
/// little of, and it is charged to nobody.
pub(crate) const SOCKET_FILTERS: [u32; 4] = [26, 50, 51, 52];

/// All that init needs to wait, to pass signals on, to write and rotate logs, and to manage its memory.
pub(crate) const INIT: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_capset,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_kill,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sendto,
    libc::SYS_statx,
    libc::SYS_tgkill,
    libc::SYS_tkill,
    libc::SYS_unlinkat,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_write,
];

/// Looks a number up.
pub(crate) fn verdict(nr: u32) -> Verdict {
    let is = |list: &[libc::c_long]| list.contains(&libc::c_long::from(nr));
    if nr > LAST_KNOWN || GAP.contains(&nr) || is(UNKNOWN) {
        Verdict::Unknown
    } else if is(ALLOWED) || is(ALLOWED_HERE) {
        Verdict::Allow
    } else if is(&[libc::SYS_clone]) {
        Verdict::Clone
    } else if is(&[libc::SYS_unshare]) {
        Verdict::Unshare
    } else if is(&[libc::SYS_setrlimit]) {
        Verdict::Setrlimit
    } else if is(&[libc::SYS_prlimit64]) {
        Verdict::Prlimit
    } else if is(&[libc::SYS_ioctl]) {
        Verdict::Ioctl
    } else if is(&[libc::SYS_personality]) {
        Verdict::Personality
    } else if is(&[libc::SYS_socket, libc::SYS_socketpair]) {
        Verdict::Socket
    } else if is(&[libc::SYS_setsockopt]) {
        Verdict::Setsockopt
    } else if is(&[libc::SYS_sync]) {
        Verdict::Nothing
    } else {
        Verdict::Deny
    }
}

macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

/// clone3 hides its flags behind a pointer; statmount, listmount and the lsm calls (457 to 461) only tell things;
/// io_setup draws on a pool that all of the host shares (fs.aio-max-nr), and whoever uses it can do without.
const UNKNOWN: &[libc::c_long] = &[
    libc::SYS_clone3,
    libc::SYS_io_setup,
    457,
    458,
    459,
    460,
    461,
];

#[rustfmt::skip]
const ALLOWED: &[libc::c_long] = calls!(
    // Files
    SYS_read SYS_write SYS_readv SYS_writev SYS_pread64 SYS_pwrite64 SYS_preadv SYS_pwritev SYS_preadv2 SYS_pwritev2
    SYS_openat SYS_openat2 SYS_close SYS_close_range SYS_lseek SYS_dup SYS_dup3 SYS_fcntl SYS_flock
    SYS_fstat SYS_newfstatat SYS_statx SYS_statfs SYS_fstatfs SYS_faccessat SYS_faccessat2
    SYS_truncate SYS_ftruncate SYS_fallocate SYS_fsync SYS_fdatasync SYS_sync_file_range
    SYS_getdents64 SYS_getcwd SYS_chdir SYS_fchdir SYS_mkdirat SYS_mknodat SYS_unlinkat SYS_renameat2
    SYS_linkat SYS_symlinkat SYS_readlinkat SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat
    SYS_utimensat SYS_umask SYS_sendfile SYS_splice SYS_tee SYS_vmsplice SYS_copy_file_range SYS_readahead
    SYS_fadvise64 SYS_pipe2 SYS_memfd_create SYS_memfd_secret SYS_name_to_handle_at
    SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_getxattr SYS_lgetxattr SYS_fgetxattr
    SYS_listxattr SYS_llistxattr SYS_flistxattr SYS_removexattr SYS_lremovexattr SYS_fremovexattr
    SYS_inotify_init1 SYS_inotify_add_watch SYS_inotify_rm_watch
    SYS_io_destroy SYS_io_submit SYS_io_cancel SYS_io_getevents
    // Waiting
    SYS_ppoll SYS_pselect6 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2
    SYS_signalfd4 SYS_timerfd_create SYS_timerfd_settime SYS_timerfd_gettime SYS_restart_syscall
    // Memory
    SYS_brk SYS_mmap SYS_munmap SYS_mremap SYS_mprotect SYS_madvise SYS_msync SYS_mincore SYS_remap_file_pages
    SYS_mlock SYS_mlock2 SYS_munlock SYS_mlockall SYS_munlockall SYS_membarrier SYS_mseal
    SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect SYS_process_madvise SYS_process_mrelease
    // Processes and threads
    SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_wait4 SYS_waitid SYS_kill SYS_tkill SYS_tgkill
    SYS_pidfd_open SYS_pidfd_send_signal SYS_getpid SYS_getppid SYS_gettid SYS_getpgid SYS_setpgid SYS_getsid
    SYS_setsid SYS_set_tid_address SYS_prctl SYS_seccomp SYS_rseq
    SYS_landlock_create_ruleset SYS_landlock_add_rule SYS_landlock_restrict_self
    SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getresuid SYS_getresgid SYS_getgroups
    SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid SYS_setfsuid SYS_setfsgid SYS_setgroups
    SYS_capget SYS_capset SYS_getrlimit SYS_getrusage SYS_times SYS_sysinfo SYS_uname
    SYS_getpriority SYS_setpriority SYS_ioprio_get SYS_ioprio_set SYS_getcpu
    SYS_sched_yield SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_getattr SYS_sched_setattr
    SYS_sched_getparam SYS_sched_setparam SYS_sched_getscheduler SYS_sched_setscheduler
    SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_rr_get_interval
    SYS_futex SYS_futex_waitv SYS_get_robust_list SYS_set_robust_list
    // Signals and time
    SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigpending SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait
    SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_sigaltstack
    SYS_nanosleep SYS_clock_nanosleep SYS_clock_gettime SYS_clock_getres SYS_gettimeofday SYS_adjtimex
    SYS_getitimer SYS_setitimer SYS_timer_create SYS_timer_settime SYS_timer_gettime SYS_timer_getoverrun
    SYS_timer_delete SYS_getrandom
    // Sockets
    SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_connect SYS_getsockname SYS_getpeername SYS_getsockopt
    SYS_shutdown SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_sendmmsg SYS_recvmmsg
    // System V and POSIX messages, semaphores, shared memory
    SYS_shmget SYS_shmat SYS_shmdt SYS_shmctl SYS_semget SYS_semop SYS_semtimedop SYS_semctl
    SYS_msgget SYS_msgsnd SYS_msgrcv SYS_msgctl
    SYS_mq_open SYS_mq_unlink SYS_mq_timedsend SYS_mq_timedreceive SYS_mq_notify SYS_mq_getsetattr
);

/// Also io_pgetevents, cachestat, fchmodat2, map_shadow_stack, futex_wake, futex_wait and futex_requeue, which libc has no names for yet.
#[cfg(target_arch = "aarch64")]
const ALLOWED_HERE: &[libc::c_long] = &[libc::SYS_renameat, 292, 451, 452, 453, 454, 455, 456];

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[libc::c_long] = &[
    // io_pgetevents, cachestat, fchmodat2, map_shadow_stack, futex_wake, futex_wait, futex_requeue
    333, 451, 452, 453, 454, 455, 456,
    libc::SYS_access, libc::SYS_alarm, libc::SYS_arch_prctl, libc::SYS_chmod, libc::SYS_chown, libc::SYS_creat,
    libc::SYS_dup2, libc::SYS_epoll_create, libc::SYS_epoll_ctl_old, libc::SYS_epoll_wait, libc::SYS_epoll_wait_old,
    libc::SYS_eventfd, libc::SYS_fork, libc::SYS_futimesat, libc::SYS_getdents, libc::SYS_getpgrp,
    libc::SYS_get_thread_area, libc::SYS_inotify_init, libc::SYS_lchown, libc::SYS_link, libc::SYS_lstat,
    libc::SYS_mkdir, libc::SYS_mknod, libc::SYS_open, libc::SYS_pause, libc::SYS_pipe, libc::SYS_poll,
    libc::SYS_readlink, libc::SYS_rename, libc::SYS_renameat, libc::SYS_rmdir, libc::SYS_select,
    libc::SYS_set_thread_area, libc::SYS_signalfd, libc::SYS_stat, libc::SYS_symlink, libc::SYS_time,
    libc::SYS_unlink, libc::SYS_utime, libc::SYS_utimes, libc::SYS_vfork,
];
