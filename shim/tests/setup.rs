//! What a start sets up as the request says, and how it says what it could not do.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use common::*;
use shim::protocol::*;

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
    site.start.program.workdir = "/nowhere".into();
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
    site.start.program.ids.uid = 1_000_000;
    site.start.program.ids.gid = 70_000;
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
         for f in 3 4 5; do readlink /proc/self/fd/$f | cut -d: -f1; done; set -- /proc/$$/fd/*; echo $#",
    );
    for _ in 0..2 {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        site.pass(FdRole::Listen, socket.into());
    }
    let c = site.run(&spawner);
    c.wait();
    // Three streams, two sockets, and the directory that the shell has open while it lists it.
    assert_eq!(c.output(), "2 listen:listen\nmine\nsocket\nsocket\n6\n");
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
fn init_keeps_little_of_the_host() {
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
        if fds.len() <= 6 || began.elapsed() > PATIENCE {
            break fds;
        }
    };
    assert_eq!(
        fds.len(),
        6,
        "signalfd, two pipes, exit file, log directory, the network namespace that its /sys shows: {fds:?}"
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
    let base = c.start.program.ids.base;
    assert!(
        status.contains(&format!("Uid:\t{base}\t{base}\t{base}\t{base}")),
        "{status}"
    );
}

#[test]
fn a_site_with_a_sysfs_of_its_own_shows_that_and_keeps_nothing_of_the_shared_one() {
    let spawner = Spawner::new();
    let mut site = Site::new(&["sleep", "1000"]);
    let sys = sysfs();
    let device = rustix::fs::fstat(&sys).unwrap().st_dev;
    site.start.shared_sys = false;
    let own = mount("sys", true, false, IdMap::None);
    site.start.mounts.push(own);
    site.pass(FdRole::Mount(3), sys);
    let c = site.run(&spawner);
    let of_init = |path: &str| format!("/proc/{}/{path}", c.pid);
    let shown = fs::metadata(of_init("root/sys/class")).unwrap();
    assert_eq!(shown.dev(), device);
    let mounts = fs::read_to_string(of_init("mountinfo")).unwrap();
    let count = mounts.lines().filter(|line| line.contains(" - sysfs "));
    assert_eq!(count.count(), 1, "{mounts}");
    assert!(!Path::new(&of_init("root/sys/firmware/acpi")).exists());
    let began = std::time::Instant::now();
    let namespaces = || {
        let fds = fs::read_dir(of_init("fd")).unwrap().flatten();
        let links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        links
            .filter(|link| link.to_string_lossy().starts_with("net:"))
            .count()
    };
    while namespaces() > 0 {
        assert!(began.elapsed() < PATIENCE, "init keeps a network namespace");
    }
}

#[test]
fn a_site_can_keep_its_ids_where_mounts_cannot_be_mapped() {
    let spawner = Spawner::new();
    let mut site =
        Site::sh("id -u; id -g; touch /site/made /tmp/made; stat -c %u /usr /site/made /tmp/made");
    site.start.program.ids.direct = true;
    for mount in site.start.mounts.iter_mut().filter(|m| m.target == "site") {
        mount.idmap = IdMap::None;
    }
    let c = site.run(&spawner);
    assert_eq!(c.wait(), ExitStatus::Code(0), "{}", c.log());
    assert_eq!(c.output(), "4321\n4322\n0\n4321\n4321\n");
    let made = fs::metadata(c.documents.0.join("made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), UID);
}
