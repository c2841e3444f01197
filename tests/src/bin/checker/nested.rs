//! Making namespaces, and one step further for whoever may make namespaces (nobody confined may): a user and mount namespace inside, and
//! then the attempt to lay bare or change what the container's own mounts hide.

use std::fs;

use crate::calls::refused;
use crate::report::Report;
use crate::sys::{Arg, End, call, in_child};
use Arg::{M, N, S};

/// Namespaces by name.
const NAMESPACES: [(&str, i32); 8] = [
    ("user", libc::CLONE_NEWUSER),
    ("mount", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("net", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("time", 0x80),
];

type Attempt = (&'static str, fn() -> bool);

/// Each is true if it got somewhere it should not.
const ATTEMPTS: [Attempt; 7] = [
    ("uncover a hidden file", || {
        let gone = call(
            libc::SYS_umount2,
            &[S(c"/proc/kcore"), N(libc::MNT_DETACH as u64)],
        )
        .is_ok();
        gone || fs::File::open("/proc/kcore").is_ok_and(|f| f.metadata().is_ok_and(|m| m.len() > 0))
    }),
    ("make the root writable", || {
        let flags = libc::MS_REMOUNT | libc::MS_BIND;
        let _ = call(
            libc::SYS_mount,
            &[S(c"none"), S(c"/"), N(0), N(flags), N(0)],
        );
        fs::write("/written", "x").is_ok()
    }),
    ("make /usr writable", || {
        let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_NOSUID | libc::MS_NODEV;
        let _ = call(
            libc::SYS_mount,
            &[S(c"none"), S(c"/usr"), N(0), N(flags), N(0)],
        );
        fs::write("/usr/written", "x").is_ok()
    }),
    ("a new /proc without masks", || {
        call(
            libc::SYS_mount,
            &[S(c"proc"), S(c"/tmp"), S(c"proc"), N(0), N(0)],
        )
        .is_ok()
    }),
    ("a new /sys", || {
        let mounted = call(
            libc::SYS_mount,
            &[S(c"sysfs"), S(c"/tmp"), S(c"sysfs"), N(0), N(0)],
        )
        .is_ok();
        mounted && fs::metadata("/tmp/firmware").is_ok()
    }),
    ("sysctl through another /proc", || {
        let _ = call(
            libc::SYS_mount,
            &[
                S(c"/proc/sys"),
                S(c"/tmp"),
                N(0),
                N(libc::MS_BIND | libc::MS_REC),
                N(0),
            ],
        );
        let _ = call(
            libc::SYS_mount,
            &[
                S(c"none"),
                S(c"/tmp"),
                N(0),
                N(libc::MS_REMOUNT | libc::MS_BIND),
                N(0),
            ],
        );
        fs::OpenOptions::new()
            .write(true)
            .open("/tmp/kernel/core_pattern")
            .is_ok()
    }),
    ("limits of its own cgroup", || {
        let mounted = call(libc::SYS_unshare, &[N(libc::CLONE_NEWCGROUP as u64)]).is_ok()
            && call(
                libc::SYS_mount,
                &[S(c"cgroup2"), S(c"/tmp"), S(c"cgroup2"), N(0), N(0)],
            )
            .is_ok();
        let open = |name| {
            fs::OpenOptions::new()
                .write(true)
                .open(format!("/tmp/{name}"))
                .is_ok()
        };
        mounted
            && [
                "cgroup.procs",
                "cgroup.max.depth",
                "memory.max",
                "cpu.max",
                "pids.max",
            ]
            .into_iter()
            .any(open)
    }),
];

pub(crate) fn check(report: &mut Report) {
    let mut expect = |name: &str, number: i64, args: &[Arg<'_>]| {
        let (ok, detail) = refused(number, args);
        report.add(name, ok, detail);
    };
    for (name, flag) in NAMESPACES {
        expect(
            &format!("unshare {name}"),
            libc::SYS_unshare,
            &[N(flag as u64)],
        );
        if flag != 0x80 {
            // fork with a new namespace: the grandchild ends at once, as it returns 0 here.
            expect(
                &format!("clone {name}"),
                libc::SYS_clone,
                &[N((flag | libc::SIGCHLD) as u64), N(0), N(0), N(0), N(0)],
            );
        }
        let arguments: Vec<u8> = (flag as u64)
            .to_ne_bytes()
            .into_iter()
            .chain([0; 56])
            .collect();
        expect(
            &format!("clone3 {name}"),
            libc::SYS_clone3,
            &[M(&arguments), N(64)],
        );
    }
    for (name, attempt) in ATTEMPTS {
        let end = in_child(|| {
            let made = call(libc::SYS_unshare, &[N(libc::CLONE_NEWNS as u64)]).is_ok();
            if !made {
                return 2;
            }
            i32::from(attempt())
        });
        let (ok, detail) = match end {
            Ok(End::Code(2)) => (true, "no new mount namespace".to_owned()),
            Ok(End::Code(0)) => (true, "refused in a new mount namespace".to_owned()),
            other => (false, format!("{other:?}")),
        };
        report.add(&format!("nested: {name}"), ok, detail);
    }
}
