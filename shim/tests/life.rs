//! A container's life: start, signals, end, and what is recorded of it.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::*;
use rustix::process::Signal;
use shim::protocol::*;

/// Waits until the command has written a line `text`.
fn wait_for_line(c: &Container, text: &str) {
    let began = std::time::Instant::now();
    // The log is a file: there is nothing to wait on that covers rename and creation alike.
    while !c.output().lines().any(|l| l == text) {
        assert!(began.elapsed() < PATIENCE, "no {text:?} in {}", c.log());
        std::thread::yield_now();
    }
}

fn exists(pid: i32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap()
}

#[test]
fn a_command_runs_and_its_end_is_recorded() {
    let (status, output) = outcome("echo out; echo err >&2; pwd; id -u; id -g; hostname; exit 7");
    assert_eq!(status, ExitStatus::Code(7));
    for line in ["out", "err", "/site", "4321", "4322", "test-example"] {
        assert!(
            output.lines().any(|l| l == line),
            "{line:?} is missing in {output}"
        );
    }
}

#[test]
fn a_killed_command_is_recorded_as_such() {
    let spawner = Spawner::new();
    let c = Site::new(&["sleep", "1000"]).try_start(&spawner).unwrap();
    let pid = c.executed().unwrap();
    assert!(
        fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .unwrap()
            .starts_with("sleep"),
        "the reported pid"
    );
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL)
        .unwrap();
    assert_eq!(c.wait(), ExitStatus::Signal(9));
}

#[test]
fn signals_reach_the_command() {
    let spawner = Spawner::new();
    let c = Site::sh(
        "for s in HUP INT QUIT USR1 USR2 WINCH ALRM; do trap \"echo got $s\" $s; done; trap 'echo bye; exit 3' TERM; \
         echo ready; while :; do read x < /site/fifo; done",
    );
    let fifo = c.documents.0.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from(0o666),
        0,
    )
    .unwrap();
    std::os::unix::fs::chown(&fifo, Some(UID), Some(GID)).unwrap();
    let c = c.run(&spawner);
    wait_for_line(&c, "ready");
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::WINCH, "WINCH"),
        (Signal::ALARM, "ALRM"),
    ] {
        c.signal(signal);
        wait_for_line(&c, &format!("got {name}"));
    }
    c.signal(Signal::TERM);
    assert_eq!(c.wait(), ExitStatus::Code(3));
    assert!(c.output().lines().any(|l| l == "bye"), "{}", c.output());
}

#[test]
fn orphans_are_reaped_and_end_with_the_command() {
    // Twenty grandchildren are left to init; then a daemon that would never end.
    let (status, output) = outcome(
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do (true &) ; done; \
         while grep -qs '^State:.*Z' /proc/[0-9]*/status; do :; done; echo clean; (setsid sleep 1000 &); exit 0",
    );
    assert_eq!(status, ExitStatus::Code(0));
    assert_eq!(output, "clean\n");
}

#[test]
fn killing_init_ends_everything() {
    let spawner = Spawner::new();
    let c = Site::sh("sleep 1000 & sleep 1000").run(&spawner);
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", c.pid)).unwrap();
    let command: i32 = children.trim().parse().unwrap();
    c.signal(Signal::KILL);
    wait_readable(&c.pidfd);
    assert!(!exists(command));
    assert_eq!(c.state.read("exit"), "", "a killed init records nothing");
}

#[test]
fn a_container_outlives_the_spawner() {
    let mut spawner = Spawner::new();
    let c = Site::new(&["cat", "/site/fifo"]);
    let fifo = c.documents.0.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from(0o666),
        0,
    )
    .unwrap();
    let c = c.run(&spawner);
    rustix::net::shutdown(&spawner.control, rustix::net::Shutdown::Both).unwrap();
    assert!(spawner.process.wait().unwrap().success());
    drop(spawner);
    // It still works, and its end is still recorded.
    fs::write(&fifo, "still here\n").unwrap();
    assert_eq!(c.wait(), ExitStatus::Code(0));
    assert_eq!(c.output(), "still here\n");
}

#[test]
fn failures_name_step_object_and_errno() {
    let spawner = Spawner::new();
    let failure = |site: Site| {
        let c = site.try_start(&spawner).unwrap();
        let f = c.executed().unwrap_err();
        wait_readable(&c.pidfd);
        (f.step, f.object, f.errno)
    };
    let f = failure(Site::new(&["no-such-command"]));
    assert_eq!(
        f,
        ("execute".into(), "no-such-command".into(), libc::ENOENT)
    );
    let f = failure(Site::new(&["/etc/os-release"]));
    assert_eq!(
        f,
        ("execute".into(), "/etc/os-release".into(), libc::EACCES)
    );
    let mut site = Site::sh("true");
    site.start.workdir = "/nowhere".into();
    assert_eq!(
        failure(site),
        (
            "enter the working directory".into(),
            "/nowhere".into(),
            libc::ENOENT
        )
    );
    // A template that wants to lead the generated file elsewhere.
    let mut site = Site::sh("true");
    site.start.generated.push(File {
        target: "etc/hosts".into(),
        content: vec![],
    });
    assert_eq!(
        failure(site),
        (
            "find the mount point".into(),
            "etc/hosts".into(),
            libc::ELOOP
        )
    );
    let mut site = Site::sh("true");
    site.start.generated.push(File {
        target: "etc/missing".into(),
        content: vec![],
    });
    assert_eq!(
        failure(site),
        (
            "find the mount point".into(),
            "etc/missing".into(),
            libc::ENOENT
        )
    );
    let mut site = Site::sh("true");
    site.start.tmpfs_inodes = 64;
    site.start
        .writable
        .extend((0..60).map(|i| (format!("w/{i}"), 0o755)));
    assert_eq!(failure(site).2, libc::ENOSPC);
}

