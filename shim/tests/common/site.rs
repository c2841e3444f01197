//! A site of the host template, with files of its own.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::*;
use shim::protocol::*;

use super::pair::{Pair, Rest};
use super::{Container, Dir, Spawner, next_id, status_pair};

/// A fresh network namespace.
pub fn network() -> OwnedFd {
    std::thread::spawn(|| {
        // A thread's own namespaces end with the thread; its descriptors are untouched.
        #[allow(deprecated)]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
        rustix::fs::open(
            "/proc/thread-self/ns/net",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .unwrap()
    })
    .join()
    .unwrap()
}

/// A sysfs of this network namespace.
pub fn sysfs() -> OwnedFd {
    let fs = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_create(&fs).unwrap();
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).unwrap()
}

pub fn bind_of(path: impl AsRef<Path>) -> OwnedFd {
    open_tree(
        CWD,
        path.as_ref(),
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
    .unwrap()
}

/// A site with its files, and the request that starts it.
pub struct Site {
    pub start: Start,
    pub fds: Vec<OwnedFd>,
    pub etc: Dir,
    pub documents: Dir,
    pub state: Dir,
}

pub fn mount(target: &str, read_only: bool, exec: bool, idmap: IdMap) -> Mount {
    Mount {
        target: target.into(),
        directory: true,
        read_only,
        devices: false,
        exec,
        idmap,
    }
}

pub const UID: u32 = 4321;
pub const GID: u32 = 4322;

impl Site {
    /// A site of the host template that runs `script` with sh.
    pub fn sh(script: &str) -> Self {
        Self::new(&["sh", "-c", script])
    }

    pub fn new(command: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Above every range that a real user database hands out, apart for tests in parallel processes.
        let slot = (std::process::id() % 500) * 32 + NEXT.fetch_add(1, Ordering::Relaxed) % 32;
        let ids = Ids {
            base: 0x4000_0000 + slot * Ids::RANGE,
            uid: UID,
            gid: GID,
            direct: false,
        };
        let (etc, documents, state) = (Dir::new(), Dir::new(), Dir::new());
        fs::write(etc.0.join("passwd"), "template\n").unwrap();
        fs::write(etc.0.join("os-release"), "ID=test\n").unwrap();
        fs::create_dir(etc.0.join("conf.d")).unwrap();
        std::os::unix::fs::symlink("/site/evil", etc.0.join("hosts")).unwrap();
        fs::write(documents.0.join("index.html"), "hello\n").unwrap();
        for p in [documents.0.clone(), documents.0.join("index.html")] {
            chown(p, Some(UID), Some(GID)).unwrap();
        }
        let logs = state.0.join("logs");
        fs::create_dir(&logs).unwrap();
        chown(&logs, Some(ids.base), Some(ids.base)).unwrap();
        fs::set_permissions(&logs, fs::Permissions::from_mode(0o700)).unwrap();
        let start = Start {
            id: next_id(),
            vhost: "test.example".into(),
            hostname: "test-example".into(),
            mounts: vec![
                mount("usr", true, true, IdMap::Container),
                mount("etc", true, false, IdMap::Container),
                mount("site", false, true, IdMap::Site),
            ],
            shared_sys: true,
            symlinks: ["bin", "sbin", "lib", "lib64"]
                .map(|n| (n.into(), format!("usr/{n}")))
                .into(),
            writable: vec![
                ("tmp".into(), 0o1777),
                ("run".into(), 0o755),
                ("run/site".into(), 0o700),
                ("var/tmp".into(), 0o1777),
            ],
            generated: vec![File {
                target: "etc/passwd".into(),
                content: format!("site:x:{UID}:{GID}::/site:/bin/sh\n").into(),
            }],
            tmpfs_bytes: 16 << 20,
            tmpfs_inodes: 4096,
            program: Program {
                ids,
                command: command.iter().map(|s| (*s).to_owned()).collect(),
                env: [("PATH", "/usr/bin:/bin"), ("HOME", "/site")]
                    .map(|(k, v)| (k.into(), v.into()))
                    .into(),
                workdir: "/site".into(),
                rlimits: vec![Rlimit {
                    resource: 7,
                    soft: 512,
                    hard: 1024,
                }],
            },
            log: LogRule {
                file_bytes: 64 << 10,
                files: 3,
                rate_bytes: 1 << 20,
                burst_bytes: 256 << 10,
            },
            fds: Vec::new(),
        };
        let mut site = Self {
            start,
            fds: Vec::new(),
            etc,
            documents,
            state,
        };
        site.pass(FdRole::NetNs, network());
        site.pass(FdRole::Mount(0), bind_of("/usr"));
        site.pass(FdRole::Mount(1), bind_of(&site.etc.0));
        site.pass(FdRole::Mount(2), bind_of(&site.documents.0));
        let exit = fs::File::create(site.state.0.join("exit")).unwrap();
        site.pass(FdRole::ExitFile, exit.into());
        site.pass(FdRole::LogDir, fs::File::open(&logs).unwrap().into());
        site
    }

    pub fn pass(&mut self, role: FdRole, fd: OwnedFd) {
        self.start.fds.push(role);
        self.fds.push(fd);
    }

    /// Sends the request, to a pair that was made ahead if one waits; the answer may be a refusal.
    pub fn try_start(self, spawner: &Spawner) -> Result<Container, Failure> {
        let pair = spawner.ahead.borrow_mut().pop_front();
        match pair {
            Some(pair) => {
                let (container, rest) = self.begin(spawner, &pair)?;
                pair.follow(&rest);
                Ok(container)
            }
            None => self.start_at_once(spawner),
        }
    }

    /// Gives a pair all but what follows.
    pub fn begin(mut self, spawner: &Spawner, pair: &Pair) -> Result<(Container, Rest), Failure> {
        let (status, theirs) = status_pair();
        let users = spawner.users(self.start.program.ids)?;
        let own = [
            (FdRole::Status, theirs.as_fd()),
            (FdRole::ContainerUsers, users[0].as_fd()),
            (FdRole::SiteUsers, users[1].as_fd()),
        ];
        let fds = std::mem::take(&mut self.fds);
        let rest = pair.begin(self.start.clone(), fds, &own);
        let pidfd = pair.pidfd.try_clone().unwrap();
        Ok((self.made(pair.pid, pidfd, status), rest))
    }

    fn start_at_once(self, spawner: &Spawner) -> Result<Container, Failure> {
        let (status, theirs) = status_pair();
        let mut start = self.start.clone();
        start.fds.push(FdRole::Status);
        let mut fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(AsFd::as_fd).collect();
        fds.push(theirs.as_fd());
        let users = spawner.users(start.program.ids)?;
        start
            .fds
            .extend([FdRole::ContainerUsers, FdRole::SiteUsers]);
        fds.extend(users.iter().map(AsFd::as_fd));
        let (pid, pidfd) = spawner.ask(&Request::Start(Box::new(start)), &fds)?;
        Ok(self.made(pid, pidfd, status))
    }

    fn made(self, pid: i32, pidfd: OwnedFd, status: OwnedFd) -> Container {
        // As the agent does: its descriptors go, and the mounts belong to the container alone.
        Container {
            pid,
            pidfd,
            status,
            start: self.start,
            etc: self.etc,
            documents: self.documents,
            state: self.state,
        }
    }

    /// Starts it and waits until its command has been executed.
    pub fn run(self, spawner: &Spawner) -> Container {
        let container = self.try_start(spawner).unwrap();
        container.executed().unwrap();
        container
    }
}
