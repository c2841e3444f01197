//! Drives the real `fastcontainer-shim` the way the agent does.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::*;
use rustix::net::*;
use rustix::process::{Signal, pidfd_send_signal};
use shim::protocol::*;

/// Longest wait for anything in a test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The program under test: FASTCONTAINER_SHIM, or built once for the static target.
pub fn program() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("FASTCONTAINER_SHIM") {
            return path.into();
        }
        let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        let status = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--profile",
                "shim",
                "-p",
                "fastcontainer-shim",
                "--target",
                &target,
            ])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()
            .unwrap();
        assert!(
            status.success(),
            "cannot build the shim for {target}: rustup target add {target}"
        );
        // This very test lies in TARGET/PROFILE/deps.
        let own = std::env::current_exe().unwrap();
        let path = own
            .ancestors()
            .nth(3)
            .unwrap()
            .join(target)
            .join("shim/fastcontainer-shim");
        assert!(path.is_file(), "{} is missing", path.display());
        path
    })
}

/// A directory below the system's temporary one, removed in the end.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fc-shim-test-{}-{n}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running spawner.
pub struct Spawner {
    pub control: OwnedFd,
    pub process: Child,
}

impl Spawner {
    pub fn new() -> Self {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        // The shell puts the socket onto descriptor 3.
        let process = Command::new("sh")
            .args(["-c", "exec \"$0\" spawn 3<&0 </dev/null"])
            .arg(program())
            .stdin(Stdio::from(theirs))
            .spawn()
            .unwrap();
        Self {
            control: ours,
            process,
        }
    }

