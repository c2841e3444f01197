//! Having the kernel keep what sites are promised.
//!
//! Weights count among siblings only, so an owner's group has one for what its sites are promised together, and each of
//! these sites one for its part of that. Whoever is promised nothing runs when nobody who is wants to: its group is idle
//! (`cpu.idle`), among the owners and again among the sites of an owner who has both kinds. With a low weight alone, a
//! guaranteed site that wakes would wait for the end of its neighbour's time slice, several milliseconds.

use std::sync::Arc;

use anyhow::Result;
use cgroup::{Limits, Setting};

use super::live::{Live, Own};
use super::model::Part;
use super::state::State;
use super::{Owner, Owners, lock};
use crate::promises::ledger::weight;
use crate::promises::{Change, Promise, Promises, Standing};

/// By what weights of best-effort sites are divided where they stand beside guaranteed ones.
const LESS: u64 = 100;

impl Owners {
    /// Has the kernel keep what is promised after a change. Blocks.
    pub fn keep_promises(&self, change: &Change) {
        if change.owners.is_empty() && !change.all {
            return;
        }
        self.keep_memory();
        let concerned: Vec<Arc<Owner>> = {
            let all = lock(&self.all);
            let concerned = |name: &Arc<str>| change.all || change.owners.contains(name);
            let owners = all.iter().filter(|(name, _)| concerned(name));
            owners.map(|(_, owner)| owner.clone()).collect()
        };
        for owner in concerned {
            let mut state = owner.lock();
            if state.live.is_empty() {
                continue;
            }
            for error in state.restand(&self.promises, &owner.name, &self.tree) {
                tracing::error!(
                    "owner {}: cannot keep what is promised: {error:#}",
                    owner.name
                );
            }
        }
    }

    /// Has the level above the owners guarantee what they are together; also what an earlier agent left there is not any
    /// more. Blocks.
    pub fn keep_memory(&self) {
        if let Err(error) = self.write_memory() {
            tracing::error!("cannot guarantee memory to all owners together: {error:#}");
        }
    }

    fn write_memory(&self) -> Result<()> {
        if !self.promises.keeps_memory() {
            return Ok(());
        }
        let parent = self.tree.parent()?;
        // Summed up only now: whoever comes last writes the last sum.
        let _one_at_a_time = lock(&self.keeping);
        let bytes = self.promises.memory();
        if parent.read()?.memory_min.value().unwrap_or(0) != bytes {
            parent.apply(&Limits {
                memory_min: Setting::To(bytes),
                ..Limits::default()
            })?;
        }
        Ok(())
    }
}

impl State {
    /// Takes over how the owner stands; answers a site's limits without guarantees that cannot be kept.
    pub(super) fn stand(
        &mut self,
        promises: &Arc<Promises>,
        owner: &str,
        vhost: &str,
        limits: &Limits,
        new: bool,
    ) -> Limits {
        self.standing = Some(promises.standing(owner));
        self.promises = Some(promises.clone());
        let mut limits = limits.clone();
        // Lifted also where it was taken out of the definition.
        if !limits.memory_min.is_keep() || (!new && promises.keeps_memory()) {
            limits.memory_min = match promises.of(vhost).memory {
                0 => Setting::Max,
                bytes => Setting::To(bytes),
            };
        }
        limits
    }

    /// The same for all of an owner's groups that are there. What fails keeps no other from being told; all that failed is
    /// answered.
    pub(super) fn restand(
        &mut self,
        promises: &Arc<Promises>,
        owner: &str,
        tree: &cgroup::Tree,
    ) -> Vec<anyhow::Error> {
        self.standing = Some(promises.standing(owner));
        self.promises = Some(promises.clone());
        let mut failed = Vec::from_iter(self.bind(tree, owner, None).err());
        for (name, live) in &mut self.live {
            let promise = promises.of(name);
            let before = std::mem::replace(&mut live.promised, promise);
            if before.memory != promise.memory && promises.keeps_memory() {
                let limits = Limits {
                    memory_min: Setting::To(promise.memory),
                    ..Limits::default()
                };
                match live.group.apply(&limits) {
                    Ok(_) => live.asked.memory_min = limits.memory_min,
                    // It is just being removed, and nobody is left in it.
                    Err(_) if live.group.pids().is_err() => {}
                    Err(error) => failed.push(error.into()),
                }
            }
        }
        failed.extend(self.rebalance(|_, _| true).err());
        failed
    }

    /// What a site is promised.
    pub(super) fn promised(&self, vhost: &str) -> Promise {
        let promises = self.promises.as_ref();
        promises.map_or_else(Promise::default, |promises| promises.of(vhost))
    }

    /// A site's weight among its siblings, and whether it is idle beside them.
    pub(super) fn rank(&self, live: &Live, part: Option<Part>) -> (Setting<u64>, bool) {
        let weighed = part.map_or(live.own.weight, |part| Setting::To(part.weight));
        let all = self.standing.map_or(0, |standing| standing.promise.cpu);
        match (all, live.promised.cpu, weighed) {
            (0, ..) => (weighed, false),
            (all, 1.., _) => (Setting::To(weight(live.promised.cpu, all)), false),
            // Whoever has a weight of their own keeps it beside others who have: idle groups are all equal.
            (_, _, Setting::To(own)) => (Setting::To((own / LESS).max(1)), false),
            _ => (Setting::Max, live.group.has_cpu_idle()),
        }
    }

    /// The same for the owner's group among the owners, and the memory guaranteed to it.
    pub(super) fn rank_above(&self, group: &cgroup::Group, limits: &mut Limits) {
        let Some(Standing {
            contended,
            promise,
            weight,
        }) = self.standing
        else {
            return;
        };
        let idle = contended && weight == 0 && group.has_cpu_idle();
        limits.cpu_idle = if idle {
            Setting::To(true)
        } else {
            Setting::Max
        };
        limits.cpu_weight = match weight {
            _ if idle => Setting::Keep,
            0 if contended => Setting::To(1),
            0 => Setting::Max,
            weight => Setting::To(weight),
        };
        if self.promises.as_ref().is_some_and(|p| p.keeps_memory()) {
            limits.memory_min = Setting::To(promise.memory);
        }
    }
}

impl Own {
    /// Weight and rank as writes, for a new group or one that was told something else. An idle group takes no weight, and
    /// one that is not idle any more has the default.
    pub(super) fn rank_into(self, limits: &mut Limits, told: Option<Own>) {
        limits.cpu_weight = Setting::Keep;
        match (self.idle, told) {
            (true, _) => limits.cpu_idle = Setting::To(true),
            (false, Some(_)) => {
                limits.cpu_idle = Setting::Max;
                limits.cpu_weight = self.weight;
            }
            (false, None) if self.weight != Setting::Max => limits.cpu_weight = self.weight,
            (false, None) => {}
        }
    }
}
