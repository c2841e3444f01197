//! Lending: what idle sites of an owner do not use of their parts, given to their busy siblings. Pure; times are
//! microseconds of a clock that the caller reads.
//!
//! Weights alone cannot do this on several CPUs: siblings on another CPU use up the owner's quota while a site with one
//! thread has only one CPU's time to take its part in. So each site's own quota is its part and what it is lent, and
//! no more is lent than what was left unused. A site's own part is never lowered: when it wakes, it runs at once.

use std::collections::VecDeque;

use super::model::WHOLE;

/// Rates are measured over at least one period of the kernel's bandwidth control.
const WINDOW: u64 = 100_000;
/// For how long a site counts as wanting all it can get after it was last seen so.
const HOLD: u64 = 250_000;
/// What a site is left beside what it used lately, in hundredths of a percent of a core.
const MARGIN: u64 = 10;
/// What may be noise in a single look, likewise.
const NOISE: u64 = 50;

/// One site, as lending sees it; rates are hundredths of a percent of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Demand {
    /// Its part.
    pub(super) guarantee: u64,
    /// Its weight among those that borrow.
    pub(super) weight: u64,
    /// What it may have at most: its own limit, or the whole budget.
    pub(super) most: u64,
    /// What it uses, with a margin; None if it wants all it can get.
    pub(super) wants: Option<u64>,
}

/// What each site is lent beyond its part.
pub(super) fn loans(budget: u64, sites: &[Demand]) -> Vec<u64> {
    let target: Vec<u64> = sites
        .iter()
        .map(|site| site.wants.unwrap_or(u64::MAX).min(site.most).min(budget))
        .collect();
    let mut has: Vec<u64> = sites
        .iter()
        .zip(&target)
        .map(|(site, target)| site.guarantee.min(*target))
        .collect();
    // A hundredth stays unlent: a site that wakes finds the owner's quota not used up.
    let mut left = (budget - budget / 100).saturating_sub(has.iter().sum());
    loop {
        let open: Vec<usize> = (0..sites.len()).filter(|&i| has[i] < target[i]).collect();
        let weights: u64 = open.iter().map(|&i| sites[i].weight).sum();
        let mut given = 0;
        for i in open {
            let more = (u128::from(left) * u128::from(sites[i].weight) / u128::from(weights.max(1)))
                as u64;
            let more = more.min(target[i] - has[i]);
            has[i] += more;
            given += more;
        }
        if given == 0 {
            break;
        }
        left -= given;
    }
    has.iter()
        .zip(sites)
        .map(|(has, site)| has.saturating_sub(site.guarantee))
        .collect()
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: u64,
    used: u64,
    throttled: u64,
}

/// What a site was seen to use.
#[derive(Debug, Default)]
pub(super) struct Meter {
    samples: VecDeque<Sample>,
    /// Wants all it can get until then.
    hungry_until: u64,
    peak: u64,
}

impl Meter {
    /// Notes the counters: µs of CPU time used so far, how often it was throttled. `quota` is what it may use now.
    pub(super) fn note(&mut self, at: u64, used: u64, throttled: u64, quota: u64) {
        let now = Sample {
            at,
            used,
            throttled,
        };
        let last = self.samples.back().copied();
        // The youngest that is old enough.
        while self.samples.len() > 1 && self.samples[1].at + WINDOW <= at {
            self.samples.pop_front();
        }
        self.samples.push_back(now);
        let (Some(last), Some(first)) = (last, self.samples.front()) else {
            // Nothing is known of it yet: it is lent nothing of and lends nothing.
            self.hungry_until = at + HOLD;
            return;
        };
        let known = self.peak + NOISE;
        let lately = rate(last, now);
        if at >= first.at + WINDOW {
            let over = rate(*first, now);
            // What it used before fades, so that it lends what it does not use any more.
            self.peak = over.max(self.peak - self.peak / 4);
            if throttled > first.throttled || over >= quota - quota / 10 {
                self.hungry_until = at + HOLD;
            }
        }
        // More than ever lately: it has woken.
        if lately > known * 2 {
            self.hungry_until = at + HOLD;
        }
    }

