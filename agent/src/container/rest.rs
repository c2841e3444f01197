//! Which rung of the idle ladder a container is on and for how long it has rested, noted at its cgroup for the next agent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::machine::Rung;
use crate::time::boot_millis;

use super::Container;

/// For so long memory that is to go to swap counts as on its way there; after that, the device is too slow to rely on it.
const PROMPT: Duration = Duration::from_secs(10);
/// For so long one that could not be frozen is not tried again.
const STUBBORN: Duration = Duration::from_secs(60);
/// For how long one that was connected is not asked for its memory again.
const CONNECTED: Duration = Duration::from_secs(30);

/// The rung, since when (milliseconds since boot), and how long it had rested before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// Where it is.
    pub rung: Rung,
    /// Since when, in ms since boot.
    pub since: u64,
    rested: u64,
}

impl Default for Rest {
    fn default() -> Self {
        Self {
            rung: Rung::Running,
            since: 0,
            rested: 0,
        }
    }
}

impl Rest {
    /// There since the boot of the host.
    #[cfg(test)]
    pub(crate) fn on(rung: Rung) -> Self {
        Self {
            rung,
            ..Self::default()
        }
    }

    /// How long it has rested until `now`, in ms.
    pub fn until(&self, now: u64) -> u64 {
        match self.rung {
            Rung::Running => self.rested,
            Rung::Frozen | Rung::Reclaimed => self.rested + now.saturating_sub(self.since),
        }
    }

    /// On another rung from `now` on.
    fn go(&self, rung: Rung, now: u64) -> Self {
        Self {
            rung,
            since: now,
            rested: self.until(now),
        }
    }

    fn text(&self) -> String {
        let word = match self.rung {
            Rung::Running => "running",
            Rung::Frozen => "frozen",
            Rung::Reclaimed => "reclaimed",
        };
        format!("{word} {} {}", self.since, self.rested)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let rung = match words.next()? {
            "running" => Rung::Running,
            "frozen" => Rung::Frozen,
            "reclaimed" => Rung::Reclaimed,
            _ => return None,
        };
        let mut number = || words.next()?.parse().ok();
        Some(Self {
            rung,
            since: number()?,
            rested: number()?,
        })
    }

    /// As an agent noted it last.
    pub fn noted(group: &cgroup::Group) -> Self {
        let note = group.note().ok().flatten();
        note.and_then(|note| Self::parse(&note)).unwrap_or_default()
    }

    /// As it is found. It rests if the kernel says so as well as the note: the last agent may have ended before it had frozen
    /// all of it, or while it stopped the processes of one that runs.
    pub fn found(group: &cgroup::Group) -> Self {
        let noted = Self::noted(group);
        if noted.rests() && !group.is_frozen().unwrap_or(false) {
            return noted.go(Rung::Running, boot_millis());
        }
        noted
    }

    /// Whether its processes are frozen.
    pub fn rests(&self) -> bool {
        self.rung > Rung::Running
    }
}

/// A container's own.
#[derive(Debug, Default)]
pub(super) struct Resting {
    rest: Mutex<Rest>,
    /// It is in the queue of those whose memory is given back.
    queued: AtomicBool,
    /// Since when its memory is on its way to swap, the time in the queue included.
    leaving: Mutex<Option<Instant>>,
    /// When it could not be frozen.
    stubborn: Mutex<Option<Instant>>,
    /// When memory was scarce and somebody had a connection to it.
    connected: Mutex<Option<Instant>>,
    /// Dropped when it does not rest any more.
    watch: Mutex<Option<oneshot::Sender<()>>>,
}

fn is_recent(time: &Mutex<Option<Instant>>, within: Duration) -> bool {
    let time = *time.lock().unwrap_or_else(PoisonError::into_inner);
    time.is_some_and(|time| time.elapsed() < within)
}

fn set(time: &Mutex<Option<Instant>>, to: Option<Instant>) {
    *time.lock().unwrap_or_else(PoisonError::into_inner) = to;
}

impl Container {
    /// Where it is on the ladder.
    pub fn rest(&self) -> Rest {
        *self
            .rest
            .rest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Its memory is to be given back; false if it waits for that already.
    pub(crate) fn queue_reclaim(&self) -> bool {
        let new = !self.rest.queued.swap(true, Ordering::AcqRel);
        if new {
            set(&self.rest.leaving, Some(Instant::now()));
        }
        new
    }

    /// It has its turn: whatever is to be given back from now on is another one.
    pub(crate) fn begin_reclaim(&self) {
        self.rest.queued.store(false, Ordering::Release);
    }

    /// As much has been given back as could be.
    pub(crate) fn end_reclaim(&self) {
        if !self.rest.queued.load(Ordering::Acquire) {
            set(&self.rest.leaving, None);
        }
    }

    /// Whether its memory is being given back, or waits for its turn.
    pub(crate) fn is_giving_back(&self) -> bool {
        let leaving = self.rest.leaving.lock();
        leaving.unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether its memory is on its way to swap and will soon be there.
    pub(crate) fn is_leaving(&self) -> bool {
        is_recent(&self.rest.leaving, PROMPT)
    }

    /// Not all of its processes could be frozen.
    pub(crate) fn note_stubborn(&self) {
        set(&self.rest.stubborn, Some(Instant::now()));
    }

    /// Whether it is no use to try to freeze it again so soon.
    pub(crate) fn is_stubborn(&self) -> bool {
        is_recent(&self.rest.stubborn, STUBBORN)
    }

    /// Memory is scarce, and somebody has a connection to it.
    pub(crate) fn note_connected(&self) {
        set(&self.rest.connected, Some(Instant::now()));
    }

    /// Whether others are to be asked for their memory before somebody looks again who is connected to it.
    pub(crate) fn was_connected(&self) -> bool {
        is_recent(&self.rest.connected, CONNECTED)
    }

    /// It is watched for data on connections that were handed over, until the other end of this is told that it does not rest
    /// any more. Only for one that rests, under the lock under which that is decided.
    pub(crate) fn watch_at_rest(&self, over: oneshot::Sender<()>) {
        *self.watched() = Some(over);
    }

    /// Whether it is watched so.
    pub(crate) fn is_watched(&self) -> bool {
        let watched = self.watched();
        watched.as_ref().is_some_and(|over| !over.is_closed())
    }

    fn watched(&self) -> MutexGuard<'_, Option<oneshot::Sender<()>>> {
        let watch = &self.rest.watch;
        watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is on another rung from now on.
    pub(crate) fn note_rung(&self, rung: Rung) {
        let next = self.rest().go(rung, boot_millis());
        self.set_rest(next);
    }

    /// It was found so.
    pub(crate) fn set_rest(&self, next: Rest) {
        *self
            .rest
            .rest
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = next;
        if !next.rests() {
            *self.watched() = None;
        }
        if let Err(error) = self.group.set_note(&next.text()) {
            tracing::warn!("{}: {error}", self.vhost);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_read_back_and_adds_up(steps in proptest::collection::vec((0usize..3, 0u64..1_000_000), 0..20)) {
            let (mut rest, mut now, mut expected) = (Rest::default(), 1_000, 0);
            for (rung, gap) in steps {
                if rest.rung != Rung::Running {
                    expected += gap;
                }
                now += gap;
                rest = rest.go([Rung::Running, Rung::Frozen, Rung::Reclaimed][rung], now);
                prop_assert_eq!(rest.until(now), expected);
                prop_assert_eq!(Rest::parse(&rest.text()), Some(rest));
            }
        }

        #[test]
        fn any_note_is_survived(text in "\\PC{0,40}") {
            let _ = Rest::parse(&text);
        }
    }
}
