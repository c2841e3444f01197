//! The running instance of a vhost: what it consists of, and what can be asked of it.

mod activated;
mod begin;
mod connect;
mod data;
pub mod documents;
mod drift;
mod files;
mod freezing;
mod host_etc;
mod limits;
mod make;
mod members;
mod open_files;
mod open_files_live;
mod record;
mod remove;
mod request;
mod rest;
mod status;
pub mod templates;
mod traffic;
mod upstream;

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

use crate::config::definition::Listen;
use crate::platform::Platform;

pub(crate) use connect::PAUSE as CONNECT_PAUSE;
pub use drift::{Drift, drifted};
use freezing::Freezing;
pub use freezing::Still;
pub use limits::{in_force, translate};
pub use make::{Made, MakeError, count_documents, make};
pub use open_files::{DEFAULT_OPEN_FILES, OpenFiles, raise_is_allowed};
pub use record::{LastExit, Record, fingerprint, start_time};
pub use remove::{KILL_LIMIT, Remains, Unkillable};
pub use request::{environment, rlimits, workdir};
pub use rest::Rest;
pub use status::{Executing, status_socket};

/// For how long a Unix socket that listened is taken to listen, at least.
const TRUST: Duration = Duration::from_millis(100);

/// For how long an answer holds that took so long.
fn holds(listens: bool, took: Duration) -> Duration {
    match listens {
        true => TRUST.max(took * 50),
        // Somebody waits for it to change.
        false if took < Duration::from_millis(1) => Duration::ZERO,
        false => took * 10,
    }
}

/// In ms, to the microsecond.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// How long each part of a start took, in ms, and the whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// Opening and checking the documents.
    pub documents: f64,
    /// Network namespace, detached mounts, the request.
    pub clone: f64,
    /// Cgroup with its limits, firewall, log directory.
    pub resources: f64,
    /// The rest of mounts and confinement, up to execve of the command.
    pub setup: f64,
    /// The application's own start, until it is known to listen.
    pub listen: f64,
    /// All of it.
    pub total: f64,
}

/// How to find out whether the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listener {
    /// A TCP port inside the container's network namespace.
    Tcp(u16),
    /// A Unix socket, by its path inside.
    Unix(Box<str>),
    /// The agent itself listens there for the container.
    Activated,
}

/// A container that was made (or found alive).
pub struct Container {
    /// The vhost.
    pub vhost: Arc<str>,
    /// What was on disk about it when it was made or found.
    pub record: Record,
    record_path: Arc<Path>,
    /// `10.88.0.6:8080` or `unix:/path`; with loopback only, `127.0.0.1:8080` inside.
    pub upstream: Arc<str>,
    /// Times of its start.
    pub phases: Arc<Phases>,
    /// Its init.
    pub(crate) pidfd: Arc<AsyncFd<OwnedFd>>,
    /// Its control group.
    pub group: Arc<cgroup::Group>,
    /// Its network namespace.
    pub(crate) namespace: Arc<netns::Namespace>,
    listener: Listener,
    /// The host's network namespace.
    home: Arc<netns::Namespace>,
    /// The host's end of its link.
    host: Weak<netns::Host>,
    method: netns::Method,
    link: Mutex<traffic::Link>,
    /// Open files of its processes, as they were told last; None where that is not known.
    open_files: Arc<Mutex<Option<u64>>>,
    /// Whether its Unix socket listens, and until when that is not asked again.
    heard: Mutex<Option<(bool, Instant)>>,
    /// Whether a connection to it was ever handed over, as far as is known.
    handed: AtomicBool,
    /// They are told once more in a while.
    pub(crate) told_again: AtomicBool,
    freezing: Arc<Freezing>,
    /// Commands that operators run in it now, and connections that are being made to hand them over.
    sessions: Arc<()>,
    /// Its place on the idle ladder.
    rest: rest::Resting,
    /// When its keeper and stop tasks have to look again.
    pub(crate) since: std::time::Instant,
}

