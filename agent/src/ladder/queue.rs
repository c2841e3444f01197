//! Who is due when: one ordered queue for all that rest. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// The next step of a vhost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// It has been frozen for its time.
    Reclaim,
    /// It has rested for its time.
    Stop,
    /// Its container is too old.
    Age,
}

/// Vhosts by name, each with at most one time.
#[derive(Debug)]
pub(super) struct Queue<N, T> {
    order: BTreeMap<(Instant, N), (Due, T)>,
    at: HashMap<N, Instant>,
}

impl<N, T> Default for Queue<N, T> {
    fn default() -> Self {
        Self {
            order: BTreeMap::new(),
            at: HashMap::new(),
        }
    }
}

impl<N: Ord + std::hash::Hash + Clone, T> Queue<N, T> {
    /// It is due then, and not when it was to be before. Whether that is the first of all.
    pub(super) fn put(&mut self, name: N, at: Instant, due: Due, what: T) -> bool {
        self.remove(&name);
        self.at.insert(name.clone(), at);
        self.order.insert((at, name), (due, what));
        self.first() == Some(at)
    }

    /// It is not due any more.
    pub(super) fn remove(&mut self, name: &N) {
        if let Some((name, at)) = self.at.remove_entry(name) {
            self.order.remove(&(at, name));
        }
    }

    /// Takes out one that is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<(Due, T)> {
        if self.first()? > now {
            return None;
        }
        let ((_, name), what) = self.order.pop_first()?;
        self.at.remove(&name);
        Some(what)
    }

    /// When the first is due.
    pub(super) fn first(&self) -> Option<Instant> {
        self.order.first_key_value().map(|((at, _), _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_is_due_once_at_its_last_time(steps in proptest::collection::vec((0u8..6, proptest::option::of(0u64..50)), 0..60)) {
            let begin = Instant::now();
            let mut queue: Queue<u8, u8> = Queue::default();
            let mut expected: HashMap<u8, u64> = HashMap::new();
            for (name, at) in steps {
                match at {
                    Some(at) => {
                        let first = queue.put(name, begin + Duration::from_secs(at), Due::Stop, name);
                        expected.insert(name, at);
                        prop_assert_eq!(first, expected.values().min() == Some(&at));
                    }
                    None => {
                        queue.remove(&name);
                        expected.remove(&name);
                    }
                }
            }
            for now in 0..50 {
                let mut due = Vec::new();
                while let Some((_, name)) = queue.take(begin + Duration::from_secs(now)) {
                    due.push(name);
                }
                due.sort_unstable();
                let mut wanted: Vec<u8> = expected.iter().filter(|(_, at)| **at == now).map(|(name, _)| *name).collect();
                wanted.sort_unstable();
                prop_assert_eq!(due, wanted);
            }
            prop_assert_eq!(queue.first(), None);
        }
    }
}