#[test]
fn a_failed_command_is_recorded_too() {
    let spawner = Spawner::new();
    let c = Site::new(&["no-such-command"]).try_start(&spawner).unwrap();
    c.executed().unwrap_err();
    assert_eq!(c.wait(), ExitStatus::Code(127));
}

#[test]
fn writable_and_generated_inside_a_template() {
    let spawner = Spawner::new();
    let mut site = Site::sh(
        "touch /etc/conf.d/x; ls -ld /etc/conf.d | cut -c1-10; cat /var/lib/app/version; stat -c %u /etc/conf.d/x",
    );
    site.start.writable.push(("etc/conf.d".into(), 0o700));
    site.start.generated.push(File {
        target: "var/lib/app/version".into(),
        content: b"7\n".to_vec(),
    });
    let c = site.run(&spawner);
    assert_eq!(c.wait(), ExitStatus::Code(0), "{}", c.log());
    assert_eq!(c.output(), "drwx------\n7\n4321\n");
    assert!(
        !c.etc.0.join("conf.d/x").exists(),
        "the template is untouched"
    );
    assert_eq!(c.etc.read("passwd"), "template\n");
}

#[test]
fn ids_beyond_the_range_are_mapped() {
    let spawner = Spawner::new();
    let mut site = Site::sh("id -u; id -g; touch /site/made");
    site.start.ids.uid = 1_000_000;
    site.start.ids.gid = 70_000;
    std::os::unix::fs::chown(&site.documents.0, Some(1_000_000), Some(70_000)).unwrap();
    let c = site.run(&spawner);
    assert_eq!(c.wait(), ExitStatus::Code(0), "{}", c.log());
    assert_eq!(c.output(), "1000000\n70000\n");
    let made = fs::metadata(c.documents.0.join("made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 1_000_000);
}

#[test]
fn listening_sockets_are_handed_over() {
    let spawner = Spawner::new();
    let mut site = Site::sh(
        "echo $LISTEN_FDS $LISTEN_FDNAMES; [ $LISTEN_PID = $$ ] && echo mine; \
         for f in 3 4 5; do readlink /proc/self/fd/$f | cut -d: -f1; done; ls /proc/$$/fd | wc -l",
    );
    for _ in 0..2 {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        site.pass(FdRole::Listen, socket.into());
    }
    let c = site.run(&spawner);
    c.wait();
    assert_eq!(c.output(), "2 listen:listen\nmine\nsocket\nsocket\n5\n");
}

#[test]
fn cgroups_are_joined_and_are_the_namespaces_root() {
    let Some(cgroup) = Cgroup::new() else {
        panic!("no writable cgroup v2 hierarchy at /sys/fs/cgroup or /sys/fs/cgroup/unified");
    };
    let spawner = Spawner::new();
    for role in [FdRole::CgroupDir, FdRole::CgroupProcs] {
        let mut site = Site::new(&["sleep", "1000"]);
        site.pass(role, cgroup.open(role));
        let c = site.run(&spawner);
        assert_eq!(
            cgroup.processes().len(),
            2,
            "init and the command, by {role:?}"
        );
        drop(c);
        assert_eq!(cgroup.processes().len(), 0);
    }
    let mut site = Site::sh("cat /proc/self/cgroup");
    site.pass(FdRole::CgroupDir, cgroup.open(FdRole::CgroupDir));
    let c = site.run(&spawner);
    c.wait();
    assert!(c.output().lines().any(|l| l == "0::/"), "{}", c.output());
}

/// A cgroup of this test, on the v2 side of whatever the machine has.
struct Cgroup(std::path::PathBuf);

impl Cgroup {
    fn new() -> Option<Self> {
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .into_iter()
            .find(|r| fs::exists(format!("{r}/cgroup.procs")).unwrap_or(false))?;
        let path = std::path::PathBuf::from(format!("{root}/fc-shim-test-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    fn open(&self, role: FdRole) -> std::os::fd::OwnedFd {
        if role == FdRole::CgroupDir {
            return fs::File::open(&self.0).unwrap().into();
        }
        fs::File::options()
            .write(true)
            .open(self.0.join("cgroup.procs"))
            .unwrap()
            .into()
    }

    fn processes(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.join("cgroup.procs")).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn the_exit_file_is_all_that_init_keeps_of_the_host() {
    let spawner = Spawner::new();
    let c = Site::new(&["sleep", "1000"]).run(&spawner);
    // By now init is past its set-up, or will be as soon as it has reported nothing more.
    let began = std::time::Instant::now();
    let fds = loop {
        let fds: Vec<String> = fs::read_dir(format!("/proc/{}/fd", c.pid))
            .unwrap()
            .filter_map(|e| fs::read_link(e.ok()?.path()).ok())
            .map(|p| p.to_string_lossy().into_owned())
            .collect();
        if fds.len() <= 5 || began.elapsed() > PATIENCE {
            break fds;
        }
    };
    assert_eq!(
        fds.len(),
        5,
        "signalfd, two pipes, exit file, log directory: {fds:?}"
    );
    let status = loop {
        let status = fs::read_to_string(format!("/proc/{}/status", c.pid)).unwrap();
        if status.contains("Seccomp:\t2") || began.elapsed() > PATIENCE {
            break status;
        }
    };
    for line in [
        "CapEff:\t0000000000000020",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{line} in {status}");
    }
    let base = c.start.ids.base;
    assert!(
        status.contains(&format!("Uid:\t{base}\t{base}\t{base}\t{base}")),
        "{status}"
    );
}
