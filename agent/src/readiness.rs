//! Waits until servers listen, for all starts of the agent on one thread.
//!
//! tokio's timers have a resolution of a millisecond, which would double the time of a fast start. This thread
//! asks every 100 µs while a start is young and ever more seldom after that, down to every 5 ms. It sleeps in the kernel
//! when nobody waits.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// What the kernel and the dynamic linker need at least for a program.
const LOADING: Duration = Duration::from_micros(150);
/// Between two looks, first and last.
const SHORTEST: Duration = Duration::from_micros(100);
const LONGEST: Duration = Duration::from_millis(5);

/// Asks whether a server listens; Err ends the wait.
pub type Probe = Box<dyn FnMut() -> std::io::Result<bool> + Send>;

/// Who waits for the same server waits with one probe, however many they are.
struct Wait {
    server: usize,
    probe: Probe,
    since: Instant,
    next: Instant,
    tell: Vec<Teller>,
}

type Teller = oneshot::Sender<std::io::Result<()>>;

/// A server (a number that no other has at the time), how to ask it, and whom to tell.
type Arrival = (usize, Probe, Teller);

/// Handle to the thread; it ends when the handle is dropped.
#[derive(Debug, Clone)]
pub struct Readiness {
    waits: Sender<Arrival>,
}

impl Readiness {
    /// Starts the thread.
    pub fn new() -> std::io::Result<Self> {
        let (waits, incoming) = channel();
        std::thread::Builder::new()
            .name("readiness".into())
            .spawn(move || run(&incoming))?;
        Ok(Self { waits })
    }

    /// Waits until `probe` of `server` says yes or fails. Dropping the future ends the wait.
    pub async fn wait(&self, (server, probe): (usize, Probe)) -> std::io::Result<()> {
        let (tell, told) = oneshot::channel();
        let gone = || std::io::Error::other("the readiness thread is gone");
        self.waits.send((server, probe, tell)).map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

fn run(incoming: &Receiver<Arrival>) {
    // The default slack of 50 µs would double the shortest interval.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000));
    let mut waits: Vec<Wait> = Vec::new();
    loop {
        let next = waits.iter().map(|wait| wait.next).min();
        let arrival = match next {
            None => incoming.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => incoming.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match arrival {
            Ok(arrival) => admit(&mut waits, arrival),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        waits.retain_mut(|wait| goes_on(wait, now));
    }
}

fn admit(waits: &mut Vec<Wait>, (server, probe, tell): Arrival) {
    if let Some(wait) = waits.iter_mut().find(|wait| wait.server == server) {
        wait.tell.retain(|tell| !tell.is_closed());
        wait.tell.push(tell);
        return;
    }
    let now = Instant::now();
    waits.push(Wait {
        server,
        probe,
        since: now,
        next: now,
        tell: vec![tell],
    });
}

/// Asks if it is time to; false when all have been told, or nobody wants to know any more.
fn goes_on(wait: &mut Wait, now: Instant) -> bool {
    if now < wait.next {
        return true;
    }
    wait.next = now + interval(now - wait.since);
    let answer = match (wait.probe)() {
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
        let readiness = Readiness::new().unwrap();
        let count = || Arc::new(AtomicUsize::new(0));
        let (asked, waiting, ready) = (count(), count(), Arc::new(AtomicBool::new(false)));
        let waits: Vec<_> = (0..100)
            .map(|_| {
                let (asked, ready) = (asked.clone(), ready.clone());
                let mut own = 0;
                let probe: Probe = Box::new(move || {
                    own += 1;
                    if own == 1 {
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(ready.load(Ordering::Relaxed))
                });
                let (readiness, waiting) = (readiness.clone(), waiting.clone());
                tokio::spawn(async move {
                    waiting.fetch_add(1, Ordering::Relaxed);
                    readiness.wait((7, probe)).await
                })
            })
            .collect();
        // On this one thread each of them gets to where it waits before the next one runs.
        while waiting.load(Ordering::Relaxed) < 100 {
            tokio::task::yield_now().await;
        }
        // Comes after all of them.
        let other: Probe = Box::new(|| Err(std::io::Error::other("gone")));
        let error = readiness.wait((8, other)).await.unwrap_err();
        assert_eq!(error.to_string(), "gone");
        ready.store(true, Ordering::Relaxed);
        for wait in waits {
            wait.await.unwrap().unwrap();
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
