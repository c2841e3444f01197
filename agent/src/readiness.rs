//! Waits until servers listen, for all starts of the agent on one thread.
//!
//! The kernel tells this thread whenever a TCP socket of the host begins to listen ([`Listening`]); it then asks for the
//! ones that it waits for, and otherwise every 5 ms. Where the kernel may not be asked to, and for Unix sockets, it asks
//! every 100 µs while a start is young and ever more seldom after that. tokio's timers have a resolution of a
//! millisecond, which would double the time of a fast start. The thread sleeps in the kernel when nobody waits.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::oneshot;

use crate::listening::Listening;

/// What the kernel and the dynamic linker need at least for a program.
const LOADING: Duration = Duration::from_micros(150);
/// Between two looks, first and last.
const SHORTEST: Duration = Duration::from_micros(100);
const LONGEST: Duration = Duration::from_millis(5);
/// Between two looks after a notice: its socket is found a moment later. Nor do notices make looks more frequent, as any
/// program may listen as often as it likes.
const AFTER_NOTICE: Duration = Duration::from_micros(50);
/// After so many notices that have led to nothing looks become half as frequent, and again, up to so many times.
const IN_VAIN: u32 = 24;
const HALVINGS: u32 = 5;
/// After a look no other one for so many times as long as it took: a tenant can make it take long.
const REST: u32 = 10;
/// For how long a notice that has led to nothing is looked after.
const FRESH: Duration = Duration::from_millis(1);

/// Asks whether a server listens; Err ends the wait.
pub type Ask = Box<dyn FnMut() -> std::io::Result<bool> + Send>;

/// A server and how to ask it.
pub struct Probe {
    /// A number that no other has at the time: who waits for the same server waits with one probe, however many they are.
    pub server: usize,
    /// It listens on TCP, if it does.
    pub tcp: bool,
    /// See [`Ask`].
    pub ask: Ask,
}

struct Wait {
    probe: Probe,
    since: Instant,
    /// Notices do not lead to a look before.
    earliest: Instant,
    noticed: Option<Instant>,
    /// Since the last look.
    told: bool,
    /// Looks that notices have led to.
    in_vain: u32,
    next: Instant,
    tell: Vec<Teller>,
}

type Teller = oneshot::Sender<std::io::Result<()>>;

/// Handle to the thread; it ends when the last one is dropped.
#[derive(Clone)]
pub struct Readiness {
    handle: Arc<Handle>,
    notified: bool,
}

struct Handle(Arc<Shared>);

struct Shared {
    arrivals: Mutex<Vec<(Probe, Teller)>>,
    over: AtomicBool,
    /// An eventfd that wakes the thread.
    bell: OwnedFd,
}

impl Shared {
    fn arrivals(&self) -> MutexGuard<'_, Vec<(Probe, Teller)>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // Err: it has been rung four billion times, and is going to be heard.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
        self.0.ring();
    }
}