    /// What it wants, see [`Demand::wants`].
    pub(super) fn wants(&self, now: u64) -> Option<u64> {
        (now >= self.hungry_until).then_some(self.peak + self.peak / 4 + MARGIN)
    }
}

/// Hundredths of a percent of a core.
fn rate(from: Sample, to: Sample) -> u64 {
    to.used.saturating_sub(from.used) * WHOLE / to.at.saturating_sub(from.at).max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn site(guarantee: u64, wants: Option<u64>) -> Demand {
        Demand {
            guarantee,
            weight: guarantee,
            most: 6000,
            wants,
        }
    }

    #[test]
    fn the_sleepers_part_goes_to_the_busy_by_their_shares_and_comes_back() {
        // 20, 5 and 75 % of 60 % of a core; c sleeps.
        let lent = loans(
            6000,
            &[site(1200, None), site(300, None), site(4500, Some(0))],
        );
        assert_eq!(lent.iter().sum::<u64>(), 5940 - 1500);
        assert_eq!(lent[2], 0);
        assert_eq!((1200 + lent[0]) / (300 + lent[1]), 4, "{lent:?}");
        let lent = loans(6000, &[site(1200, None), site(300, None), site(4500, None)]);
        assert_eq!(lent, [0, 0, 0]);
        // A site that uses a little lends the rest.
        let lent = loans(
            6000,
            &[
                site(1200, None),
                site(300, Some(100)),
                site(4500, Some(1000)),
            ],
        );
        assert_eq!(lent, [5940 - 1100 - 1200, 0, 0]);
    }

    #[test]
    fn waking_is_seen_at_the_first_look() {
        let mut meter = Meter::default();
        let mut at = 0;
        for _ in 0..50 {
            at += 40_000;
            meter.note(at, 0, 0, 4500);
        }
        assert_eq!(meter.wants(at), Some(MARGIN));
        at += 40_000;
        meter.note(at, 2_000, 0, 4500);
        assert_eq!(meter.wants(at), None, "2 ms of 40 are enough");
        // Asleep again, it lends again within a second.
        for _ in 0..25 {
            at += 40_000;
            meter.note(at, 2_000, 0, 4500);
        }
        assert!(meter.wants(at).unwrap() < 200, "{:?}", meter.wants(at));
    }

    #[test]
    fn one_that_is_throttled_wants_more() {
        let mut meter = Meter::default();
        // 12 ms of each 100.
        for period in 0..10 {
            meter.note(period * 100_000, period * 12_000, period, 1200);
        }
        assert_eq!(meter.wants(900_000), None);
        let mut meter = Meter::default();
        // 5 ms of each 100, never throttled.
        for period in 0..20 {
            meter.note(period * 100_000, period * 5_000, 0, 1200);
        }
        assert_eq!(meter.wants(1_900_000), Some(500 + 125 + MARGIN));
    }

    proptest! {
        #[test]
        fn never_more_is_lent_than_is_unused(
            budget in 100u64..80_000,
            sites in prop::collection::vec((1u64..10_000, 100u64..90_000, prop::option::of(0u64..90_000)), 0..12),
        ) {
            let whole: u64 = sites.iter().map(|s| s.0).sum::<u64>().max(1);
            let sites: Vec<Demand> = sites
                .into_iter()
                .map(|(share, most, wants)| Demand { guarantee: budget * share / whole, weight: share, most, wants })
                .collect();
            let lent = loans(budget, &sites);
            let mut used = 0;
            for (site, lent) in sites.iter().zip(&lent) {
                let wants = site.wants.unwrap_or(u64::MAX).min(site.most);
                prop_assert!(*lent == 0 || site.guarantee + lent <= wants, "{site:?} was lent {lent}");
                used += (site.guarantee + lent).min(wants);
            }
            prop_assert!(used <= budget, "{used} of {budget}");
        }
    }
}
