//! Limits that a site has come up against: counted at once, told at most every ten seconds for each kind. Pure.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config::definition::LimitKey;

/// Between two events of one kind about one vhost.
const PAUSE: Duration = Duration::from_secs(10);
/// A processor that was held back for less than this, in µs, is nothing to tell yet.
const LEAST_THROTTLED: u64 = 100_000;
/// Disk space with less than this left is full: who writes more at a time has been refused.
const LEAST_SPACE: u64 = 16 << 10;

/// How many kinds there are.
pub(super) const KINDS: usize = 6;

/// What has happened at a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hit {
    /// Held back at its CPU limit, µs.
    Throttled,
    /// At a limit of its memory; something was taken back from it.
    Reclaimed,
    /// Killed for want of memory, processes. Told by its own task or with the end of the container.
    OomKilled,
    /// A fork failed.
    ForkRefused,
    /// No disk space is left.
    DiskFull,
    /// Packets that were dropped on their way out.
    EgressDropped,
}

impl Hit {
    /// All, in the order of their numbers.
    pub const ALL: [Self; KINDS] = [
        Self::Throttled,
        Self::Reclaimed,
        Self::OomKilled,
        Self::ForkRefused,
        Self::DiskFull,
        Self::EgressDropped,
    ];

    /// Name of its event, and what its amount is in.
    pub fn event(self) -> (&'static str, &'static str) {
        match self {
            Self::Throttled => ("throttled", "seconds"),
            Self::Reclaimed => ("reclaimed", "times"),
            Self::OomKilled => ("oom", "processes"),
            Self::ForkRefused => ("fork_refused", "times"),
            Self::DiskFull => ("disk_full", "times"),
            Self::EgressDropped => ("egress_dropped", "packets"),
        }
    }

    /// Name and help of its counter in the metrics.
    pub fn metric(self) -> (&'static str, &'static str) {
        match self {
            Self::Throttled => (
                "throttled_seconds_total",
                "Time that sites were held back at their CPU limits.",
            ),
            Self::Reclaimed => (
                "memory_reclaims_total",
                "How often sites were at a limit of their memory and something was taken back.",
            ),
            Self::OomKilled => (
                "oom_kills_total",
                "Processes of sites killed for want of memory.",
            ),
            Self::ForkRefused => ("forks_refused_total", "Forks that failed at a pids limit."),
            Self::DiskFull => (
                "disk_full_total",
                "How often sites used up their disk space.",
            ),
            Self::EgressDropped => (
                "egress_dropped_packets_total",
                "Packets dropped at egress limits.",
            ),
        }
    }

    /// The limits it may have been, the likeliest first.
    pub fn limits(self) -> &'static [LimitKey] {
        match self {
            Self::Throttled => &[LimitKey::Cpu],
            Self::Reclaimed => &[LimitKey::MemoryHigh, LimitKey::Memory],
            Self::OomKilled => &[LimitKey::Memory],
            Self::ForkRefused => &[LimitKey::Pids],
            Self::DiskFull => &[LimitKey::Disk],
            Self::EgressDropped => &[LimitKey::Egress],
        }
    }

    /// An amount as it is shown.
    pub fn amount(self, raw: u64) -> Value {
        match self {
            Self::Throttled => json!((raw as f64 / 1e4).round() / 1e2),
            _ => json!(raw),
        }
    }

    fn least(self) -> u64 {
        if self == Self::Throttled {
            LEAST_THROTTLED
        } else {
            1
        }
    }
}

/// The limits that one vhost has come up against.
#[derive(Debug, Default)]
pub(super) struct Hits {
    kinds: [Kind; KINDS],
    full: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Kind {
    /// The present container's counter when it was last looked at.
    last: Option<u64>,
    waiting: u64,
    told: Option<Instant>,
}

impl Hits {
    /// Another container from now on: a new one has not hit anything, of one that was taken over it is not known what has
    /// been told.
    pub(super) fn begin(&mut self, new: bool) {
        for kind in &mut self.kinds {
            kind.last = new.then_some(0);
        }
    }

