//! Pairs that the spawner has made ahead: an init, and its child that becomes the command. They are the agent's: each takes its
//! part of one start on its own socket, so that no start waits for another process to pass that on, and ends when the
//! socket is closed. The spawner's end is not theirs.

use std::collections::{HashSet, VecDeque};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use netns::Demand;
use shim::protocol::{FdRole, Later};

use super::Started;
use crate::packet;
use crate::platform::GROWTH;

/// How long those that wait may take to end.
const END_LIMIT: Duration = Duration::from_secs(1);

/// A packet and its descriptors.
pub type Packet<'a> = (&'a [u8], &'a [BorrowedFd<'a>]);

/// See the module. Dropped, both end, unless they have been given all of a start.
#[derive(Debug)]
pub struct Pair {
    init: Started,
    /// The same pidfd once more, for whoever ends what is left of a start: nothing can fail once the pair has its packets.
    watched: Option<OwnedFd>,
    socket: OwnedFd,
    /// The child's.
    main: OwnedFd,
}

impl Pair {
    pub(super) fn new(init: Started, socket: OwnedFd, main: OwnedFd) -> Result<Self> {
        let watched = init.pidfd.try_clone().context("cannot keep its pidfd")?;
        Ok(Self {
            init,
            watched: Some(watched),
            socket,
            main,
        })
    }

    /// Gives both their packets.
    fn begin(&self, init: Packet<'_>, main: Packet<'_>) -> std::io::Result<()> {
        packet::send_now(&self.socket, init.0, init.1)?;
        // An init whose child has ended would say so on the status socket of the next attempt.
        packet::send_now(&self.main, main.0, main.1).inspect_err(|_| self.init.kill())
    }

