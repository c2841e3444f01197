//! The idle ladder: running, frozen, its memory given back, stopped; down by time or because memory is scarce, up with a
//! request.
//!
//! A vhost that rests has no timer and no task that looks: all of them are in one ordered queue, and one task waits for the
//! first. It runs only while somebody is due at all.

mod arrivals;
mod give_back;
pub(crate) mod handed;
mod maps;
mod order;
mod pressure;
mod queue;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use serde_json::json;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::container::Container;
use crate::platform::Platform;
use crate::seeing::host::Memory;
use crate::site::Site;
pub(crate) use pressure::{Level, QUIET};
pub(crate) use queue::Due;
use queue::Queue;

/// Sites whose memory is given back at a time: swap is one device, and the others' requests need the processors.
const AT_A_TIME: usize = 1;

/// Sites that are stopped at a time because they have rested for their time: an agent that was away finds many due at once.
const STOPS: usize = 8;

/// Who rests, and when they go further down.
pub struct Ladder {
    state: Mutex<State>,
    earlier: Notify,
    places: Semaphore,
    stops: Semaphore,
    /// Who is woken by data that comes over their link.
    pub(crate) watched: arrivals::Watched,
    /// What of that has been told.
    pub(crate) told: arrivals::Told,
    /// Who is woken by data on connections that were handed over.
    pub(crate) handed: handed::Handed,
}

#[derive(Default)]
struct State {
    queue: Queue<Arc<str>, Weak<Site>>,
    tended: bool,
}

impl Default for Ladder {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            earlier: Notify::default(),
            places: Semaphore::new(AT_A_TIME),
            stops: Semaphore::new(STOPS),
            watched: arrivals::Watched::default(),
            told: arrivals::Told::default(),
            handed: handed::Handed::default(),
        }
    }
}

impl Ladder {
    /// From now on this is the vhost's next step; nothing if it has none.
    pub(crate) fn follow(self: &Arc<Self>, site: &Arc<Site>, next: Option<(Instant, Due)>) {
        let mut state = self.lock();
        let Some((at, due)) = next else {
            state.queue.remove(&site.name);
            return;
        };
        let first = state
            .queue
            .put(site.name.clone(), at, due, Arc::downgrade(site));
        if !state.tended {
            state.tended = true;
            tokio::spawn(run(self.clone()));
        } else if first {
            self.earlier.notify_one();
        }
    }

    /// Waits for its turn to be stopped.
    pub(crate) async fn stop_place(&self) -> Option<SemaphorePermit<'_>> {
        self.stops.acquire().await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Attends from now on to what moves sites besides time and requests: data for those that are frozen, and the host's memory.
pub(crate) fn attend(platform: &Arc<Platform>) {
    arrivals::attend(platform);
    pressure::attend(platform);
}

async fn run(ladder: Arc<Ladder>) {
    loop {
        let now = Instant::now();
        let (due, next) = {
            let mut state = ladder.lock();
            let due: Vec<_> = std::iter::from_fn(|| state.queue.take(now)).collect();
            let next = state.queue.first();
            state.tended = next.is_some();
            (due, next)
        };
        for (due, site) in due {
            if let Some(site) = site.upgrade() {
                tokio::spawn(async move { site.step_down(due).await });
            }
        }
        let Some(next) = next else {
            return;
        };
        // Elapsed: it is time.
        let _ = tokio::time::timeout_at(next.into(), ladder.earlier.notified()).await;
    }
}

/// Whether memory that is given back has somewhere to go.
pub(crate) fn has_swap() -> bool {
    let memory = Memory::now();
    memory.swap_total_bytes > memory.swap_used_bytes
}

/// Gives the memory of a container back, in a task of its own, for as long as the site rests on that rung.
pub(crate) fn reclaim(site: Arc<Site>, container: &Arc<Container>) {
    if !container.queue_reclaim() {
        return;
    }
    // However long it waits, a container that ends meanwhile is not kept: its network namespace would be, too.
    let container = Arc::downgrade(container);
    tokio::spawn(async move {
        let ladder = site.platform.ladder.clone();
        let Ok(_place) = ladder.places.acquire().await else {
            return;
        };
        let given = container.clone();
        let work = tokio::task::spawn_blocking(move || {
            let begin = |container: Arc<Container>| {
                container.begin_reclaim();
                container.group.clone()
            };
            let Some(group) = container.upgrade().map(begin) else {
                return;
            };
            let still = || {
                let container = container.upgrade();
                container.is_some_and(|container| site.is_reclaimed(&container))
            };
            if !still() {
                return;
            }
            let began = Instant::now();
            let memory = || Some(group.memory_and_swap().ok()?.0);
            let before = memory();
            if let Err(error) =
                give_back::give_back(&group, &|most| site.squeeze(&group, most), &still)
            {
                tracing::warn!("{}: {error:#}", site.name);
            }
            let more = json!({
                "before_bytes": before, "after_bytes": memory(),
                "ms": (began.elapsed().as_secs_f64() * 1e6).round() / 1e3, "broken_off": !still(),
            });
            let owner = site.owner();
            site.platform
                .events
                .emit("reclaim", Some((&site.name, &owner)), more);
        });
        // Err: the agent is ending.
        let _ = work.await;
        if let Some(container) = given.upgrade() {
            container.end_reclaim();
        }
    });
}
