//! The agent's end of the spawner: the small single-threaded process that clones containers.
//!
//! The agent itself never forks: it is multi-threaded and grows. It execs `fastcontainer-shim spawn` once and
//! sends it requests over a `SOCK_SEQPACKET` pair; should the spawner die, the requests under way fail and the
//! next one starts another. Containers do not depend on it, nor do the inits that it has made ahead (`ahead.rs`).

mod ahead;
mod program;
mod users;

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use command_fds::{CommandFdExt, FdMapping};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Signal, pidfd_send_signal};
use shim::protocol::{Failure, Ids, MAX_PACKET, Reply, Request};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::packet;
use ahead::Ahead;
pub use ahead::{Packet, Pair};
use program::Program;
pub use users::Users;

/// A process that the spawner has cloned.
#[derive(Debug)]
pub struct Started {
    /// Its pid.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

/// Why nothing was cloned.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The spawner said no.
    #[error("cannot {}{}{}: {}", .0.step, if .0.object.is_empty() { "" } else { " " }, .0.object, errno_text(.0.errno))]
    Refused(Failure),
    /// The spawner could not be reached or died meanwhile.
    #[error("the spawner is gone: {0}")]
    Lost(String),
}

/// The message behind an errno; 0 is not a system call's.
pub fn errno_text(errno: i32) -> String {
    match errno {
        0 => "not possible".to_owned(),
        n => std::io::Error::from_raw_os_error(n).to_string(),
    }
}

/// A request that the spawner has.
#[derive(Debug)]
pub struct Asked(oneshot::Receiver<Answer>);

impl Asked {
    async fn answer(self) -> Answer {
        self.0.await.unwrap_or_else(|_| {
            Err(SpawnError::Lost(
                "it died while it worked on the request".into(),
            ))
        })
    }

    /// Waits for its reply.
    pub async fn started(self) -> Result<Started, SpawnError> {
        let started = match self.answer().await? {
            Given::Process(started) => started.claim(),
            Given::Users(_) => None,
        };
        started.ok_or_else(|| SpawnError::Lost("it answered something else".into()))
    }
}

/// User namespaces that were asked for.
#[derive(Debug)]
pub enum AskedUsers {
    /// They are there.
    Known(Arc<Users>),
    /// The spawner makes them.
    Coming(Ids, Asked),
}

/// What a request was answered with.
#[derive(Debug)]
enum Given {
    Process(Unclaimed),
    Users(Users),
}

type Answer = Result<Given, SpawnError>;
type Waiting = Mutex<HashMap<u64, oneshot::Sender<Answer>>>;

struct Link {
    socket: Arc<AsyncFd<OwnedFd>>,
    waiting: Arc<Waiting>,
    pid: u32,
    /// Over once it has ended.
    ended: tokio::task::JoinHandle<()>,
}

/// How long it may take to end.
const END_LIMIT: Duration = Duration::from_secs(3);

/// Handle to the spawner; one per agent.
pub struct Spawner {
    program: Program,
    ahead: Arc<Ahead>,
    users: users::Cache,
    link: tokio::sync::Mutex<Option<Link>>,
    next_id: AtomicU64,
    /// The agent is ending: there is no spawner any more.
    ending: Arc<AtomicBool>,
}

impl Spawner {
    /// Starts the spawner so that a wrong path is found out at once. It keeps `ahead` inits ready.
    pub async fn new(program: PathBuf, ahead: u32) -> Result<Self> {
        let spawner = Self {
            program: Program::open(program)?,
            ahead: Arc::new(Ahead::new(ahead)),
            users: users::Cache::default(),
            link: tokio::sync::Mutex::new(None),
            next_id: AtomicU64::new(1),
            ending: Arc::default(),
        };
        spawner.link().await?;
        spawner.refill().await;
        Ok(spawner)
    }

    /// A number that no other request of this agent has.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Pid of the spawner that runs now, if one does.
    pub async fn pid(&self) -> Option<u32> {
        self.link.lock().await.as_ref().map(|link| link.pid)
    }

    /// Whether a pair that was made ahead waits. If not, that is counted as demand.
    pub fn has_ahead(&self) -> bool {
        self.ahead.has()
    }

    /// Gives a pair that was made ahead the packets of a start, each with its descriptors: its init's, and its child's. None
    /// if there is none that takes them. Nobody waits for anything.
    pub fn hand_over(&self, init: Packet<'_>, main: Packet<'_>) -> Option<Pair> {
        self.ahead.hand_over(init, main)
    }

