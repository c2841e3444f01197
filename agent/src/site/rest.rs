//! A vhost on the idle ladder: what follows from its rung, and its next step down.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::runtime::Handle;

use super::{Inner, Site};
use crate::config::definition::IdleAction;
use crate::container::{Container, Rest};
use crate::ladder::{self, Due, Level, QUIET};
use crate::machine::{Event, Rung, State, Verdict};
use crate::time::boot_millis;

/// How often one that is due to go, but has open connections, is looked at again.
const AGAIN: Duration = Duration::from_secs(60);
/// How long one that is too old may have open connections.
const DRAIN_LIMIT: Duration = Duration::from_secs(300);
/// For so long one that is being stopped keeps others waiting for their turn.
const STOP_TURN: Duration = Duration::from_secs(10);
/// For so long giving its memory back waits for a change of its limits.
const LIMITS_TURN: Duration = Duration::from_secs(2);

impl Site {
    /// It is on another rung, or on none any more: notes it, and when it has to go further down.
    pub(super) fn follow_rung(self: &Arc<Self>, inner: &Inner) {
        let state = inner.machine.state();
        let Some(container) = &inner.container else {
            return self.platform.ladder.follow(self, None);
        };
        container.note_rung(state.rung().unwrap_or(Rung::Running));
        self.platform.ladder.follow(self, next(inner, container));
    }

    /// It was found on this rung.
    pub(super) fn take_up_rung(self: &Arc<Self>) {
        let inner = self.lock();
        let Some(container) = inner.container.clone() else {
            return;
        };
        self.platform.ladder.follow(self, next(&inner, &container));
        let rests = inner.machine.state().rests();
        if rests {
            self.watch_for_data(&container);
        }
        drop(inner);
        if rests {
            let (site, container) = (self.clone(), container.clone());
            tokio::spawn(async move {
                site.watch_handed(&container).await;
                site.wake_if_unread().await;
            });
        }
        if self.is_reclaimed(&container) {
            // The last agent may not have come to the end of it.
            ladder::reclaim(self.clone(), &container);
        }
    }

    /// Whether this container's memory is to be given back.
    pub(crate) fn is_reclaimed(&self, container: &Arc<Container>) -> bool {
        let inner = self.lock();
        inner.machine.state() == State::Reclaimed && has(&inner, container)
    }

    /// [`cgroup::Group::reclaim_anonymous`], while nobody changes its limits; None if they are being changed for long. Blocks.
    pub(crate) fn squeeze(&self, group: &cgroup::Group, most: u64) -> Result<Option<u64>> {
        let limits = async { tokio::time::timeout(LIMITS_TURN, self.limits.lock()).await };
        match Handle::current().block_on(limits) {
            Ok(_one_at_a_time) => Ok(group.reclaim_anonymous(most)?),
            Err(_) => Ok(None),
        }
    }

    /// [`Self::feed_about`], unless it has been woken meanwhile: decided under the lock that requests take.
    pub(crate) fn feed_at_rest(
        self: &Arc<Self>,
        container: &Arc<Container>,
        event: Event,
    ) -> Verdict {
        let mut inner = self.lock();
        if !inner.machine.state().rests() || !has(&inner, container) {
            return Verdict::Stale;
        }
        self.step(&mut inner, event)
    }

    /// Its time on this rung is over.
    pub(crate) async fn step_down(self: &Arc<Self>, due: Due) {
        let Some(container) = self.container() else {
            return;
        };
        match due {
            Due::Reclaim if !ladder::has_swap() => {
                // Nowhere to give it to: it stays frozen, for as long as both rungs take.
                let idle = &self.definition().idle;
                let whole = (idle.reclaim_after.finite()).zip(idle.stop_after.finite());
                let after =
                    whole.map(|(one, other)| (one + other).saturating_sub(rested(&container)));
                self.later(&container, Due::Stop, after);
            }
            Due::Reclaim => match self.confirm_frozen().await {
                Ok(()) => {
                    self.feed_at_rest(&container, Event::IdleReclaim);
                }
                Err(error) => tracing::warn!("{error:#}"),
            },
            Due::Stop | Due::Age => {
                let (rest, waiting) = (container.rest(), Arc::downgrade(&container));
                drop(container);
                self.end_in_turn(&waiting, rest, due).await;
            }
        }
    }

    /// It has rested for its time, or is too old. Many may be: ends it when it is its turn.
    async fn end_in_turn(self: &Arc<Self>, container: &Weak<Container>, rest: Rest, due: Due) {
        let Some(_place) = self.platform.ladder.stop_place().await else {
            return;
        };
        // None: it has ended meanwhile.
        let Some(container) = container.upgrade() else {
            return;
        };
        if container.rest() != rest {
            // Woken meanwhile: if it rests again, that has been queued anew.
            return;
        }
        let connected = self.is_connected(&container).await;
        let ended = match due {
            Due::Age => {
                let limit = self.definition().idle.max_lifetime.finite();
                let overdue =
                    limit.is_some_and(|age| container.since.elapsed() > age + DRAIN_LIMIT);
                (overdue || !connected).then_some(Event::Recycle)
            }
            _ => (!connected).then_some(Event::IdleStop),
        };
        match ended {
            None => self.later(&container, due, Some(AGAIN)),
            Some(event) => {
                self.feed_at_rest(&container, event);
                drop(container);
                // Elapsed: it does not end when it is asked to; the others go on.
                let _ = tokio::time::timeout(STOP_TURN, self.settled()).await;
            }
        }
    }

