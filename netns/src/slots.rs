//! Numbers for containers: an address, an interface name and whatever else the caller derives.

use std::sync::{Mutex, PoisonError};

/// Who gives out slot numbers. A slot belongs to its taker until it is given back.
pub trait Slots: Send + Sync + 'static {
    /// A free slot, at least 1; none when all are taken.
    fn take(&self) -> Option<u32>;
    /// Gives a slot back, after everything that carries its number is gone.
    fn give_back(&self, slot: u32);
}

/// Slots 1 to a highest one, given out in a circle: a slot is not used again at once, so that the
/// kernel has time to clear away what the last container left in it.
#[derive(Debug)]
pub struct SlotSet {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    taken: Vec<bool>,
    next: usize,
}

impl SlotSet {
    /// All slots from 1 to `last`, free.
    #[must_use]
    pub fn new(last: u32) -> Self {
        let taken = vec![false; last as usize + 1];
        Self {
            state: Mutex::new(State { taken, next: 1 }),
        }
    }

    /// Takes a certain slot, for a container that is there already; false when it is taken or does
    /// not exist.
    pub fn reserve(&self, slot: u32) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.taken.get_mut(slot as usize) {
            Some(taken) if slot != 0 => !std::mem::replace(taken, true),
            _ => false,
        }
    }
}

impl Slots for SlotSet {
    fn take(&self) -> Option<u32> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = state.next;
        let length = state.taken.len();
        let free = (next..length)
            .chain(1..next)
            .find(|&slot| !state.taken[slot])?;
        state.taken[free] = true;
        state.next = if free + 1 < length { free + 1 } else { 1 };
        u32::try_from(free).ok()
    }

    fn give_back(&self, slot: u32) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = state.taken.get_mut(slot as usize) {
            *taken = false;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn all_are_given_out_and_reused_last() {
        let slots = SlotSet::new(3);
        assert!(slots.reserve(2) && !slots.reserve(2) && !slots.reserve(0) && !slots.reserve(4));
        assert_eq!(slots.take(), Some(1));
        slots.give_back(1);
        assert_eq!(slots.take(), Some(3));
        assert_eq!(slots.take(), Some(1));
        assert_eq!(slots.take(), None);
        slots.give_back(2);
        assert_eq!(slots.take(), Some(2));
        assert_eq!(SlotSet::new(0).take(), None);
    }

    proptest! {
        #[test]
        fn no_slot_is_given_twice(last in 0u32..20, steps in proptest::collection::vec(any::<u8>(), 0..100)) {
            let slots = SlotSet::new(last);
            let mut held = HashSet::new();
            for step in steps {
                if step % 3 == 0 {
                    let slot = u32::from(step) % (last + 3);
                    if held.remove(&slot) { slots.give_back(slot); }
                } else if let Some(slot) = slots.take() {
                    prop_assert!((1..=last).contains(&slot) && held.insert(slot));
                } else {
                    prop_assert_eq!(held.len(), last as usize);
                }
            }
        }
    }
}
