//! Limits that are in force for a time: what counts when, over what is set for good. Pure; times are milliseconds of the
//! wall clock since 1970, so that they mean the same to the next agent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Kept;
use crate::config::Limits;
use crate::config::definition::{LimitKey, LimitPatch};
use crate::config::units::Span;

/// Shorter than this nobody would notice.
const SHORTEST: Span = Span::seconds(1);
/// Longer than this is not for a time.
const LONGEST: Span = Span::seconds(30 * 24 * 3600);
/// How many changes may wait for their end at a time; each set with a shorter time than those before.
const MOST: usize = 16;

/// One change of limits, and when it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    limits: LimitPatch,
    until: u64,
}

/// Changes of limits that are in force for a time, in the order in which they were made. Of those that are not over the
/// last counts, then the one before: each goes back to what it found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Temporaries(Vec<Change>);

impl Temporaries {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When the first of them is over.
    pub fn next(&self) -> Option<u64> {
        self.0.iter().map(|change| change.until).min()
    }

    /// When each is over.
    pub fn ends(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().map(|change| change.until)
    }

    /// What they make of limits that are set for good.
    pub fn over(&self, limits: &Limits, now: u64) -> Limits {
        let lasting = self.0.iter().filter(|change| now < change.until);
        lasting.fold(limits.clone(), |limits, change| {
            limits.patched(&change.limits)
        })
    }

    /// The limits that are other than for good, each with the end of the change that counts.
    pub fn in_force(&self, now: u64) -> Vec<(LimitKey, u64)> {
        let until = |key| {
            let mut counting = self.0.iter().rev().filter(|change| now < change.until);
            counting.find(|change| change.limits.0.iter().any(|(known, _)| *known == key))
        };
        let all = LimitKey::ALL.into_iter();
        all.filter_map(|key| Some((key, until(key)?.until)))
            .collect()
    }

    /// Limits of changes that are over.
    pub fn over_at(&self, now: u64) -> Vec<LimitKey> {
        let due = self.0.iter().filter(|change| change.until <= now);
        let mut keys: Vec<_> = due
            .flat_map(|change| change.limits.0.iter().map(|(key, _)| *key))
            .collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Drops the changes that are over.
    pub fn expire(&mut self, now: u64) {
        self.0.retain(|change| now < change.until);
    }

    /// A change for a time. Of the same limits, those before it that would be over first are never seen again.
    fn put(&mut self, limits: &LimitPatch, until: u64) {
        self.drop_keys(limits, |change| change.until <= until);
        self.0.push(Change {
            limits: limits.clone(),
            until,
        });
    }

    /// Drops what was set for a time of these limits.
    pub fn forget(&mut self, limits: &LimitPatch) {
        self.drop_keys(limits, |_| true);
    }

    fn drop_keys(&mut self, limits: &LimitPatch, of: impl Fn(&Change) -> bool) {
        for change in self.0.iter_mut().filter(|change| of(change)) {
            let named = |key: &LimitKey| limits.0.iter().any(|(known, _)| known == key);
            change.limits.0.retain(|(key, _)| !named(key));
        }
        self.0.retain(|change| !change.limits.0.is_empty());
    }
}

impl Kept {
    /// What the operator has set, as it counts at this time.
    pub fn overrides_at(&self, now: u64) -> Limits {
        self.temporary.over(&self.overrides, now)
    }

    /// Sets limits: until then, or for good, which ends what was set of them for a time.
    pub fn change(&mut self, limits: &LimitPatch, until: Option<u64>) {
        match until {
            Some(until) => self.temporary.put(limits, until),
            None => {
                self.temporary.forget(limits);
                self.overrides = self.overrides.patched(limits);
            }
        }
    }

    /// Whether a limit becomes more than it was before when one of the changes is over.
    pub fn rises_later(&self, key: LimitKey, default: u64, defined: &Limits, now: u64) -> bool {
        let mut times: Vec<u64> = self.temporary.ends().filter(|end| now < *end).collect();
        times.push(now);
        times.sort_unstable();
        let at = |time| defined.merge(&self.overrides_at(time)).get(key);
        let values = times.into_iter().map(|time| at(time).unwrap_or(default));
        !values.is_sorted_by(|before, after| before >= after)
    }

    /// Why no more changes can be for a time.
    pub fn check_temporary(&self) -> Result<(), String> {
        if self.temporary.0.len() >= MOST {
            return Err(format!(
                "{MOST} changes wait for their end already; set one of them for good first"
            ));
        }
        Ok(())
    }
}

/// Reads for how long a change is to be in force: `90s`, `10m`, `2h`, `7d`.
pub fn time(text: &str) -> Result<Duration, String> {
    let span: Span = text.parse().map_err(|e| format!("{e}"))?;
    match span.finite() {
        None => Err("never is not a time; leave it out to set limits for good".into()),
        Some(_) if span < SHORTEST => Err(format!(
            "{span} is shorter than {SHORTEST}; nobody would notice"
        )),
        Some(_) if span > LONGEST => Err(format!(
            "{span} is longer than {LONGEST}; leave it out to set limits for good"
        )),
        Some(time) => Ok(time),
    }
}