    /// Gives its child the files by which that joins its groups.
    pub fn join_main(&self, roles: Vec<FdRole>, fds: &[BorrowedFd<'_>]) -> Result<()> {
        tell(&self.main, &Later::Join(roles), fds).context("cannot hand its cgroups to its command")
    }

    /// All limits are in force: its child may execute the command.
    pub fn go(&self) -> Result<()> {
        tell(&self.main, &Later::Go, &[]).context("cannot let its command go")
    }

    /// Gives init the rest of what it needs.
    pub fn join_init(&self, roles: Vec<FdRole>, fds: &[BorrowedFd<'_>]) -> Result<()> {
        tell(&self.socket, &Later::Join(roles), fds).context("cannot hand its cgroups to its init")
    }

    /// Its init's pidfd once more, once.
    pub fn watched(&mut self) -> Option<OwnedFd> {
        self.watched.take()
    }

    /// Both have all that they need.
    pub fn begun(self) -> Started {
        self.init
    }
}

fn tell(socket: &OwnedFd, what: &Later, fds: &[BorrowedFd<'_>]) -> Result<()> {
    match packet::send_now(socket, &postcard::to_stdvec(what)?, fds) {
        // Why it has ended it has told on the status socket.
        Err(error) if !has_ended(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Those that wait, the oldest first: as many as were taken lately, within bounds.
#[derive(Debug)]
pub(super) struct Ahead {
    /// Whether there are to be any.
    any: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    demand: Demand,
    /// A task waits for the time when there are too many.
    trimmed: bool,
    waiting: VecDeque<Pair>,
    /// Requests for more that have not been answered.
    asked: HashSet<u64>,
    ending: bool,
}

impl Ahead {
    /// `least` is how many are to wait though none is taken.
    pub(super) fn new(least: u32) -> Self {
        let least = least as usize;
        Self {
            any: least > 0,
            state: Mutex::new(State {
                demand: Demand::new(least, least * GROWTH),
                trimmed: false,
                waiting: VecDeque::new(),
                asked: HashSet::new(),
                ending: false,
            }),
        }
    }

    /// See [`super::Spawner::has_ahead`].
    pub(super) fn has(&self) -> bool {
        if !self.any {
            return false;
        }
        let mut state = self.lock();
        let has = !state.waiting.is_empty();
        if !has {
            state.demand.take(Instant::now());
        }
        has
    }

    /// Whether there are too few.
    pub(super) fn is_short(&self) -> bool {
        self.lock().is_short()
    }

    /// The number of a request for one more, if there are too few.
    pub(super) fn one_more(&self, number: impl FnOnce() -> u64) -> Option<u64> {
        let mut state = self.lock();
        if !state.is_short() {
            return None;
        }
        let id = number();
        state.asked.insert(id);
        Some(id)
    }

    /// A request for one more is not going to be answered. Whether it was one.
    pub(super) fn forget(&self, id: u64) -> bool {
        self.lock().asked.remove(&id)
    }

    /// None of them is.
    pub(super) fn forget_all(&self) {
        self.lock().asked.clear();
    }

    /// One that was asked for is there.
    pub(super) fn put(&self, id: u64, pair: Pair) {
        let mut state = self.lock();
        if state.asked.remove(&id) && !state.ending {
            state.waiting.push_back(pair);
        }
    }

    /// See [`super::Spawner::hand_over`].
    pub(super) fn hand_over(&self, init: Packet<'_>, main: Packet<'_>) -> Option<Pair> {
        self.lock().demand.take(Instant::now());
        loop {
            let pair = self.lock().waiting.pop_front()?;
            match pair.begin(init, main) {
                Ok(()) => return Some(pair),
                // It has ended, or could not build its root.
                Err(error) if has_ended(&error) => {}
                // The packets' own fault, or the host's: another one would do no better.
                Err(_) => return None,
            }
        }
    }

    /// Ends those that are too many once fewer are taken. There is a task only until then.
    pub(super) fn trim(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.trimmed || state.demand.falls_at().is_none() {
            return;
        }
        state.trimmed = true;
        drop(state);
        let ahead = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(at) = ahead.upgrade().and_then(|ahead| ahead.end_surplus()) {
                tokio::time::sleep_until(at.into()).await;
            }
        });
    }

    /// Ends those that are too many now; when there may be more of them.
    fn end_surplus(&self) -> Option<Instant> {
        let mut state = self.lock();
        let wanted = state.demand.wanted(Instant::now());
        state.waiting.truncate(wanted);
        let next = state.demand.falls_at();
        state.trimmed = next.is_some();
        next
    }

    /// Ends those that wait, and waits until they have ended: nobody is to find them where the agent was.
    pub(super) async fn end(&self) {
        let waiting = {
            let mut state = self.lock();
            state.ending = true;
            std::mem::take(&mut state.waiting)
        };
        let inits: Vec<Started> = waiting.into_iter().map(|pair| pair.init).collect();
        let all_ended = async {
            for init in inits {
                // Err: it is not known when, and they go on by themselves.
                let Ok(pidfd) = crate::sys::watch(init.pidfd) else {
                    return;
                };
                let _ = pidfd.readable().await;
            }
        };
        // Elapsed: they are left to whoever ends what is left.
        let _ = tokio::time::timeout(END_LIMIT, all_ended).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_short(&mut self) -> bool {
        let wanted = self.demand.wanted(Instant::now());
        !self.ending && self.waiting.len() + self.asked.len() < wanted
    }
}

/// What the kernel says where nobody reads a socket any more.
fn has_ended(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionReset | ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    /// With its own ends, the init's and its child's.
    fn one() -> (Pair, OwnedFd, OwnedFd) {
        let pair = || {
            socketpair(
                AddressFamily::UNIX,
                SocketType::SEQPACKET,
                SocketFlags::CLOEXEC,
                None,
            )
            .unwrap()
        };
        let ((socket, own), (main, child)) = (pair(), pair());
        // Nobody asks it anything.
        let pidfd = socket.try_clone().unwrap();
        (
            Pair::new(Started { pid: 7, pidfd }, socket, main).unwrap(),
            own,
            child,
        )
    }

    fn hand_over(ahead: &Ahead) -> Option<Pair> {
        ahead.hand_over((b"start", &[]), (b"run", &[]))
    }

    #[test]
    fn as_many_are_asked_for_as_are_missing() {
        let (ahead, mut next) = (Ahead::new(2), 0);
        let mut more = |ahead: &Ahead| {
            ahead.one_more(|| {
                next += 1;
                next
            })
        };
        assert_eq!(
            (more(&ahead), more(&ahead), more(&ahead)),
            (Some(1), Some(2), None)
        );
        assert!(!ahead.has());
        let (pair, _own, _child) = one();
        ahead.put(1, pair);
        assert!(ahead.has());
        assert_eq!(more(&ahead), None);
        assert_eq!(hand_over(&ahead).unwrap().begun().pid, 7);
        assert_eq!(more(&ahead), Some(3));
        // One that failed, and then the spawner.
        assert!(ahead.forget(2) && !ahead.forget(2));
        assert_eq!((more(&ahead), more(&ahead)), (Some(4), None));
        ahead.forget_all();
        assert_eq!(
            (more(&ahead), more(&ahead), more(&ahead)),
            (Some(5), Some(6), None)
        );
        // What nobody has asked for is not kept.
        let (pair, _own, _child) = one();
        ahead.put(4, pair);
        assert!(hand_over(&ahead).is_none());
    }

    #[test]
    fn those_that_have_ended_are_passed_over() {
        let ahead = Ahead::new(3);
        let mut theirs = Vec::new();
        for id in 1..=3 {
            ahead.one_more(|| id).unwrap();
            let (pair, own, child) = one();
            ahead.put(id, pair);
            theirs.push([Some(own), Some(child)]);
        }
        // Both of one, and the child of one.
        theirs[0] = [None, None];
        theirs[1][1] = None;
        let pair = hand_over(&ahead).unwrap();
        for (end, packet) in theirs[2].iter().flatten().zip([&b"start"[..], b"run"]) {
            let mut buffer = [0; 16];
            let got = rustix::io::read(end, &mut buffer).unwrap();
            assert_eq!(&buffer[..got], packet);
        }
        // One that ends when it has its packets tells why elsewhere.
        theirs.clear();
        pair.go().unwrap();
        assert!(hand_over(&ahead).is_none());
    }
}