    pub fn send(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(128))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        sendmsg(
            &self.control,
            &[IoSlice::new(packet)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
        .unwrap();
    }

    pub fn reply(&self) -> (Reply, Option<OwnedFd>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [0u8; 65536];
        wait_readable(&self.control);
        let got = recvmsg(
            &self.control,
            &mut [IoSliceMut::new(&mut buffer)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
        .unwrap();
        assert!(got.bytes > 0, "the spawner is gone");
        let mut fd = None;
        for m in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = m {
                fd = fds.into_iter().next();
            }
        }
        (postcard::from_bytes(&buffer[..got.bytes]).unwrap(), fd)
    }

    /// Sends a request with its descriptors and returns the new process.
    pub fn ask(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(i32, OwnedFd), Failure> {
        self.send(&postcard::to_stdvec(request).unwrap(), fds);
        match self.reply() {
            (Reply::Started { pid, .. }, Some(fd)) => Ok((pid, fd)),
            (Reply::Refused { failure, .. }, None) => Err(failure),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // End of file is its order to leave.
        let _ = shutdown(&self.control, Shutdown::Both);
        let _ = self.process.wait();
    }
}

pub fn wait_readable(fd: impl AsFd) {
    assert!(
        readable_within(fd, PATIENCE),
        "nothing came within {PATIENCE:?}"
    );
}

pub fn readable_within(fd: impl AsFd, time: Duration) -> bool {
    let timeout = Timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: time.subsec_nanos().into(),
    };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() > 0
}

/// A fresh network namespace with a sysfs mount that shows it.
pub fn network() -> (OwnedFd, OwnedFd) {
    std::thread::spawn(|| {
        // A thread's own namespaces end with the thread; its descriptors are untouched.
        #[allow(deprecated)]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
        let ns = rustix::fs::open(
            "/proc/thread-self/ns/net",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .unwrap();
        let fs = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_create(&fs).unwrap();
        let sys = fsmount(
            &fs,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::MOUNT_ATTR_RDONLY,
        )
        .unwrap();
        (ns, sys)
    })
    .join()
    .unwrap()
}

pub fn bind(path: impl AsRef<Path>) -> OwnedFd {
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

fn mount(target: &str, read_only: bool, exec: bool, idmap: IdMap) -> Mount {
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
            ids,
            mounts: vec![
                mount("usr", true, true, IdMap::Container),
                mount("etc", true, false, IdMap::Container),
                mount("site", false, true, IdMap::Site),
                mount("sys", true, false, IdMap::None),
            ],
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
        let (netns, sys) = network();
        site.pass(FdRole::NetNs, netns);
        site.pass(FdRole::Mount(0), bind("/usr"));
        site.pass(FdRole::Mount(1), bind(&site.etc.0));
        site.pass(FdRole::Mount(2), bind(&site.documents.0));
        site.pass(FdRole::Mount(3), sys);
        let exit = fs::File::create(site.state.0.join("exit")).unwrap();
        site.pass(FdRole::ExitFile, exit.into());
        site.pass(FdRole::LogDir, fs::File::open(&logs).unwrap().into());
        site
    }

    pub fn pass(&mut self, role: FdRole, fd: OwnedFd) {
        self.start.fds.push(role);
        self.fds.push(fd);
    }

    /// Sends the request; the answer may be a refusal.
    pub fn try_start(self, spawner: &Spawner) -> Result<Container, Failure> {
        let (status, theirs) = status_pair();
        let mut start = self.start.clone();
        start.fds.push(FdRole::Status);
        let mut fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(AsFd::as_fd).collect();
        fds.push(theirs.as_fd());
        let (pid, pidfd) = spawner.ask(&Request::Start(Box::new(start)), &fds)?;
        let Self {
            start,
            etc,
            documents,
            state,
            fds,
        } = self;
        // As the agent does: the mounts now belong to the container alone.
        drop(fds);
        drop(theirs);
        Ok(Container {
            pid,
            pidfd,
            status,
            start,
            etc,
            documents,
            state,
        })
    }

    /// Starts it and waits until its command has been executed.
    pub fn run(self, spawner: &Spawner) -> Container {
        let container = self.try_start(spawner).unwrap();
        container.executed().unwrap();
        container
    }
}

pub fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A status socket whose receiver learns the senders' pids, and the end to pass on.
pub fn status_pair() -> (OwnedFd, OwnedFd) {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    sockopt::set_socket_passcred(&ours, true).unwrap();
    (ours, theirs)
}

/// The next report and its sender's pid; None at the end.
pub fn report(status: &OwnedFd) -> Option<(Report, i32)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [0u8; 8192];
    wait_readable(status);
    let got = recvmsg(
        status,
        &mut [IoSliceMut::new(&mut buffer)],
        &mut ancillary,
        RecvFlags::empty(),
    )
    .unwrap();
    if got.bytes == 0 {
        return None;
    }
    let pid = ancillary.drain().find_map(|m| match m {
        RecvAncillaryMessage::ScmCredentials(c) => Some(c.pid.as_raw_nonzero().get()),
        _ => None,
    });
    Some((
        postcard::from_bytes(&buffer[..got.bytes]).unwrap(),
        pid.unwrap(),
    ))
}

/// The pid of the executed command, or the failure.
pub fn executed(status: &OwnedFd) -> Result<i32, Failure> {
    let mut pid = None;
    while let Some((report, sender)) = report(status) {
        match report {
            Report::Exec => pid = Some(sender),
            Report::Failed(f) => return Err(f),
        }
    }
    Ok(pid.expect("end of file without a report"))
}

/// A started container.
pub struct Container {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub status: OwnedFd,
    pub start: Start,
    pub etc: Dir,
    pub documents: Dir,
    pub state: Dir,
}

impl Container {
    /// The command's pid on the host, when it has been executed.
    pub fn executed(&self) -> Result<i32, Failure> {
        executed(&self.status)
    }

    pub fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.pidfd, signal).unwrap();
    }

    /// Waits for init's end and returns the exit record.
    pub fn wait(&self) -> ExitStatus {
        wait_readable(&self.pidfd);
        self.state
            .read("exit")
            .parse::<ExitRecord>()
            .unwrap()
            .status
    }

    pub fn log(&self) -> String {
        self.state.read("logs/current")
    }

    /// What the command wrote to its output, without the prefixes.
    pub fn output(&self) -> String {
        self.log()
            .lines()
            .map(|l| l.splitn(4, ' ').nth(3).unwrap_or("").to_owned() + "\n")
            .collect()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        wait_readable(&self.pidfd);
    }
}

/// Runs a shell script as a site's command and returns how it ended and what it wrote.
pub fn outcome(script: &str) -> (ExitStatus, String) {
    let spawner = Spawner::new();
    let c = Site::sh(script).run(&spawner);
    (c.wait(), c.output())
}
