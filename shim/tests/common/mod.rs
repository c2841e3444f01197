//! Drives the real `fastcontainer-shim` the way the agent does.
#![allow(dead_code, unreachable_pub, unused_imports, clippy::unwrap_used)]

mod container;
mod pair;
mod site;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::*;
use shim::protocol::*;

pub use container::*;
pub use pair::*;
pub use site::*;

/// Longest wait for anything in a test: enough for a slow virtual machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How much slower this machine is than a real one: 1, or what the virtual machine says.
pub fn time_scale() -> u32 {
    let text = std::env::var("FASTCONTAINER_TIME_SCALE");
    text.map_or(1, |text| text.parse().unwrap())
}

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

/// The children of a process now.
pub fn children(pid: i32) -> Vec<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect()
}

/// A running spawner, and what the agent keeps of its work.
pub struct Spawner {
    pub control: OwnedFd,
    pub process: Child,
    /// How many inits are to be made ahead.
    wanted: usize,
    /// Those that are.
    pub ahead: RefCell<VecDeque<Pair>>,
    known: RefCell<Vec<(Ids, Rc<[OwnedFd; 2]>)>>,
}

impl Spawner {
    /// One that has made an init ahead, as the agent's mostly have.
    pub fn new() -> Self {
        Self::with_ahead(1)
    }

    /// Has as many inits made ahead as there are to be.
    pub fn wait_for_ahead(&self) {
        while self.ahead.borrow().len() < self.wanted {
            let id = next_id();
            self.send(&postcard::to_stdvec(&Request::Ahead { id }).unwrap(), &[]);
            match self.reply() {
                (Reply::Ready { pid, .. }, fds) => {
                    let [pidfd, socket, main] = fds.try_into().unwrap();
                    let pair = Pair {
                        pid,
                        pidfd,
                        socket,
                        main,
                    };
                    self.ahead.borrow_mut().push_back(pair);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The user namespaces of these ids, made once.
    pub fn users(&self, ids: Ids) -> Result<Rc<[OwnedFd; 2]>, Failure> {
        if let Some((_, users)) = self.known.borrow().iter().find(|(known, _)| *known == ids) {
            return Ok(users.clone());
        }
        let request = Request::Users { id: next_id(), ids };
        self.send(&postcard::to_stdvec(&request).unwrap(), &[]);
        match self.reply() {
            (Reply::Users { .. }, fds) => {
                let users = Rc::new(fds.try_into().unwrap());
                self.known.borrow_mut().push((ids, Rc::clone(&users)));
                Ok(users)
            }
            (Reply::Refused { failure, .. }, _) => Err(failure),
            other => panic!("{other:?}"),
        }
    }

    /// One that clones each init when it is asked to.
    pub fn without_ahead() -> Self {
        Self::with_ahead(0)
    }

    /// Its processes now.
    pub fn children(&self) -> Vec<i32> {
        children(self.process.id().cast_signed())
    }

    fn with_ahead(count: usize) -> Self {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        // The shell puts the socket onto descriptor 3, and the empty network namespace onto 4.
        let process = Command::new("sh")
            .args(["-c", "exec \"$0\" spawn 3<&0 4<&1 </dev/null >&2"])
            .arg(program())
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(network()))
            .spawn()
            .unwrap();
        let spawner = Self {
            control: ours,
            process,
            wanted: count,
            ahead: RefCell::default(),
            known: RefCell::default(),
        };
        spawner.wait_for_ahead();
        spawner
    }

    pub fn send(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) {
        send(&self.control, packet, fds);
    }

    pub fn reply(&self) -> (Reply, Vec<OwnedFd>) {
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
        let mut all = Vec::new();
        for m in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = m {
                all.extend(fds);
            }
        }
        (postcard::from_bytes(&buffer[..got.bytes]).unwrap(), all)
    }

    /// Sends a request with its descriptors and returns the new process.
    pub fn ask(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(i32, OwnedFd), Failure> {
        self.send(&postcard::to_stdvec(request).unwrap(), fds);
        match self.reply() {
            (Reply::Started { pid, .. }, fds) => {
                let [pidfd] = fds.try_into().unwrap();
                Ok((pid, pidfd))
            }
            (Reply::Refused { failure, .. }, fds) if fds.is_empty() => Err(failure),
            other => panic!("{other:?}"),
        }
    }
}

pub fn send(socket: &OwnedFd, packet: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(128))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let bytes = [IoSlice::new(packet)];
    match sendmsg(socket, &bytes, &mut ancillary, SendFlags::NOSIGNAL) {
        // Why it has ended it tells elsewhere.
        Err(Errno::PIPE | Errno::CONNRESET) => {}
        other => assert_eq!(other.unwrap(), packet.len()),
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
            Report::Command => pid = Some(sender),
            Report::Failed(f) => return Err(f),
        }
    }
    Ok(pid.expect("end of file without a report"))
}