impl Container {
    /// Of a container that has been made (`began` is when its start did) or found alive.
    #[allow(
        clippy::too_many_arguments,
        reason = "each is a part of the container, named by its type"
    )]
    pub(crate) fn new(
        platform: &Platform,
        vhost: Arc<str>,
        record: Record,
        pidfd: AsyncFd<OwnedFd>,
        group: Arc<cgroup::Group>,
        namespace: Arc<netns::Namespace>,
        began: std::time::Instant,
    ) -> Self {
        Self {
            record_path: platform.record_path(&vhost).into(),
            vhost,
            upstream: record.upstream.as_str().into(),
            phases: Arc::new(record.phases.clone()),
            listener: Listener::of(&record),
            open_files: Arc::new(Mutex::new(record.open_files)),
            // What the last agent has handed over is not known.
            handed: AtomicBool::new(record.ready_at > 0.0),
            record,
            pidfd: Arc::new(pidfd),
            group,
            namespace,
            home: platform.home.clone(),
            host: Arc::downgrade(&platform.host),
            method: platform.method,
            link: Mutex::default(),
            heard: Mutex::default(),
            told_again: AtomicBool::new(false),
            freezing: Arc::default(),
            sessions: Arc::default(),
            rest: rest::Resting::default(),
            since: began,
        }
    }

    /// The same container, known to listen; how long its set-up, its server and all of it took.
    pub(crate) fn ready(&self, setup: Duration, listen: Duration, total: Duration) -> Arc<Self> {
        let phases = Phases {
            setup: millis(setup),
            listen: millis(listen),
            total: millis(total),
            ..(*self.phases).clone()
        };
        let record = Record {
            phases: phases.clone(),
            ready_at: crate::time::unix_now(),
            ready_boot: crate::time::boot_millis(),
            open_files: self.last_open_files(),
            ..self.record.clone()
        };
        Arc::new(Self {
            vhost: self.vhost.clone(),
            record,
            record_path: self.record_path.clone(),
            upstream: self.upstream.clone(),
            phases: Arc::new(phases),
            pidfd: self.pidfd.clone(),
            group: self.group.clone(),
            namespace: self.namespace.clone(),
            listener: self.listener.clone(),
            home: self.home.clone(),
            host: self.host.clone(),
            method: self.method,
            link: Mutex::default(),
            open_files: self.open_files.clone(),
            heard: Mutex::default(),
            handed: AtomicBool::new(false),
            told_again: AtomicBool::new(false),
            freezing: self.freezing.clone(),
            sessions: self.sessions.clone(),
            rest: rest::Resting::default(),
            since: self.since,
        })
    }

    /// The address that connections come to.
    fn address(&self) -> IpAddr {
        self.record.address.unwrap_or(Ipv4Addr::LOCALHOST).into()
    }

    /// [`Self::upstream`] where that can be reached from outside its network namespace.
    pub fn reachable(&self) -> Option<&str> {
        let inside = matches!(self.listener, Listener::Tcp(_)) && self.record.address.is_none();
        (!inside).then_some(&*self.upstream)
    }

    /// Seconds since it began to listen.
    pub fn uptime_s(&self) -> f64 {
        ((crate::time::unix_now() - self.record.ready_at).max(0.0) * 1e3).round() / 1e3
    }

    /// All that has to be removed when it has ended.
    pub(crate) fn remains(&self) -> Remains {
        Remains {
            group: Some(self.group.clone()),
            namespace: Some(self.namespace.clone()),
            address: self.record.address,
            slot: Some(self.record.slot),
            range: Some(self.record.range),
            ..Remains::default()
        }
    }

    /// Makes its Unix socket known to the front, once it listens; again where its server has made another one.
    pub(crate) fn publish(&self, platform: &Platform) -> Result<()> {
        match &self.listener {
            Listener::Unix(path) => {
                upstream::publish(platform, &self.vhost, path, self.record.ids.into())
            }
            Listener::Tcp(_) | Listener::Activated => Ok(()),
        }
    }

    /// Whether its server accepts connections now; microseconds.
    pub fn listens(&self) -> bool {
        self.check().unwrap_or(false)
    }

    fn check(&self) -> std::io::Result<bool> {
        let diag = self.namespace.diag();
        let answer = match &self.listener {
            Listener::Tcp(port) => diag.tcp_listening(self.method, self.address(), *port),
            Listener::Unix(path) => return self.check_unix(diag, path),
            Listener::Activated => return Ok(true),
        };
        answer.map_err(std::io::Error::other)
    }

    /// The kernel goes through all Unix sockets of the container for that, of which a tenant may make many: what it said is
    /// taken to hold for a while, the longer the longer it took.
    fn check_unix(&self, diag: &netns::Diag, path: &str) -> std::io::Result<bool> {
        let known = || self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        if let Some((listens, until)) = *known()
            && began < until
        {
            return Ok(listens);
        }
        let listens = diag.unix_listening(self.method, path.as_bytes());
        let listens = listens.map_err(std::io::Error::other)?;
        let holds = holds(listens, began.elapsed());
        *known() = Some((listens, Instant::now() + holds));
        Ok(listens)
    }

    /// [`Self::listens`] for the readiness thread.
    pub fn probe(self: &Arc<Self>) -> crate::readiness::Probe {
        let container = self.clone();
        crate::readiness::Probe {
            // The same for the container before and after it was known to be ready.
            server: Arc::as_ptr(&self.pidfd).addr(),
            tcp: matches!(self.listener, Listener::Tcp(_)),
            ask: Box::new(move || container.check()),
        }
    }

    /// Held while an operator's command runs in it, or a connection to it is being made: that is use, as an open one is.
    pub fn session(&self) -> Arc<()> {
        self.sessions.clone()
    }

    /// Whether anybody holds a [`Self::session`].
    pub fn in_session(&self) -> bool {
        Arc::strong_count(&self.sessions) > 1
    }

    /// Connections that are open to its server now, and [sessions](Self::session). May cost more than [`Self::listens`]:
    /// not for the hot path.
    pub fn open_connections(&self) -> Result<usize> {
        let diag = self.namespace.diag();
        let count = match &self.listener {
            Listener::Tcp(port) => diag.tcp_open(self.method, *port),
            Listener::Unix(path) => self.unix_open(path.as_bytes()),
            Listener::Activated => match self.record.activated_port {
                Some(port) => diag.tcp_open(self.method, port),
                // That socket was made in the host's namespace.
                None => self.home.diag().unix_open(
                    self.method,
                    self.record
                        .activated_path
                        .as_deref()
                        .unwrap_or_default()
                        .as_bytes(),
                ),
            },
        };
        let sessions = Arc::strong_count(&self.sessions) - 1;
        let count = count.map(|open| open + sessions);
        count.with_context(|| format!("cannot count the connections of {}", self.vhost))
    }

    /// The web server in front is in the host's namespace, and so are its accepted connections; others wait in the
    /// queue of the listener or come from inside.
    fn unix_open(&self, name: &[u8]) -> netns::Result<usize> {
        let inside = self.namespace.diag().unix_open(self.method, name)?;
        let path = self
            .record
            .upstream
            .strip_prefix("unix:")
            .unwrap_or_default();
        let accepted = match std::fs::symlink_metadata(path) {
            Ok(file) => self.home.diag().unix_accepted(self.method, &file, name)?,
            // Not published yet: nobody has been told of it.
            Err(_) => 0,
        };
        Ok(inside + accepted)
    }

    /// Sends a signal to its init, which forwards it to the command.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let named = Signal::from_named_raw(signal)
            .with_context(|| format!("signal {signal} cannot be sent to {}", self.vhost))?;
        match rustix::process::pidfd_send_signal(self.pidfd.get_ref(), named) {
            // It has ended by itself: the keeper notices.
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => {
                other.with_context(|| format!("cannot send signal {signal} to {}", self.vhost))
            }
        }
    }

    /// Sends a signal on an operator's behalf: KILL and STOP reach the command itself, as init cannot catch them.
    pub fn signal_main(&self, signal: i32) -> Result<()> {
        if ![libc::SIGKILL, libc::SIGSTOP].contains(&signal) {
            return self.signal(signal);
        }
        let main =
            rustix::process::Pid::from_raw(self.record.main_pid).context("it has no command")?;
        let pidfd = rustix::process::pidfd_open(main, PidfdFlags::empty())
            .context("its command has ended")?;
        if !self.group.pids()?.contains(&self.record.main_pid) {
            anyhow::bail!("the command of {} has ended", self.vhost);
        }
        let named = Signal::from_named_raw(signal).context("no such signal")?;
        rustix::process::pidfd_send_signal(pidfd, named)
            .with_context(|| format!("cannot signal {}", self.vhost))
    }

    /// Waits until its init has ended, and with it (it is pid 1 of its pid namespace) every process inside.
    pub async fn ended(&self) {
        // An error can only mean that the runtime is shutting down.
        let _ = self
            .pidfd
            .readable()
            .await
            .map(|mut guard| guard.retain_ready());
    }

    /// For requests of the spawner that join it.
    pub fn pidfd(&self) -> impl AsFd + '_ {
        self.pidfd.get_ref()
    }
}

/// A pidfd of `pid` if that is still the process that began at `start_time` (clock ticks since boot).
pub fn open_process(pid: i32, expected_start: u64) -> Result<Option<OwnedFd>> {
    let Some(number) = rustix::process::Pid::from_raw(pid) else {
        return Ok(None);
    };
    let pidfd = match rustix::process::pidfd_open(number, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open process {pid}")),
    };
    // Read after the pidfd is open: if the number has been given to another process, its start time differs.
    Ok((start_time(pid) == Some(expected_start)).then_some(pidfd))
}

impl Listener {
    /// As the container was started with, whatever its definition says by now.
    fn of(record: &Record) -> Self {
        match record.listen.parse() {
            Ok(Listen::Tcp(port)) => Self::Tcp(port),
            Ok(Listen::Unix(path)) => Self::Unix(path.to_string_lossy().into()),
            Ok(Listen::Activate) | Err(_) => Self::Activated,
        }
    }
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container")
            .field("record", &self.record)
            .field("pidfd", &self.pidfd.get_ref().as_raw_fd())
            .finish()
    }
}
