//! One round through the living containers: the owners first, and of whose something has run, each container. So those
//! that do nothing cost a counter of their owner's, and no file of theirs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cgroup::CpuClock;

use super::meter::{Look, Meter};

/// What is remembered of the owners of living containers.
#[derive(Debug, Default)]
pub(super) struct Owners(HashMap<Arc<str>, Owner>);

#[derive(Debug, Default)]
struct Owner {
    clock: Option<CpuClock>,
    /// Where it stood, before any of theirs was looked at, in the last round.
    stood: Option<u64>,
}

impl Owner {
    /// `now` is where the clock stands, or that this is not known. How their containers are to be looked at.
    fn look(&mut self, now: Option<u64>) -> Look {
        let stood = std::mem::replace(&mut self.stood, now);
        match now.is_some() && now == stood {
            true => Look::IfDue,
            false => Look::IfRan,
        }
    }
}

impl Owners {
    /// Those that live, by owner, in the same order each time: a round takes a while, and each is to be looked at at the same
    /// distances. Who has none any more is forgotten.
    pub(super) fn sort(&mut self, living: Vec<Arc<Meter>>) -> BTreeMap<Arc<str>, Vec<Arc<Meter>>> {
        let mut all: BTreeMap<Arc<str>, Vec<Arc<Meter>>> = BTreeMap::new();
        for meter in living {
            all.entry(meter.owner.clone()).or_default().push(meter);
        }
        self.0.retain(|owner, _| all.contains_key(owner));
        all
    }

    /// Reads an owner's counter: before any of their containers is looked at, so that what runs meanwhile is seen in the next
    /// round at the latest.
    pub(super) fn look(&mut self, name: &Arc<str>, meters: &[Arc<Meter>]) -> Look {
        // A single one has a counter of its own that says as much.
        let [first, _, ..] = meters else {
            self.0.remove(name);
            return Look::IfRan;
        };
        let owner = self.0.entry(name.clone()).or_default();
        if owner.clock.is_none() {
            owner.clock = first.clock_above();
        }
        // An error: their group has been made anew since.
        let read = owner.clock.as_ref().map(CpuClock::usec);
        if let Some(Err(_)) = read {
            owner.clock = None;
        }
        owner.look(read.and_then(Result::ok).flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_that_is_known_to_stand_still_spares_a_look() {
        let mut owner = Owner::default();
        for (now, look) in [
            (Some(5), Look::IfRan),
            (Some(5), Look::IfDue),
            (Some(6), Look::IfRan),
            (Some(6), Look::IfDue),
            (None, Look::IfRan),
            (None, Look::IfRan),
            (Some(6), Look::IfRan),
            // Another group of the same name.
            (Some(1), Look::IfRan),
            (Some(1), Look::IfDue),
        ] {
            assert_eq!(owner.look(now), look, "{now:?}");
        }
    }
}
