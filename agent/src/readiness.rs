//! Waits until servers listen, for all starts of the agent on one thread.
//!
//! tokio's timers have a resolution of a millisecond, which would double the time of a fast start. This thread
//! asks every 50 µs while a start is young and ever more seldom after that: 1 ms from 10 ms on, 5 ms from 200 ms
//! on. It sleeps in the kernel when nobody waits.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Asks whether a server listens; Err ends the wait.
pub type Probe = Box<dyn FnMut() -> std::io::Result<bool> + Send>;

struct Wait {
    probe: Probe,
    since: Instant,
    next: Instant,
    tell: oneshot::Sender<std::io::Result<()>>,
}

/// Handle to the thread; it ends when the handle is dropped.
#[derive(Debug, Clone)]
pub struct Readiness {
    waits: Sender<(Probe, oneshot::Sender<std::io::Result<()>>)>,
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

    /// Waits until `probe` says yes or fails. Dropping the future ends the wait.
    pub async fn wait(&self, probe: Probe) -> std::io::Result<()> {
        let (tell, told) = oneshot::channel();
        let gone = || std::io::Error::other("the readiness thread is gone");
        self.waits.send((probe, tell)).map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

fn run(incoming: &Receiver<(Probe, oneshot::Sender<std::io::Result<()>>)>) {
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
            Ok((probe, tell)) => {
                let now = Instant::now();
                waits.push(Wait {
                    probe,
                    since: now,
                    next: now,
                    tell,
                });
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        let mut index = 0;
        while index < waits.len() {
            if ask(&mut waits[index], now) {
                let wait = waits.swap_remove(index);
                // Err only if the asker has gone away.
                let _ = wait.tell.send(Ok(()));
            } else if waits[index].tell.is_closed() {
                waits.swap_remove(index);
            } else {
                index += 1;
            }
        }
    }
}

/// Asks if it is time to; true when the server listens. A probe that fails is dropped with its error told.
fn ask(wait: &mut Wait, now: Instant) -> bool {
    if now < wait.next {
        return false;
    }
    wait.next = now + interval(now - wait.since);
    match (wait.probe)() {
        Ok(listening) => listening,
        Err(error) => {
            let (closed, _) = oneshot::channel();
            let _ = std::mem::replace(&mut wait.tell, closed).send(Err(error));
            false
        }
    }
}

fn interval(age: Duration) -> Duration {
    match age.as_millis() {
        0..10 => Duration::from_micros(50),
        10..200 => Duration::from_millis(1),
        _ => Duration::from_millis(5),
    }
}
