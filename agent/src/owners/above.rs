//! The owner's own group, above those of their sites, and what is read from it.

use std::sync::Arc;

use anyhow::{Context, Result};
use cgroup::{CpuLimit, Group, Limits, Setting};

use super::disks::Joining;
use super::live::{Live, limit};
use super::state::State;
use super::{Awake, Overview};
use crate::config::units::Bytes;

#[derive(Debug)]
pub(super) struct Above {
    pub(super) group: Group,
    pub(super) told: Option<Limits>,
}

impl State {
    /// The owner's group has been made anew, without limits; the one before may have gone before its last site was
    /// reported gone.
    pub(super) fn forget_above(&mut self) {
        self.above = None;
        self.bounded.clear();
        self.awaited.clear();
    }

    /// Whether the owner's group has been or will be told something.
    pub(super) fn is_told(&self) -> bool {
        self.is_ours() || self.standing.is_some() || self.above.is_some()
    }

    /// Puts the budget on the owner's group, unless it is there. Only where a site's group is below it.
    /// `joining` is a site that is about to be there.
    pub(super) fn bind(
        &mut self,
        tree: &cgroup::Tree,
        owner: &str,
        joining: Option<Joining<'_>>,
    ) -> Result<()> {
        // One that was told something before has to be told that it is over.
        if !self.is_told() {
            return Ok(());
        }
        if self.above.is_none() {
            self.above = Some(Above {
                group: tree.open_group(&[owner])?,
                told: None,
            });
        }
        let (io, over) = self.io(joining)?;
        let Some(above) = &self.above else {
            return Ok(());
        };
        let mut limits = Limits {
            io,
            ..Limits::default()
        };
        self.budget_into(&mut limits);
        self.rank_above(&above.group, &mut limits);
        let Some(above) = &mut self.above else {
            return Ok(());
        };
        if over.is_empty() && above.told.as_ref() == Some(&limits) {
            return Ok(());
        }
        above.told = None;
        let told = limits.clone();
        limits.io.extend(over);
        if let Err(error) = above.group.apply(&limits) {
            // Kernels before 5.14 have no burst; whatever else it was is found again.
            let plain = Limits {
                cpu: limits.cpu.map(|cpu| CpuLimit {
                    burst_usec: 0,
                    ..cpu
                }),
                ..limits.clone()
            };
            let tried_without = above.group.apply(&plain);
            tried_without
                .map_err(|_| error)
                .with_context(|| format!("cannot put the budget of {owner} in force"))?;
        }
        self.bounded = told.io.iter().map(|io| io.device).collect();
        above.told = Some(told);
        Ok(())
    }

    fn budget_into(&self, limits: &mut Limits) {
        limits.cpu = match self.account.cpu() {
            // Time that the sites' own quotas leave over for a moment, as their periods are not those of this group,
            // is not lost; over a few periods it is never more than the budget.
            Some(budget) => Setting::To(limit(budget, budget)),
            None => Setting::Max,
        };
        limits.memory_max = match self.account.budget.memory.and_then(Bytes::finite) {
            Some(bytes) => Setting::To(bytes),
            None => Setting::Max,
        };
    }

    /// CPU time of all sites together in µs.
    pub(super) fn used(&self) -> Option<u64> {
        self.above.as_ref()?.group.cpu_usage().ok()?.cpu_usec
    }

    pub(super) fn overview(&self) -> Overview {
        let awake = |(name, live): (&Arc<str>, &Live)| {
            let awake = Awake {
                guarantee: self.part(name).map(|part| part.guarantee),
                quota: live.quota(),
                used: live
                    .group
                    .cpu_usage()
                    .ok()
                    .and_then(|u| u.cpu_usec)
                    .unwrap_or(0),
                without_io: self.without.get(name).cloned(),
            };
            (name.clone(), awake)
        };
        let group = self
            .live
            .values()
            .next()
            .and(self.above.as_ref())
            .map(|above| &above.group);
        Overview {
            account: self.account.clone(),
            awake: self.live.iter().map(awake).collect(),
            starting: self.starting,
            in_force: group.and_then(|group| group.read().ok()),
            usage: group.and_then(|group| group.usage().ok()),
        }
    }
}
