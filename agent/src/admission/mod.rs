//! Start admission: at most so many starts at a time as the host has places for, owners in turn, by arrival within each.
//!
//! A free place for which nobody waits costs a lock that nobody contends for. How long a start may wait is its own concern:
//! whoever drops the future of [`Admission::place`] does not wait any more.

mod pressure;
mod queue;
#[cfg(test)]
mod queue_tests;
#[cfg(test)]
mod tests;
mod turn;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

pub(crate) use pressure::attend;
use queue::Queue;
pub use turn::Turn;

/// The places of this host.
#[derive(Debug)]
pub struct Admission {
    queue: Mutex<Queue<Arc<str>, oneshot::Sender<Place>>>,
    arrivals: AtomicU64,
    most: usize,
    /// Nobody has a place (any more).
    idle: Notify,
    /// When that was so last.
    idle_at: Mutex<Option<Instant>>,
}

/// The right to have a start under way, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Admission>);

/// How many starts there may be, are and would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Starts that may be under way now.
    pub places: usize,
    /// And without pressure.
    pub most: usize,
    /// Those that are.
    pub taken: usize,
    /// Those that wait.
    pub waiting: usize,
}

/// One that waits; it leaves the queue with this.
struct Waiting<'a> {
    admission: &'a Admission,
    owner: Arc<str>,
    arrival: u64,
}

impl Admission {
    /// With so many places.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(Queue::new(most.max(1))),
            arrivals: AtomicU64::new(0),
            most: most.max(1),
            idle: Notify::new(),
            idle_at: Mutex::default(),
        })
    }

    /// Waits until no start has had a place for so long: the next of many that are asked for one after the other comes sooner.
    pub async fn quiet(&self, long: Duration) {
        loop {
            self.idle().await;
            let since = *self.idle_at.lock().unwrap_or_else(PoisonError::into_inner);
            let left = since.map_or(Duration::ZERO, |at| long.saturating_sub(at.elapsed()));
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }

    /// Waits until no start has a place.
    async fn idle(&self) {
        let mut notified = std::pin::pin!(self.idle.notified());
        loop {
            // Before it is looked at: it may become so in between.
            notified.as_mut().enable();
            if self.lock().taken() == 0 {
                return;
            }
            notified.as_mut().await;
            notified.set(self.idle.notified());
        }
    }

    /// A number for a start that comes now: whoever has a lower one of the same owner is admitted before it.
    pub fn arrival(&self) -> u64 {
        self.arrivals.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits for a place, as long as this future lives.
    pub async fn place(self: &Arc<Self>, owner: &str, arrival: u64) -> Result<Place> {
        let (_waiting, told) = {
            let mut queue = self.lock();
            if queue.take() {
                return Ok(Place(self.clone()));
            }
            let owner: Arc<str> = owner.into();
            let (tell, told) = oneshot::channel();
            queue.enter(owner.clone(), arrival, tell);
            let waiting = Waiting {
                admission: self,
                owner,
                arrival,
            };
            (waiting, told)
        };
        told.await.context("the agent is ending")
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let queue = self.lock();
        Standing {
            places: queue.places(),
            most: self.most,
            taken: queue.taken(),
            waiting: queue.waiting(),
        }
    }

    fn set_places(self: &Arc<Self>, places: usize) {
        self.lock().set_places(places.min(self.most));
        self.admit();
    }

    /// Tells those whose turn it is; not under the lock, as the place of one who has just gone comes back at once.
    fn admit(self: &Arc<Self>) {
        loop {
            let Some(tell) = self.lock().admit() else {
                return;
            };
            let _ = tell.send(Place(self.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<Arc<str>, oneshot::Sender<Place>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (next, idle) = {
            let mut queue = self.0.lock();
            queue.give_back();
            (queue.admit(), queue.taken() == 0)
        };
        if let Some(tell) = next {
            let _ = tell.send(Self(self.0.clone()));
        }
        if idle {
            let mut at = self
                .0
                .idle_at
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *at = Some(Instant::now());
            drop(at);
            self.0.idle.notify_waiters();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.admission.lock().leave(&self.owner, self.arrival);
    }
}