    /// Memory is scarce: one step down, if nobody uses it. How much memory it had then; None if it stays.
    pub(crate) async fn relieve(self: &Arc<Self>, level: Level, swap: bool) -> Option<u64> {
        let container = self.container()?;
        if level == Level::Stop {
            if self.is_connected(&container).await {
                container.note_connected();
                return None;
            }
            let had = held(&container, true);
            let stopped = self.feed_at_rest(&container, Event::PressureStop);
            return (stopped == Verdict::Go).then_some(had);
        }
        if self.state() == State::Running {
            if self.is_connected(&container).await {
                container.note_connected();
                return None;
            }
            let frozen = self.feed_if_quiet(&container, QUIET, Event::PressureFreeze);
            if frozen != Verdict::Go {
                return None;
            }
            self.wake_if_connected(&container).await;
        }
        if !swap || self.confirm_frozen().await.is_err() {
            return None;
        }
        let had = held(&container, false);
        let reclaimed = self.feed_at_rest(&container, Event::PressureReclaim);
        (reclaimed == Verdict::Go).then_some(had)
    }

    /// How much of its memory is on its way to swap.
    pub(crate) fn leaving(&self) -> u64 {
        let container = self
            .container()
            .filter(|container| container.rest().rung == Rung::Reclaimed && container.is_leaving());
        container.map_or(0, |container| held(&container, false))
    }

    /// Whether it is no use to ask it now to go to this level.
    pub(crate) fn is_excused(&self, level: Level, swap: bool) -> bool {
        let excused = |container: Arc<Container>| match level {
            Level::Reclaim if container.is_stubborn() => true,
            // One that is frozen gives its memory back whoever is connected.
            Level::Reclaim => container.rest().rung == Rung::Running && container.was_connected(),
            Level::Stop => (swap && container.is_leaving()) || container.was_connected(),
        };
        self.container().is_some_and(excused)
    }

    fn later(self: &Arc<Self>, container: &Arc<Container>, due: Due, after: Option<Duration>) {
        let inner = self.lock();
        if !inner.machine.state().rests() || !has(&inner, container) {
            return;
        }
        let next = after.map(|after| (Instant::now() + after, due));
        // Of its age it is told again only if that is not what has to wait.
        let age = ageing(&inner, container).filter(|_| due != Due::Age);
        let first = next.into_iter().chain(age).min_by_key(|(at, _)| *at);
        self.platform.ladder.follow(self, first);
    }

    /// Whether somebody has a connection to it. If that cannot be seen, somebody has.
    pub(super) async fn is_connected(&self, container: &Arc<Container>) -> bool {
        let counted = container.clone();
        let open = tokio::task::spawn_blocking(move || counted.open_connections()).await;
        !matches!(open, Ok(Ok(0)))
    }
}

/// Whether this container is in place.
pub(super) fn has(inner: &Inner, container: &Arc<Container>) -> bool {
    let current = inner.container.as_ref();
    current.is_some_and(|current| Arc::ptr_eq(current, container))
}

/// How much memory it has, with what it has in swap if that is asked for.
fn held(container: &Container, with_swap: bool) -> u64 {
    let (memory, swap) = container.group.memory_and_swap().unwrap_or_default();
    memory + if with_swap { swap } else { 0 }
}

/// The next step of a container that rests.
fn next(inner: &Inner, container: &Container) -> Option<(Instant, Due)> {
    let idle = &inner.definition.idle;
    let state = inner.machine.state();
    if !state.rests() {
        return None;
    }
    let in_time = |span: Option<Duration>, due| {
        let left = span?.saturating_sub(rested(container));
        Some((Instant::now() + left, due))
    };
    let down = match (state, idle.action) {
        (State::Frozen, IdleAction::Ladder) => in_time(idle.reclaim_after.finite(), Due::Reclaim),
        (State::Reclaimed, _) => in_time(idle.stop_after.finite(), Due::Stop),
        _ => None,
    };
    let age = ageing(inner, container);
    down.into_iter().chain(age).min_by_key(|(at, _)| *at)
}

/// How long it has been on its rung.
fn rested(container: &Container) -> Duration {
    Duration::from_millis(boot_millis().saturating_sub(container.rest().since))
}

/// When it is too old.
fn ageing(inner: &Inner, container: &Container) -> Option<(Instant, Due)> {
    let age = inner.definition.idle.max_lifetime.finite()?;
    Some((container.since + age, Due::Age))
}
