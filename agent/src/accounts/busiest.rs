//! Counters for monitoring, of a bounded number of names: the busiest by CPU time have their own, all others share one.
//! Pure: no clock.
//!
//! Each amount is counted once, when it comes: for the name, if that is shown at the time, else for the others. Nothing
//! is moved later, so no counter ever goes back, and rates over all add up. A name that is no longer shown takes its
//! counter with it; when it is shown again that begins at zero.

use std::collections::HashMap;
use std::hash::Hash;

use super::sums::{Field, Sums};

/// Who is busy is judged anew so often, seconds.
const WINDOW: u64 = 60;
/// One that is not shown must be this many times as busy to take the place of one that is: places do not change hands
/// for a trifle.
const BETTER: u64 = 2;
/// Less CPU time than this (µs) in the last minutes is forgotten.
const FORGOTTEN: u64 = 1000;

/// See the module.
#[derive(Debug)]
pub struct Busiest<K> {
    most: usize,
    names: HashMap<K, Name>,
    shown: usize,
    other: Sums,
    all: Sums,
    ranked: u64,
}

#[derive(Debug, Default)]
struct Name {
    /// CPU time of this window, and of those before with less and less weight.
    recent: u64,
    shown: Option<Sums>,
}

impl<K: Hash + Eq + Clone> Busiest<K> {
    /// Shows `most` names at a time.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            names: HashMap::new(),
            shown: 0,
            other: Sums::default(),
            all: Sums::default(),
            ranked: 0,
        }
    }

    /// Counts what a name has used. While there are places it gets one.
    pub fn count(&mut self, name: &K, new: &Sums) {
        self.all.add(new);
        if self.most == 0 {
            self.other.add(new);
            return;
        }
        if !self.names.contains_key(name) {
            self.names.insert(name.clone(), Name::default());
        }
        let Some(known) = self.names.get_mut(name) else {
            return;
        };
        known.recent = known.recent.saturating_add(new.get(Field::Cpu));
        if known.shown.is_none() && self.shown < self.most {
            known.shown = Some(Sums::default());
            self.shown += 1;
        }
        known.shown.as_mut().unwrap_or(&mut self.other).add(new);
    }

    /// At `now` (seconds): if a window is over, gives the places to those that were busiest lately.
    pub fn rank(&mut self, now: u64) {
        // A clock that went back begins a window too.
        if self.ranked <= now && now < self.ranked + WINDOW {
            return;
        }
        self.ranked = now;
        let mut names: Vec<&mut Name> = self.names.values_mut().collect();
        names.sort_by_key(|name| {
            let weight = if name.shown.is_some() { BETTER } else { 1 };
            std::cmp::Reverse((name.recent.saturating_mul(weight), name.shown.is_some()))
        });
        for (place, name) in names.into_iter().enumerate() {
            if place >= self.most {
                name.shown = None;
            } else {
                name.shown.get_or_insert_default();
            }
            name.recent /= 2;
        }
        self.names
            .retain(|_, name| name.shown.is_some() || name.recent >= FORGOTTEN);
        self.shown = self.names.values().filter(|n| n.shown.is_some()).count();
    }

    /// Those that are shown.
    pub fn shown(&self) -> impl Iterator<Item = (&K, &Sums)> {
        let names = self.names.iter();
        names.filter_map(|(key, name)| Some((key, name.shown.as_ref()?)))
    }

    /// What came of those that were not shown at the time.
    pub fn other(&self) -> &Sums {
        &self.other
    }

    /// All that ever came.
    pub fn all(&self) -> &Sums {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn cpu(used: u64) -> Sums {
        let mut sums = Sums::default();
        sums.set(Field::Cpu, used);
        sums
    }

    fn names(busiest: &Busiest<u8>) -> BTreeMap<u8, u64> {
        let shown = busiest.shown();
        shown.map(|(k, sums)| (*k, sums.get(Field::Cpu))).collect()
    }

    #[test]
    fn the_busiest_have_the_places() {
        let mut busiest = Busiest::new(2);
        busiest.rank(1000);
        for (name, used) in [(1, 5_000), (2, 6_000), (3, 11_000)] {
            busiest.count(&name, &cpu(used));
        }
        assert_eq!(names(&busiest), BTreeMap::from([(1, 5_000), (2, 6_000)]));
        assert_eq!(busiest.other().get(Field::Cpu), 11_000);
        busiest.rank(1059);
        assert_eq!(names(&busiest).len(), 2);
        // Twice as busy as the first and not as the second: it takes the first's place, and what was counted stays.
        busiest.rank(1060);
        assert_eq!(names(&busiest), BTreeMap::from([(2, 6_000), (3, 0)]));
        busiest.count(&3, &cpu(7));
        assert_eq!(names(&busiest), BTreeMap::from([(2, 6_000), (3, 7)]));
        assert_eq!(busiest.other().get(Field::Cpu), 11_000);
        assert_eq!(busiest.all().get(Field::Cpu), 22_007);
    }

    #[test]
    fn who_does_nothing_is_forgotten() {
        let mut busiest = Busiest::new(1);
        for round in 0..30 {
            busiest.rank(60 * round);
            busiest.count(&0, &cpu(9_000_000));
            if round == 0 {
                (1..=200).for_each(|name| busiest.count(&name, &cpu(1_000_000)));
            }
        }
        assert_eq!(busiest.names.len(), 1);
        let mut none = Busiest::new(0);
        none.count(&1, &cpu(3));
        none.rank(60);
        assert_eq!((none.names.len(), none.other().get(Field::Cpu)), (0, 3));
    }

    proptest! {
        /// Whatever comes: the places are not exceeded, no counter goes back while it is there, and the counters have
        /// risen together by exactly what came.
        #[test]
        fn nothing_is_lost_nor_counted_twice(
            most in 0..4usize,
            steps in proptest::collection::vec((0..8u8, 0..5_000u64, 0..100u64), 1..200),
        ) {
            let mut busiest = Busiest::new(most);
            let (mut now, mut sum, mut risen, mut other) = (0, 0, 0, 0);
            let mut before = BTreeMap::new();
            for (name, used, time) in steps {
                now += time;
                busiest.rank(now);
                // Those that are new here begin at zero.
                let ranked = names(&busiest);
                for (name, value) in &ranked {
                    prop_assert_eq!(*value, before.get(name).copied().unwrap_or(0));
                }
                busiest.count(&name, &cpu(used));
                sum += used;
                let after = names(&busiest);
                prop_assert!(after.len() <= most);
                for (name, value) in &after {
                    let old = ranked.get(name).copied().unwrap_or(0);
                    prop_assert!(*value >= old);
                    risen += value - old;
                }
                let now_other = busiest.other().get(Field::Cpu);
                prop_assert!(now_other >= other);
                risen += now_other - other;
                (other, before) = (now_other, after);
                prop_assert_eq!(risen, sum);
                prop_assert_eq!(busiest.all().get(Field::Cpu), sum);
            }
        }
    }
}