    /// Has as many inits made ahead as were taken, once the spawner has nothing else to do.
    pub async fn refill(&self) {
        self.ahead.trim();
        if !self.ahead.is_short() {
            return;
        }
        // Before anything is noted as asked for: a new spawner has been asked for nothing.
        let Ok((socket, _)) = self.ends().await else {
            return;
        };
        while let Some(id) = self.ahead.one_more(|| self.next_id()) {
            let sent = match pack(&Request::Ahead { id }) {
                Ok(packet) => packet::send(&socket, &packet, &[]).await.is_ok(),
                Err(_) => false,
            };
            // The spawner is gone. The next request makes another one, and is followed by this.
            if !sent {
                self.ahead.forget(id);
                return;
            }
        }
    }

    /// Asks for the user namespaces of these ids, if they are not known. The spawner makes them while the asker does
    /// something else.
    pub async fn ask_users(&self, ids: Ids) -> Result<AskedUsers, SpawnError> {
        if let Some(users) = self.users.get(ids) {
            return Ok(AskedUsers::Known(users));
        }
        let id = self.next_id();
        let asked = self.ask(id, &Request::Users { id, ids }, &[]).await?;
        Ok(AskedUsers::Coming(ids, asked))
    }

    /// Waits for them.
    pub async fn users(&self, asked: AskedUsers) -> Result<Arc<Users>, SpawnError> {
        let (ids, asked) = match asked {
            AskedUsers::Known(users) => return Ok(users),
            AskedUsers::Coming(ids, asked) => (ids, asked),
        };
        match asked.answer().await? {
            Given::Users(users) => Ok(self.users.put(ids, users)),
            Given::Process(_) => Err(SpawnError::Lost("it answered something else".into())),
        }
    }

    /// Sends one request (whose `id` came from [`Self::next_id`]) and waits for its reply.
    pub async fn request(
        &self,
        id: u64,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Started, SpawnError> {
        self.ask(id, request, fds).await?.started().await
    }

    /// Sends one request. Whoever drops the answer does not want it any more.
    pub async fn ask(
        &self,
        id: u64,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Asked, SpawnError> {
        let bytes = pack(request)?;
        let (socket, waiting) = self.ends().await?;
        let (tell, told) = oneshot::channel();
        waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, tell);
        if let Err(error) = packet::send(&socket, &bytes, fds).await {
            waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&id);
            return Err(SpawnError::Lost(error.to_string()));
        }
        Ok(Asked(told))
    }

    async fn ends(&self) -> Result<(Arc<AsyncFd<OwnedFd>>, Arc<Waiting>), SpawnError> {
        let ends = self.link().await;
        ends.map_err(|error| SpawnError::Lost(format!("{error:#}")))
    }

    /// Ends the spawner, and with it the inits that wait, before the agent ends: whatever it leaves behind in its cgroup is
    /// killed by systemd. Containers live on.
    pub async fn end(&self) {
        let mut link = self.link.lock().await;
        self.ending.store(true, Ordering::Relaxed);
        self.ahead.end().await;
        let Some(link) = link.take() else { return };
        // Err: it is gone already.
        let _ = rustix::net::shutdown(link.socket.as_fd(), rustix::net::Shutdown::Write);
        if tokio::time::timeout(END_LIMIT, link.ended).await.is_err() {
            tracing::warn!("the spawner {} has not ended", link.pid);
        }
    }

    async fn link(&self) -> Result<(Arc<AsyncFd<OwnedFd>>, Arc<Waiting>)> {
        let mut link = self.link.lock().await;
        if let Some(link) = link
            .as_ref()
            .filter(|link| Arc::strong_count(&link.waiting) > 1)
        {
            return Ok((link.socket.clone(), link.waiting.clone()));
        }
        if self.ending.load(Ordering::Relaxed) {
            bail!("the agent is ending");
        }
        // Whatever the last one was asked for ahead.
        self.ahead.forget_all();
        let fresh = spawn(&self.program, self.ahead.clone(), self.ending.clone())?;
        let ends = (fresh.socket.clone(), fresh.waiting.clone());
        *link = Some(fresh);
        Ok(ends)
    }
}

