//! Who goes down first when memory is scarce: the least recently used, and of every owner the same share. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// A site on the ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate<O, T> {
    /// Whose it is.
    pub(super) owner: O,
    /// When it was used last.
    pub(super) used: T,
    /// Whether it can go down; the others count among their owner's, as gone down already or as in use.
    pub(super) step: Step,
}

/// What a site is for the rung in question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It can go.
    Can,
    /// It has gone there before.
    Gone,
    /// It is in use.
    Cannot,
}

/// Of how many sites of an owner how many have gone.
#[derive(Debug, Default, Clone)]
struct Owner {
    all: u64,
    gone: u64,
    /// Those that can go, the least recently used last.
    can: Vec<usize>,
}

/// A share with a denominator that all owners have in common.
const WHOLE: u64 = 1 << 32;

impl Owner {
    /// The share that would have gone with one more.
    fn next_share(&self) -> u64 {
        (self.gone + 1) * WHOLE / self.all.max(1)
    }
}

/// The places in `candidates` of those that can go, the first to go first: next is always the least recently used site of
/// the owner of whom then the smallest share has gone.
pub(super) fn order<O: Ord, T: Ord>(candidates: &[Candidate<O, T>]) -> Vec<usize> {
    let mut owners: BTreeMap<&O, Owner> = BTreeMap::new();
    for (place, candidate) in candidates.iter().enumerate() {
        let owner = owners.entry(&candidate.owner).or_default();
        owner.all += 1;
        match candidate.step {
            Step::Can => owner.can.push(place),
            Step::Gone => owner.gone += 1,
            Step::Cannot => {}
        }
    }
    let used = |place: usize| &candidates[place].used;
    let mut owners: Vec<Owner> = owners.into_values().collect();
    for owner in &mut owners {
        owner.can.sort_by(|a, b| used(*b).cmp(used(*a)));
    }
    let head = |number: usize, owner: &Owner| {
        let place = *owner.can.last()?;
        Some((owner.next_share(), used(place), number))
    };
    let heads = owners.iter().enumerate();
    let mut queue: BTreeSet<_> = heads
        .filter_map(|(number, owner)| head(number, owner))
        .collect();
    let mut out = Vec::new();
    while let Some((_, _, number)) = queue.pop_first() {
        let owner = &mut owners[number];
        out.extend(owner.can.pop());
        owner.gone += 1;
        queue.extend(head(number, owner));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![3 => Just(Step::Can), 1 => Just(Step::Gone), 1 => Just(Step::Cannot)]
    }

    proptest! {
        #[test]
        fn each_goes_once_in_the_order_of_use_and_no_owner_before_its_share(
            candidates in proptest::collection::vec((0u8..4, 0u16..1000, step()), 0..60)
        ) {
            let candidates: Vec<_> = candidates.into_iter().map(|(owner, used, step)| Candidate { owner, used, step }).collect();
            let order = order(&candidates);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            let can: Vec<usize> = (0..candidates.len()).filter(|place| candidates[*place].step == Step::Can).collect();
            prop_assert_eq!(sorted, can);
            let count = |owner: u8, step: Option<Step>| {
                candidates.iter().filter(|c| c.owner == owner && step.is_none_or(|step| c.step == step)).count() as u64
            };
            let mut gone: Vec<u64> = (0..4).map(|owner| count(owner, Some(Step::Gone))).collect();
            let mut left: Vec<u64> = (0..4).map(|owner| count(owner, Some(Step::Can))).collect();
            let mut last_used = [0u16; 4];
            for place in order {
                let Candidate { owner, used, .. } = candidates[place];
                let number = usize::from(owner);
                prop_assert!(used >= last_used[number], "within an owner by use");
                last_used[number] = used;
                for other in (0..4u8).filter(|other| left[usize::from(*other)] > 0) {
                    let (mine, theirs) = (count(owner, None), count(other, None));
                    // gone + 1 of mine is no larger a share than gone + 1 of theirs, rounding aside.
                    prop_assert!((gone[number] + 1) * theirs <= (gone[usize::from(other)] + 1) * mine + 1);
                }
                gone[number] += 1;
                left[number] -= 1;
            }
        }
    }

    #[test]
    fn one_owners_many_sites_do_not_save_them() {
        let site = |owner, used| Candidate {
            owner,
            used,
            step: Step::Can,
        };
        // "b" has one site, used long ago; "a" has four.
        let candidates = [
            site("a", 5),
            site("a", 3),
            site("b", 1),
            site("a", 4),
            site("a", 2),
        ];
        assert_eq!(order(&candidates), [4, 1, 3, 2, 0]);
    }
}
