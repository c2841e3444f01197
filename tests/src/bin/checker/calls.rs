//! System calls that have to be refused: by the filter, by missing capabilities, or by who owns the namespaces.

use libc::{EACCES, EAFNOSUPPORT, ENODEV, ENOSYS, EPERM, EPROTONOSUPPORT, ESOCKTNOSUPPORT};

use crate::report::Report;
use crate::sys::{Arg, End, call, in_child};
use Arg::{M, N, S};

/// Errors that mean "not for you", or that this kernel has no such thing. Others (EFAULT, EBADF …) mean that the kernel
/// was about to do it.
const DENIED: [i32; 7] = [
    EPERM,
    EACCES,
    ENOSYS,
    EAFNOSUPPORT,
    EPROTONOSUPPORT,
    ESOCKTNOSUPPORT,
    ENODEV,
];

/// Makes the call in a child of its own, as it must not succeed here; only its errno comes back.
pub(crate) fn refused(number: i64, args: &[Arg<'_>]) -> (bool, String) {
    let end = in_child(|| match call(number, args) {
        Ok(_) => 0,
        Err(errno) => errno,
    });
    match end {
        Ok(End::Code(0)) => (false, "it worked".into()),
        Ok(End::Code(errno)) => (
            DENIED.contains(&errno),
            std::io::Error::from_raw_os_error(errno).to_string(),
        ),
        other => (false, format!("{other:?}")),
    }
}

pub(crate) fn check(report: &mut Report) {
    let mut expect = |name: &str, number: i64, args: &[Arg<'_>]| {
        let (ok, detail) = refused(number, args);
        report.add(name, ok, detail);
    };
    let here = N(libc::AT_FDCWD as u64);
    expect(
        "mount",
        libc::SYS_mount,
        &[S(c"none"), S(c"/tmp"), S(c"tmpfs"), N(0), N(0)],
    );
    expect(
        "bind mount",
        libc::SYS_mount,
        &[S(c"/etc"), S(c"/tmp"), N(0), N(libc::MS_BIND), N(0)],
    );
    expect(
        "remount",
        libc::SYS_mount,
        &[
            S(c"none"),
            S(c"/"),
            N(0),
            N(libc::MS_REMOUNT | libc::MS_BIND),
            N(0),
        ],
    );
    expect(
        "umount",
        libc::SYS_umount2,
        &[S(c"/proc"), N(libc::MNT_DETACH as u64)],
    );
    expect("fsopen", libc::SYS_fsopen, &[S(c"tmpfs"), N(0)]);
    expect("open_tree", libc::SYS_open_tree, &[here, S(c"/"), N(1)]);
    expect(
        "mount_setattr",
        libc::SYS_mount_setattr,
        &[here, S(c"/"), N(0), M(&[0; 32]), N(32)],
    );
    expect(
        "pivot_root",
        libc::SYS_pivot_root,
        &[S(c"/tmp"), S(c"/tmp")],
    );
    expect("chroot", libc::SYS_chroot, &[S(c"/tmp")]);
    let (char_device, block_device) = (
        u64::from(libc::S_IFCHR | 0o666),
        u64::from(libc::S_IFBLK | 0o666),
    );
    expect(
        "mknod mem",
        libc::SYS_mknodat,
        &[here, S(c"/tmp/mem"), N(char_device), N(libc::makedev(1, 1))],
    );
    expect(
        "mknod disk",
        libc::SYS_mknodat,
        &[
            here,
            S(c"/tmp/disk"),
            N(block_device),
            N(libc::makedev(254, 0)),
        ],
    );
    expect(
        "init_module",
        libc::SYS_init_module,
        &[M(&[0; 64]), N(64), S(c"")],
    );
    expect(
        "finit_module",
        libc::SYS_finit_module,
        &[N(0), S(c""), N(0)],
    );
    expect(
        "delete_module",
        libc::SYS_delete_module,
        &[S(c"checker"), N(0)],
    );
    expect(
        "kexec_load",
        libc::SYS_kexec_load,
        &[N(0), N(0), N(0), N(0)],
    );
    // A map of one element: enough to be refused for nothing but permission.
    let map: Vec<u8> = [2u32, 4, 4, 1]
        .iter()
        .flat_map(|n| n.to_ne_bytes())
        .chain([0; 112])
        .collect();
    expect("bpf", libc::SYS_bpf, &[N(0), M(&map), N(128)]);
    expect(
        "perf_event_open",
        libc::SYS_perf_event_open,
        &[M(&perf_attributes()), N(0), N(u64::MAX), N(u64::MAX), N(0)],
    );
    // The present, in case it is not refused.
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    let now: Vec<u8> = [now, 0].iter().flat_map(|n| n.to_ne_bytes()).collect();
    expect("clock_settime", libc::SYS_clock_settime, &[N(0), M(&now)]);
    expect("settimeofday", libc::SYS_settimeofday, &[M(&now), N(0)]);
    // The harmless one of its commands (control-alt-delete kills init instead), refused like the others.
    expect(
        "reboot",
        libc::SYS_reboot,
        &[N(0xfee1_dead), N(672_274_793), N(0), N(0)],
    );
    expect("sethostname", libc::SYS_sethostname, &[M(b"taken"), N(5)]);
    expect(
        "setdomainname",
        libc::SYS_setdomainname,
        &[M(b"taken"), N(5)],
    );
    expect("swapon", libc::SYS_swapon, &[S(c"/tmp/none"), N(0)]);
    expect("swapoff", libc::SYS_swapoff, &[S(c"/tmp/none")]);
    expect("acct", libc::SYS_acct, &[N(0)]);
    expect("syslog", libc::SYS_syslog, &[N(10), N(0), N(0)]);
    expect(
        "add_key",
        libc::SYS_add_key,
        &[
            S(c"user"),
            S(c"checker"),
            M(b"x"),
            N(1),
            N((-3i64).cast_unsigned()),
        ],
    );
    expect(
        "keyctl",
        libc::SYS_keyctl,
        &[N(0), N((-3i64).cast_unsigned()), N(0)],
    );
    expect(
        "request_key",
        libc::SYS_request_key,
        &[S(c"user"), S(c"checker"), N(0), N(0)],
    );
    expect("io_uring_setup", libc::SYS_io_uring_setup, &[N(1), N(0)]);
    expect("userfaultfd", libc::SYS_userfaultfd, &[N(0)]);
    expect(
        "open_by_handle_at",
        libc::SYS_open_by_handle_at,
        &[here, M(&file_handle()), N(0)],
    );
    expect("fanotify_init", libc::SYS_fanotify_init, &[N(0), N(0)]);
    expect(
        "quotactl",
        libc::SYS_quotactl,
        &[N(0x80_0001), S(c"/dev/none"), N(0), N(0)],
    );
    expect(
        "ptrace",
        libc::SYS_ptrace,
        &[N(libc::PTRACE_TRACEME as u64), N(0), N(0), N(0)],
    );
    expect("kcmp", libc::SYS_kcmp, &[N(1), N(1), N(0), N(0), N(0)]);
    expect(
        "process_vm_readv",
        libc::SYS_process_vm_readv,
        &[N(1), N(0), N(0), N(0), N(0), N(0)],
    );
    expect(
        "move_pages",
        libc::SYS_move_pages,
        &[N(1), N(0), N(0), N(0), N(0), N(0)],
    );
    expect("vhangup", libc::SYS_vhangup, &[]);
    expect("personality", libc::SYS_personality, &[N(0x0040_0000)]);
    // The kernel looks at the low half only, and so must the filter.
    expect("TIOCSTI", libc::SYS_ioctl, &[N(0), N(0x5412), M(b"x")]);
    expect(
        "TIOCSTI in disguise",
        libc::SYS_ioctl,
        &[N(0), N(0x1_0000_5412), M(b"x")],
    );
    expect("TIOCLINUX", libc::SYS_ioctl, &[N(0), N(0x541c), M(b"\x03")]);
    expect(
        "realtime",
        libc::SYS_sched_setscheduler,
        &[N(0), N(1), M(&1u32.to_ne_bytes())],
    );
    expect(
        "raise priority",
        libc::SYS_setpriority,
        &[N(0), N(0), N((-10i64).cast_unsigned())],
    );
    expect(
        "realtime disk",
        libc::SYS_ioprio_set,
        &[N(1), N(0), N(1 << 13)],
    );
    let more: Vec<u8> = [u64::MAX, u64::MAX]
        .iter()
        .flat_map(|n| n.to_ne_bytes())
        .collect();
    expect(
        "raise a limit",
        libc::SYS_prlimit64,
        &[N(0), N(libc::RLIMIT_NOFILE as u64), M(&more), N(0)],
    );
    #[cfg(target_arch = "x86_64")]
    {
        expect("iopl", libc::SYS_iopl, &[N(3)]);
        expect("ioperm", libc::SYS_ioperm, &[N(0x80), N(1), N(1)]);
        expect("x32", 0x4000_0000 | libc::SYS_getpid, &[]);
    }
    let own_root = call(libc::SYS_geteuid, &[]) == Ok(0);
    if !own_root {
        expect("setuid", libc::SYS_setuid, &[N(0)]);
        expect("setgid", libc::SYS_setgid, &[N(0)]);
        expect(
            "kill init",
            libc::SYS_kill,
            &[N(1), N(libc::SIGTERM as u64)],
        );
    }
    expect("setgroups", libc::SYS_setgroups, &[N(1), M(&[0; 4])]);
    expect(
        "become another",
        libc::SYS_setresuid,
        &[N(4242), N(4242), N(4242)],
    );
    expect(
        "capset",
        libc::SYS_capset,
        &[M(&[0x22, 0x05, 0x08, 0x20, 0, 0, 0, 0]), M(&[0xff; 24])],
    );
    other_instruction_set(report);
}

/// The filter knows one set of system-call numbers: through any other entry of the processor the process ends.
fn other_instruction_set(report: &mut Report) {
    #[cfg(target_arch = "x86_64")]
    {
        let end = in_child(|| i32::from(crate::sys::call_i386_getpid() <= 0));
        // SIGSYS by the filter; SIGSEGV where the kernel has no such entry.
        let ok = matches!(end, Ok(End::Signal(libc::SIGSYS | libc::SIGSEGV)));
        report.add("32-bit calls", ok, format!("{end:?}"));
    }
    #[cfg(not(target_arch = "x86_64"))]
    report.add("32-bit calls", true, "this program cannot make them");
}

/// A counter of CPU clock ticks of all processes, kernel included.
fn perf_attributes() -> [u8; 64] {
    let mut attributes = [0; 64];
    attributes[0] = 1;
    attributes[4] = 64;
    attributes
}

/// A handle of the root directory's file system, as the usual escape guesses it: inode 2.
fn file_handle() -> [u8; 16] {
    let mut handle = [0; 16];
    handle[0] = 8;
    handle[4] = 1;
    handle[8] = 2;
    handle
}
