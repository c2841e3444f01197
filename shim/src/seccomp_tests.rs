//! The compiled filter is run by an interpreter and compared with the table it comes from.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

/// Runs classic BPF on a seccomp_data.
fn run(code: &[libc::sock_filter], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
    let load = |at: u32| match at {
        0 => nr,
        4 => arch,
        16.. => {
            let word = args[((at - 16) / 8) as usize];
            if (at - 16).is_multiple_of(8) {
                word as u32
            } else {
                (word >> 32) as u32
            }
        }
        _ => panic!("load from {at}"),
    };
    let (mut pc, mut a) = (0usize, 0u32);
    for _ in 0..code.len() {
        let i = code[pc];
        pc += 1;
        let branch = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            LOAD => a = load(i.k),
            JUMP_EQUAL => pc += branch(a == i.k),
            JUMP_GREATER_OR_EQUAL => pc += branch(a >= i.k),
            JUMP_ANY_BIT => pc += branch(a & i.k != 0),
            RETURN => return i.k,
            other => panic!("instruction {other:#x}"),
        }
    }
    panic!("no return");
}

/// What the table says, written without the compiler's help.
fn expected(nr: u32, args: [u64; 6]) -> u32 {
    let arg = |n: usize| args[n] as u32;
    let unless = |bad: bool, e: i32| if bad { errno(e) } else { ALLOW };
    match table::verdict(nr) {
        Verdict::Allow => ALLOW,
        Verdict::Deny => errno(libc::EPERM),
        Verdict::Unknown => errno(libc::ENOSYS),
        Verdict::Clone => unless(arg(0) & table::NEW_NAMESPACES != 0, libc::EPERM),
        Verdict::Unshare => unless(args[0] != u64::from(table::NEW_CGROUP), libc::EPERM),
        Verdict::Ioctl => unless(
            [table::TIOCSTI, table::TIOCLINUX].contains(&arg(1)),
            libc::EPERM,
        ),
        Verdict::Nothing => errno(0),
        Verdict::Setrlimit if arg(0) == table::RLIMIT_CORE => errno(0),
        Verdict::Prlimit if arg(1) == table::RLIMIT_CORE && args[2] != 0 => errno(0),
        Verdict::Setrlimit | Verdict::Prlimit => ALLOW,
        Verdict::Setsockopt => unless(
            arg(1) == libc::SOL_SOCKET as u32 && table::SOCKET_FILTERS.contains(&arg(2)),
            libc::EPERM,
        ),
        Verdict::Personality => unless(!table::PERSONALITIES.contains(&arg(0)), libc::EPERM),
        Verdict::Socket => match i32::try_from(arg(0)).unwrap_or(-1) {
            libc::AF_UNIX => ALLOW,
            libc::AF_INET | libc::AF_INET6 => unless(
                !table::INET_PROTOCOLS.contains(&arg(2)),
                libc::EPROTONOSUPPORT,
            ),
            libc::AF_NETLINK => unless(arg(2) != 0, libc::EPROTONOSUPPORT),
            _ => errno(libc::EAFNOSUPPORT),
        },
    }
}

#[test]
fn every_number_gets_the_tables_verdict() {
    let code = program();
    println!("{} instructions", code.len());
    assert!(code.len() < 200, "{} instructions", code.len());
    for nr in (0..1024).chain([u32::MAX, 0x4000_0000, 0x4000_0000 | 59, 0x7fff_ffff]) {
        assert_eq!(
            run(&code, ARCH, nr, [0; 6]),
            expected(nr, [0; 6]),
            "call {nr}"
        );
    }
}

#[test]
fn init_can_only_wait_and_write() {
    let code = program_of_init();
    println!("{} instructions", code.len());
    for nr in 0..1024 {
        let allowed = table::INIT.contains(&libc::c_long::from(nr));
        let wanted = if allowed { ALLOW } else { errno(libc::EPERM) };
        assert_eq!(run(&code, ARCH, nr, [0; 6]), wanted, "call {nr}");
    }
    for nr in [
        libc::SYS_execve,
        libc::SYS_clone,
        libc::SYS_socket,
        libc::SYS_ptrace,
    ] {
        assert!(!table::INIT.contains(&nr));
    }
}

#[test]
fn other_instruction_sets_are_killed() {
    let code = program();
    for arch in [0x4000_0003, 0xC000_00F3, 0] {
        assert_eq!(run(&code, arch, 0, [0; 6]), KILL_PROCESS);
    }
}

#[test]
fn the_names_that_matter() {
    let code = program();
    let call =
        |nr: libc::c_long, args: [u64; 6]| run(&code, ARCH, u32::try_from(nr).unwrap(), args);
    let denied = [
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_fsopen,
        libc::SYS_mount_setattr,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_open_by_handle_at,
        libc::SYS_kexec_load,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_clock_settime,
        libc::SYS_settimeofday,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_kcmp,
        libc::SYS_pidfd_getfd,
        libc::SYS_acct,
        libc::SYS_quotactl,
        libc::SYS_syslog,
        libc::SYS_chroot,
        libc::SYS_sethostname,
    ];
    for nr in denied {
        assert_eq!(call(nr, [0; 6]), errno(libc::EPERM), "call {nr}");
    }
    assert_eq!(call(libc::SYS_clone3, [0; 6]), errno(libc::ENOSYS));
    for flag in [
        0x20000,
        0x0200_0000,
        0x0400_0000,
        0x0800_0000,
        0x1000_0000,
        0x2000_0000,
        0x4000_0000u64,
    ] {
        assert_eq!(
            call(libc::SYS_clone, [flag | 17, 0, 0, 0, 0, 0]),
            errno(libc::EPERM)
        );
    }
    // The one that a process without capabilities is refused by the kernel.
    let unshare = |flags: u64| call(libc::SYS_unshare, [flags, 0, 0, 0, 0, 0]);
    assert_eq!(unshare(0x0200_0000), ALLOW);
    for flags in [0x400, 0x20000, 0x0202_0000, 0x1000_0000, 0x1_0200_0000] {
        assert_eq!(unshare(flags), errno(libc::EPERM));
    }
    // A thread of glibc.
    assert_eq!(call(libc::SYS_clone, [0x3d_0f00, 0, 0, 0, 0, 0]), ALLOW);
    // The kernel looks at the low 32 bits of an ioctl's number only.
    assert_eq!(
        call(libc::SYS_ioctl, [0, 0x1_0000_5412, 0, 0, 0, 0]),
        errno(libc::EPERM)
    );
    for nr in [
        libc::SYS_execve,
        libc::SYS_openat,
        libc::SYS_futex,
        libc::SYS_epoll_pwait,
        452,
    ] {
        assert_eq!(call(nr, [0; 6]), ALLOW, "call {nr}");
    }
}

proptest! {
    #[test]
    fn arguments_are_checked_as_the_table_says(
        nr in 0u32..512,
        args in proptest::array::uniform6(prop_oneof![0u64..64, any::<u64>(), Just(0x5412), Just(0x0200_0000), Just(0x541c), Just(0x20008), Just(262)]),
    ) {
        prop_assert_eq!(run(&program(), ARCH, nr, args), expected(nr, args));
    }
}
