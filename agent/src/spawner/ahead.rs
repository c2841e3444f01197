//! Inits that the spawner has made ahead. They are the agent's: each takes the packet of one start on its own socket, so that
//! no start waits for another process to pass that on, and ends when the socket is closed. The spawner's end is not theirs.

use std::collections::{HashSet, VecDeque};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use netns::Demand;

use super::Started;
use crate::packet;
use crate::platform::GROWTH;

/// How long those that wait may take to end.
const END_LIMIT: Duration = Duration::from_secs(1);

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
    waiting: VecDeque<(Started, OwnedFd)>,
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

    pub(super) fn any(&self) -> bool {
        self.any
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
    pub(super) fn put(&self, id: u64, init: Started, socket: OwnedFd) {
        let mut state = self.lock();
        if state.asked.remove(&id) && !state.ending {
            state.waiting.push_back((init, socket));
        }
    }

    /// See [`super::Spawner::hand_over`].
    pub(super) fn hand_over(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) -> Option<Started> {
        self.lock().demand.take(Instant::now());
        loop {
            let (init, socket) = self.lock().waiting.pop_front()?;
            match packet::send_now(&socket, packet, fds) {
                Ok(()) => return Some(init),
                // It has ended, or could not build its root.
                Err(error) if has_ended(&error) => {}
                // The packet's own fault, or the host's: another one would do no better.
                Err(_) => {
                    self.lock().waiting.push_front((init, socket));
                    return None;
                }
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
        let inits: Vec<Started> = waiting.into_iter().map(|(init, _socket)| init).collect();
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

    fn one() -> (Started, OwnedFd, OwnedFd) {
        let pair = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        );
        let (ours, theirs) = pair.unwrap();
        // Nobody asks it anything.
        let pidfd = ours.try_clone().unwrap();
        (Started { pid: 7, pidfd }, ours, theirs)
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
        let (init, socket, _theirs) = one();
        ahead.put(1, init, socket);
        assert_eq!(more(&ahead), None);
        assert_eq!(ahead.hand_over(b"start", &[]).unwrap().pid, 7);
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
        let (init, socket, _theirs) = one();
        ahead.put(4, init, socket);
        assert!(ahead.hand_over(b"start", &[]).is_none());
    }

    #[test]
    fn those_that_have_ended_are_passed_over() {
        let ahead = Ahead::new(3);
        let mut theirs = Vec::new();
        for id in 1..=3 {
            ahead.one_more(|| id).unwrap();
            let (init, socket, other) = one();
            ahead.put(id, init, socket);
            theirs.push(other);
        }
        theirs.drain(..2);
        assert!(ahead.hand_over(b"start", &[]).is_some());
        let mut buffer = [0; 16];
        let got = rustix::io::read(&theirs[0], &mut buffer).unwrap();
        assert_eq!(&buffer[..got], b"start");
        assert!(ahead.hand_over(b"start", &[]).is_none());
    }
}