    /// A counter of the present container as it is now. Returns what is new.
    pub(super) fn note(&mut self, hit: Hit, counter: u64) -> u64 {
        let kind = &mut self.kinds[hit as usize];
        let new = match kind.last.replace(counter) {
            None => 0,
            // A limit that was lifted and set again counts from zero.
            Some(last) if counter < last => counter,
            Some(last) => counter - last,
        };
        kind.waiting = kind.waiting.saturating_add(new);
        new
    }

    /// How full its disk space is. Returns 1 when it has become full.
    pub(super) fn note_space(&mut self, used: u64, limit: Option<u64>) -> u64 {
        let full = limit.is_some_and(|limit| limit.saturating_sub(used) < LEAST_SPACE);
        let new = u64::from(full && !self.full);
        self.full = full;
        self.kinds[Hit::DiskFull as usize].waiting += new;
        new
    }

    /// What is to be told now, with the amount since it was told last.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(Hit, u64)> {
        let mut due = Vec::new();
        for (hit, kind) in Hit::ALL.into_iter().zip(&mut self.kinds) {
            let soon = kind.told.is_some_and(|told| now < told + PAUSE);
            if hit == Hit::OomKilled {
                kind.waiting = 0;
            } else if kind.waiting >= hit.least() && !soon {
                due.push((hit, std::mem::take(&mut kind.waiting)));
                kind.told = Some(now);
            }
        }
        due
    }

    /// Whether something is still to be told.
    pub(super) fn waits(&self) -> bool {
        let kinds = Hit::ALL.into_iter().zip(&self.kinds);
        kinds
            .filter(|(hit, _)| *hit != Hit::OomKilled)
            .any(|(hit, kind)| kind.waiting >= hit.least())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_that_was_taken_over_begins_with_what_it_has() {
        let mut hits = Hits::default();
        hits.begin(false);
        assert_eq!(hits.note(Hit::ForkRefused, 7), 0);
        assert_eq!(hits.note(Hit::ForkRefused, 9), 2);
        hits.begin(true);
        assert_eq!(hits.note(Hit::ForkRefused, 9), 9);
        assert_eq!(hits.due(Instant::now()), [(Hit::ForkRefused, 11)]);
        assert!(!hits.waits());
    }

    #[test]
    fn full_is_told_once_until_there_is_room_again() {
        let mut hits = Hits::default();
        let said = [
            (4 << 20, 0),
            (8 << 20, 1),
            (8 << 20, 0),
            (1 << 20, 0),
            ((8 << 20) - 5000, 1),
        ];
        for (used, new) in said {
            assert_eq!(hits.note_space(used, Some(8 << 20)), new);
        }
        assert_eq!(hits.note_space(u64::MAX, None), 0);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nobody_is_flooded(
            steps in proptest::collection::vec((0u64..400_000, 0u64..30, any::<bool>()), 1..60),
        ) {
            let (mut hits, mut now) = (Hits::default(), Instant::now());
            hits.begin(true);
            let (mut counter, mut counted, mut told, mut last) = (0, 0, 0, None::<Instant>);
            for (amount, seconds, new_life) in steps {
                if new_life {
                    hits.begin(true);
                    counter = 0;
                }
                counter += amount;
                counted += hits.note(Hit::Throttled, counter);
                now += Duration::from_secs(seconds);
                for (hit, amount) in hits.due(now) {
                    prop_assert_eq!(hit, Hit::Throttled);
                    prop_assert!(amount >= LEAST_THROTTLED);
                    prop_assert!(last.is_none_or(|last| now - last >= PAUSE));
                    told += amount;
                    last = Some(now);
                }
            }
            let rest = hits.due(now + PAUSE).iter().map(|(_, amount)| amount).sum::<u64>();
            prop_assert!(counted - told - rest < LEAST_THROTTLED);
            prop_assert!(!hits.waits());
        }
    }
}