impl Readiness {
    /// Starts the thread. Without `notices` it looks by the clock alone.
    pub fn new(notices: Option<Listening>) -> std::io::Result<Self> {
        let notified = notices.is_some();
        let shared = Arc::new(Shared {
            arrivals: Mutex::default(),
            over: AtomicBool::new(false),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let own = shared.clone();
        std::thread::Builder::new()
            .name("readiness".into())
            .spawn(move || run(&own, notices))?;
        let handle = Arc::new(Handle(shared));
        Ok(Self { handle, notified })
    }

    /// Whether the kernel tells who begins to listen.
    pub fn is_notified(&self) -> bool {
        self.notified
    }

    /// Waits until `probe` says yes or fails. Dropping the future ends the wait.
    pub async fn wait(&self, probe: Probe) -> std::io::Result<()> {
        let (tell, told) = oneshot::channel();
        let shared = &self.handle.0;
        shared.arrivals().push((probe, tell));
        shared.ring();
        told.await
            .map_err(|_| std::io::Error::other("the readiness thread is gone"))?
    }
}

fn run(shared: &Shared, mut notices: Option<Listening>) {
    // The default slack of 50 µs would double the shortest interval.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000));
    let mut waits: Vec<Wait> = Vec::new();
    let mut noticed = false;
    while !shared.over.load(Ordering::Acquire) {
        let mut next = waits.iter().map(|wait| wait.next).min();
        // Nobody reads notices while nobody waits: what is dropped then costs nobody anything.
        let mut watched = notices.as_ref().filter(|_| next.is_some());
        if noticed {
            // Nor does each wake this thread where programs listen again and again.
            watched = None;
            next = next.map(|next| next.min(Instant::now() + AFTER_NOTICE));
        }
        sleep(shared, watched, next);
        // Err: it has not been rung.
        let _ = rustix::io::read(&shared.bell, &mut [0; 8]);
        noticed = notices.as_mut().is_some_and(|n| n.take() > 0);
        let now = Instant::now();
        // After the notices have been taken: what comes after its first look is told again.
        for (probe, tell) in shared.arrivals().drain(..) {
            admit(&mut waits, probe, tell, now);
        }
        waits.retain_mut(|wait| goes_on(wait, now, noticed, notices.is_some(), Instant::now));
    }
}

/// Until somebody comes, there is a notice, or it is time.
fn sleep(shared: &Shared, notices: Option<&Listening>, next: Option<Instant>) {
    let mut wakers = vec![PollFd::new(&shared.bell, PollFlags::IN)];
    wakers.extend(notices.map(|n| PollFd::from_borrowed_fd(n.as_fd(), PollFlags::IN)));
    let left = next.map(|at| at.saturating_duration_since(Instant::now()));
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    // Err: interrupted.
    let _ = poll(&mut wakers, left.as_ref());
}

fn admit(waits: &mut Vec<Wait>, probe: Probe, tell: Teller, now: Instant) {
    if let Some(wait) = waits.iter_mut().find(|w| w.probe.server == probe.server) {
        wait.tell.retain(|tell| !tell.is_closed());
        wait.tell.push(tell);
        return;
    }
    waits.push(Wait {
        probe,
        since: now,
        earliest: now,
        noticed: None,
        told: false,
        in_vain: 0,
        next: now,
        tell: vec![tell],
    });
}

/// Asks if it is time to; false when all have been told, or nobody wants to know any more.
fn goes_on(
    wait: &mut Wait,
    now: Instant,
    noticed: bool,
    notified: bool,
    clock: impl Fn() -> Instant,
) -> bool {
    if noticed && wait.probe.tcp {
        wait.noticed = Some(now);
        wait.told = true;
        wait.next = wait.next.min(wait.earliest.max(now));
    }
    if now < wait.next {
        return true;
    }
    let began = clock();
    let answer = (wait.probe.ask)();
    let took = clock() - began;
    wait.in_vain += u32::from(std::mem::take(&mut wait.told));
    let soon = AFTER_NOTICE * (1 << (wait.in_vain / IN_VAIN).min(HALVINGS));
    let pause = match (notified && wait.probe.tcp, wait.noticed) {
        (true, Some(at)) if now - at < FRESH => soon,
        (true, _) => LONGEST,
        (false, _) => interval(now - wait.since),
    };
    wait.next = now + took + pause.max(took * REST);
    wait.earliest = now + took + soon.max(took * REST);
    let answer = match answer {
        Ok(false) => return wait.tell.iter().any(|tell| !tell.is_closed()),
        Ok(true) => Ok(()),
        Err(error) => Err(error),
    };
    for tell in wait.tell.drain(..) {
        let own = match &answer {
            Ok(()) => Ok(()),
            Err(error) => Err(std::io::Error::new(error.kind(), error.to_string())),
        };
        // Err only if the asker has gone away.
        let _ = tell.send(own);
    }
    false
}

/// Each look may take the processor from the very program that is waited for: none while it is still being loaded, and a
/// delay of a 32nd later on.
fn interval(age: Duration) -> Duration {
    if age < LOADING {
        return LOADING;
    }
    (age / 32).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    #[tokio::test]
    async fn all_who_wait_for_a_server_share_one_probe() {
        let readiness = Readiness::new(None).unwrap();
        let count = || Arc::new(AtomicUsize::new(0));
        let (asked, waiting, ready) = (count(), count(), Arc::new(AtomicBool::new(false)));
        let waits: Vec<_> = (0..100)
            .map(|_| {
                let (asked, ready) = (asked.clone(), ready.clone());
                let mut own = 0;
                let ask: Ask = Box::new(move || {
                    own += 1;
                    if own == 1 {
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(ready.load(Ordering::Relaxed))
                });
                let (readiness, waiting) = (readiness.clone(), waiting.clone());
                tokio::spawn(async move {
                    waiting.fetch_add(1, Ordering::Relaxed);
                    let server = 7;
                    readiness
                        .wait(Probe {
                            server,
                            tcp: true,
                            ask,
                        })
                        .await
                })
            })
            .collect();
        // On this one thread each of them gets to where it waits before the next one runs.
        while waiting.load(Ordering::Relaxed) < 100 {
            tokio::task::yield_now().await;
        }
        // Comes after all of them.
        let gone = Probe {
            server: 8,
            tcp: false,
            ask: Box::new(|| Err(std::io::Error::other("gone"))),
        };
        let error = readiness.wait(gone).await.unwrap_err();
        assert_eq!(error.to_string(), "gone");
        ready.store(true, Ordering::Relaxed);
        for wait in waits {
            wait.await.unwrap().unwrap();
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn notices_make_looks_more_frequent_only_up_to_a_limit() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let ask: Ask = Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(false)
        });
        let (tell, _told) = oneshot::channel();
        let (mut waits, began) = (Vec::new(), Instant::now());
        let probe = Probe {
            server: 1,
            tcp: true,
            ask,
        };
        admit(&mut waits, probe, tell, began);
        let wait = &mut waits[0];
        let mut look = |micros, noticed| {
            let now = began + Duration::from_micros(micros);
            assert!(goes_on(wait, now, noticed, true, || now));
            asked.load(Ordering::Relaxed)
        };
        assert_eq!(look(0, false), 1, "at once");
        assert_eq!(look(4_999, false), 1, "then seldom");
        assert_eq!(look(5_000, false), 2);
        assert_eq!(look(5_010, true), 2, "not so soon again");
        assert_eq!(look(5_050, false), 3);
        // As many notices as there may be: no more looks than by the clock.
        let before = asked.load(Ordering::Relaxed);
        let after = (5_051..6_051).map(|at| look(at, true)).last().unwrap();
        assert_eq!(after - before, 20);
        // Where all of them are in vain they lead to ever fewer.
        let before = (6_051..100_000).map(|at| look(at, true)).last().unwrap();
        let after = (100_000..200_000).map(|at| look(at, true)).last().unwrap();
        assert!((60..65).contains(&(after - before)), "{}", after - before);
    }

    #[test]
    fn a_look_that_takes_long_is_seldom() {
        let (tell, _told) = oneshot::channel();
        let (mut waits, began) = (Vec::new(), Instant::now());
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let probe = Probe {
            server: 1,
            tcp: false,
            ask: Box::new(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                Ok(false)
            }),
        };
        admit(&mut waits, probe, tell, began);
        for millis in 0..550 {
            let now = began + Duration::from_millis(millis);
            let looks = std::cell::Cell::new(0);
            // Five milliseconds between the first and the second time that it is asked for.
            let clock = || now + Duration::from_millis(5 * looks.replace(looks.get() + 1));
            assert!(goes_on(&mut waits[0], now, false, false, clock));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 10);
    }
}
