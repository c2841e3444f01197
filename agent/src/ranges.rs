//! The containers' uid and gid ranges: their numbers, and where they begin.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use netns::{SlotSet, Slots};
use shim::protocol::Ids;

/// From one range to the next. The kernel finds what it counts for a user in one of 128 lists, that of `(uid / 128 + uid) % 128`
/// (`__uidhashfn` in kernel/user.c), and goes through that with a spin lock held and interrupts off. Were the ranges 65,536 apart,
/// the users of all containers would be in one list: beside 3,000 of them that took 0.7 ms of each start. So they go round.
const STRIDE: u32 = Ids::RANGE + 128;

/// The ranges of this host, numbered from 1. A vhost gets the range of its last life again where it can: what is kept of that
/// life fits.
#[derive(Debug)]
pub struct Ranges {
    base: u32,
    count: u32,
    taken: SlotSet,
    /// Those that are not given out for the sake of containers of another agent.
    blocked: Mutex<HashSet<u32>>,
}

impl Ranges {
    /// Those from host id `base` on.
    pub fn new(base: u32) -> Self {
        // The last range would end at the kernel's "no id".
        let count = ((u32::MAX - base) / STRIDE).saturating_sub(1);
        Self {
            base,
            count,
            taken: SlotSet::new(count),
            blocked: Mutex::default(),
        }
    }

    /// First host id of a range.
    pub fn base_of(&self, range: u32) -> u32 {
        self.base + range * STRIDE
    }

    /// Takes one, `preferred` if it is free; None if all are taken.
    pub fn take(&self, preferred: u32) -> Option<u32> {
        match self.taken.reserve(preferred) {
            true => Some(preferred),
            false => self.taken.take(),
        }
    }

    /// Takes that of a container that is there already, whose ids begin at `base`; None if somebody else has any of them. One
    /// that an agent has made which counted otherwise gets the number 0: what its ids overlap with is not given out by this
    /// agent.
    pub fn claim(&self, base: u32) -> Option<u32> {
        let number = |id: u32| id.saturating_sub(self.base) / STRIDE;
        let (first, last) = (number(base), number(base.saturating_add(Ids::RANGE - 1)));
        if first > 0 && self.base_of(first) == base {
            return self.taken.reserve(first).then_some(first);
        }
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = first.max(1)..=last.min(self.count);
        let free = all.all(|range| {
            let free = self.taken.reserve(range);
            (free && blocked.insert(range)) || blocked.contains(&range)
        });
        free.then_some(0)
    }

    /// Gives one back, once nothing has ids of it.
    pub fn give_back(&self, range: u32) {
        self.taken.give_back(range);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const BASE: u32 = 0x2000_0000;

    #[test]
    fn the_users_of_many_containers_are_spread_over_the_kernels_lists() {
        let ranges = Ranges::new(BASE);
        for inside in [0, 33, 1000, 65_534] {
            let mut lists = [0; 128];
            for _ in 0..12_800 {
                let uid = ranges.base_of(ranges.take(0).unwrap()) + inside;
                lists[((uid / 128 + uid) % 128) as usize] += 1;
            }
            // Each wraps around once in the ids of 512 ranges.
            assert!(lists.iter().all(|n| (95..=105).contains(n)), "{lists:?}");
        }
    }

    proptest! {
        #[test]
        fn no_two_overlap_and_none_holds_the_kernels_no_id(base in 1u32..65_520) {
            let ranges = Ranges::new(base * Ids::RANGE);
            let mut end = base * Ids::RANGE;
            while let Some(range) = ranges.take(0) {
                let first = ranges.base_of(range);
                prop_assert!(first >= end);
                end = first.checked_add(Ids::RANGE).unwrap();
                if range > 300 {
                    break;
                }
            }
            let last = ranges.base_of((u32::MAX - base * Ids::RANGE) / STRIDE - 1);
            prop_assert!(last.checked_add(Ids::RANGE).is_some());
        }

        #[test]
        fn nobody_gets_ids_of_a_container_that_another_agent_has_made(
            number in 1u32..1000, below in 0u32..4, stride in Ids::RANGE..Ids::RANGE + 300,
        ) {
            let ranges = Ranges::new(BASE);
            let theirs = BASE - below * Ids::RANGE + number * stride;
            let native = |base: u32| (1..2000).find(|range| ranges.base_of(*range) == base);
            let claimed = ranges.claim(theirs).unwrap();
            prop_assert_eq!(claimed, native(theirs).unwrap_or(0));
            // Its neighbour of then, which may overlap with the same of now.
            let neighbour = theirs + stride;
            let both = ranges.claim(neighbour).is_some();
            prop_assert!(both || native(theirs).is_some() != native(neighbour).is_some());
            prop_assume!(both);
            for _ in 0..1100 {
                let first = ranges.base_of(ranges.take(number).unwrap());
                for other in [theirs, neighbour] {
                    prop_assert!(first >= other + Ids::RANGE || first + Ids::RANGE <= other);
                }
            }
            // Given back with its container, the number frees nobody's.
            if claimed == 0 {
                ranges.give_back(claimed);
                prop_assert_ne!(ranges.take(0).unwrap(), 0);
            }
        }
    }

    #[test]
    fn one_is_had_once_and_again_when_it_is_free() {
        let ranges = Ranges::new(BASE);
        let first = ranges.take(7).unwrap();
        assert_eq!(first, 7);
        assert_ne!(ranges.take(7).unwrap(), 7);
        assert_eq!(ranges.claim(ranges.base_of(7)), None);
        // Nor do ids that overlap with it go to anybody.
        assert_eq!(ranges.claim(ranges.base_of(7) + 5), None);
        ranges.give_back(7);
        assert_eq!(ranges.claim(ranges.base_of(7)), Some(7));
    }
}