/// Starts a spawner and the task that reads its replies. The task holds one reference to `waiting` and drops it
/// when the spawner is gone: that is how [`Spawner::link`] knows.
fn spawn(program: &Program, ahead: Arc<Ahead>, ending: Arc<AtomicBool>) -> Result<Link> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .context("cannot make the spawner's socket pair")?;
    rustix::io::ioctl_fionbio(&ours, true)
        .context("cannot make the spawner's socket non-blocking")?;
    let mut command = program.command();
    // Every container's init shows this as its command line; the host's paths are nobody's business in there.
    command.arg0("fastcontainer-shim");
    command.arg("spawn");
    command.env_clear().current_dir("/");
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null());
    // Whose sysfs the containers without a link show: theirs would show a loopback as well. The spawner and their inits keep it.
    let lone = netns::Namespace::create().context("cannot make an empty network namespace")?;
    let lone = lone.fd().try_clone_to_owned();
    let lone = lone.context("cannot keep an empty network namespace")?;
    let passed = [(3, theirs), (4, lone)].map(|(child_fd, parent_fd)| FdMapping {
        parent_fd,
        child_fd,
    });
    command
        .fd_mappings(passed.into())
        .context("cannot hand the spawner its descriptors")?;
    let mut child = tokio::process::Command::from(command)
        .spawn()
        .with_context(|| program.cannot_start())?;
    let pid = child.id().unwrap_or_default();
    let socket = Arc::new(crate::sys::watch(ours).context("cannot watch the spawner's socket")?);
    let waiting: Arc<Waiting> = Arc::default();
    let (reading, answering) = (socket.clone(), waiting.clone());
    let ended = tokio::spawn(async move {
        if let Err(error) = read_replies(&reading, &answering, &ahead).await
            && !ending.load(Ordering::Relaxed)
        {
            tracing::warn!("the spawner is gone, the next start makes another: {error:#}");
        }
        answering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        drop(answering);
        drop(reading);
        let _ = child.wait().await;
    });
    Ok(Link {
        socket,
        waiting,
        pid,
        ended,
    })
}

async fn read_replies(socket: &AsyncFd<OwnedFd>, waiting: &Waiting, ahead: &Ahead) -> Result<()> {
    let mut buffer = vec![0; 4096];
    loop {
        let received = packet::receive(socket, &mut buffer)
            .await
            .context("cannot read its reply")?;
        if received.length == 0 {
            bail!("it closed its socket");
        }
        let reply =
            postcard::from_bytes(&buffer[..received.length]).context("cannot decode its reply")?;
        let mut fds = received.fds.into_iter();
        let (id, result) = match (reply, fds.next(), fds.next(), fds.next()) {
            (Reply::Started { id, pid }, Some(pidfd), None, _) => {
                let started = Unclaimed(Some(Started { pid, pidfd }));
                (id, Ok(Given::Process(started)))
            }
            (Reply::Users { id }, Some(container), Some(site), None) => {
                (id, Ok(Given::Users(Users { container, site })))
            }
            (Reply::Ready { id, pid }, Some(pidfd), Some(init), Some(main)) => {
                match Pair::new(Started { pid, pidfd }, init, main) {
                    Ok(pair) => ahead.put(id, pair),
                    Err(error) => {
                        ahead.forget(id);
                        tracing::warn!("no init is made ahead: {error:#}");
                    }
                }
                continue;
            }
            (Reply::Refused { id, failure }, None, ..) => {
                if ahead.forget(id) {
                    tracing::debug!("no init is made ahead: {}", SpawnError::Refused(failure));
                    continue;
                }
                (id, Err(SpawnError::Refused(failure)))
            }
            (
                Reply::Started { id, .. }
                | Reply::Users { id }
                | Reply::Ready { id, .. }
                | Reply::Refused { id, .. },
                ..,
            ) => {
                let lost = "its reply carried other descriptors than it says";
                if ahead.forget(id) {
                    tracing::warn!("no init is made ahead: {lost}");
                    continue;
                }
                (id, Err(SpawnError::Lost(lost.into())))
            }
        };
        let teller = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        // The asker may have given up meanwhile, or gives up before it has looked: what was cloned for it is ended.
        if let Some(teller) = teller {
            let _unwanted = teller.send(result);
        }
    }
}

/// A request as the packet that it is sent as.
pub fn pack(request: &Request) -> Result<Vec<u8>, SpawnError> {
    let bytes =
        postcard::to_stdvec(request).map_err(|error| SpawnError::Lost(error.to_string()))?;
    if bytes.len() > MAX_PACKET {
        return Err(SpawnError::Refused(Failure {
            step: "pack the definition".into(),
            object: format!("{} bytes", bytes.len()),
            errno: libc::EMSGSIZE,
        }));
    }
    Ok(bytes)
}

impl Started {
    /// Ends it, where nobody is going to use it.
    pub fn kill(&self) {
        // Err: it has ended.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// One that nobody has taken yet: it is ended with this.
#[derive(Debug)]
struct Unclaimed(Option<Started>);

impl Unclaimed {
    fn claim(mut self) -> Option<Started> {
        self.0.take()
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(started) = &self.0 {
            started.kill();
        }
    }
}

impl AsFd for Started {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
