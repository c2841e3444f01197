//! One owner's account and awake sites, and the writing of both into control groups. Everything here happens under the
//! owner's lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Result, bail};
use cgroup::{Device, Group, Limits, Setting};

use super::above::Above;
use super::disks::Disk;
use super::io_budget::IoBudget;
use super::lend::Meter;
use super::live::{Live, Own, limit};
use super::model::{Account, Budget, Kind, Part};
use crate::config::units::Count;
use crate::division::Division;
use crate::promises::{Promises, Standing};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct State {
    /// What counts: what is kept, over what agent.toml says.
    pub(super) account: Account,
    /// What there is a file of.
    pub(super) own: Option<Account>,
    defaults: Budget,
    /// The kernel does not keep budgets of I/O: what is said of it does not count.
    pub(super) no_io: bool,
    pub(super) live: BTreeMap<Arc<str>, Live>,
    /// The owner's group with what it was told; while sites are awake, as it goes when they have gone.
    pub(super) above: Option<Above>,
    /// Disks of which the owner's group has been told something, also while nobody is awake.
    pub(super) bounded: BTreeSet<Device>,
    /// Sites with a group that the last agent made, which have not been taken over or removed yet.
    pub(super) awaited: BTreeSet<String>,
    /// Awake sites that the budget of I/O does not bound, with the reason.
    pub(super) without: BTreeMap<Arc<str>, String>,
    pub(super) starting: u64,
    /// What its sites are promised, among all that are; None as long as there has been no promise.
    pub(super) standing: Option<Standing>,
    pub(super) promises: Option<Arc<Promises>>,
    /// Which CPUs are for whom.
    pub(super) division: Option<Division>,
    /// Somebody looks after its loans.
    pub(super) tended: bool,
}

impl State {
    pub(super) fn new(own: Option<Account>, defaults: Budget, no_io: bool) -> Self {
        let mut state = Self {
            defaults,
            no_io,
            ..Self::default()
        };
        state.account = state.counted(own.as_ref());
        state.own = own;
        state
    }

    /// What counts of an account: over what agent.toml says, without what the kernel cannot keep.
    pub(super) fn counted(&self, own: Option<&Account>) -> Account {
        let mut account = own.cloned().unwrap_or_default().over(&self.defaults);
        if self.no_io {
            account.budget.io = IoBudget::default();
        }
        account
    }

    /// Whether somebody has said something of this owner: then the limits of their group are ours to set.
    pub(super) fn is_ours(&self) -> bool {
        self.own.is_some() || self.defaults != Budget::default()
    }

    /// Nothing would be lost with it.
    pub(super) fn is_idle(&self) -> bool {
        let unused = self.live.is_empty() && self.starting == 0 && !self.tended;
        // The group lives on for some seconds with what it was told of disks, or by the last agent.
        unused && self.own.is_none() && self.bounded.is_empty() && self.above.is_none()
    }

    pub(super) fn take_place(&mut self) -> bool {
        let most = self.account.budget.starts.and_then(Count::finite);
        let free = most.is_none_or(|most| self.starting < most);
        self.starting += u64::from(free);
        free
    }

    pub(super) fn give_place_back(&mut self) {
        self.starting = self.starting.saturating_sub(1);
    }

    /// Whether one more site may be awake.
    pub(super) fn admit(&self, owner: &str, vhost: &str) -> Result<()> {
        let others = self.live.keys().filter(|name| &***name != vhost).count() as u64;
        match self.account.budget.sites.and_then(Count::finite) {
            Some(most) if others >= most => bail!(
                "the budget of {owner} is {most} sites, and {others} are awake; it can start when one of them has ended"
            ),
            _ => Ok(()),
        }
    }

    fn unnamed(&self) -> usize {
        let named = |name: &str| {
            self.account
                .split
                .as_ref()
                .is_some_and(|s| s.shares.contains_key(name))
        };
        self.live.keys().filter(|name| !named(name)).count()
    }

    /// The part of an awake site.
    pub(super) fn part(&self, vhost: &str) -> Option<Part> {
        self.account.part(vhost, self.unnamed())
    }

    fn target(&self, vhost: &str, live: &Live) -> Own {
        let part = self.part(vhost);
        let cpu = match self.account.quota(live.own.quota(), part, live.lent) {
            Some(quota) => {
                let burst = live.own.cpu.value().map_or(0, |cpu| cpu.burst_usec / 10);
                Setting::To(limit(quota, burst))
            }
            None => Setting::Max,
        };
        let (weight, idle) = self.rank(live, part);
        let cpus = self.division.map_or(Setting::Keep, |division| {
            Setting::To(division.of_site(live.promised.cpu))
        });
        Own {
            cpu,
            weight,
            idle,
            cpus,
        }
    }

    /// A site's limits, new or changed. Answers what was read back, for what was asked.
    pub(super) fn join(
        &mut self,
        vhost: &str,
        group: &Arc<Group>,
        limits: &Limits,
        disk: Disk,
        new: bool,
    ) -> Result<Limits> {
        let name: Arc<str> = vhost.into();
        let own = Own::of(limits);
        let before = self
            .live
            .remove(&name)
            .filter(|before| Arc::ptr_eq(&before.group, group));
        let (lent, meter, before) = match before {
            Some(before) => (
                before.lent,
                Meter::default(),
                Some((before.own, before.told, before.asked)),
            ),
            None => (0, Meter::default(), None),
        };
        let told = Own {
            cpu: Setting::Max,
            weight: Setting::Max,
            idle: false,
            cpus: Setting::Keep,
        };
        let promised = self.promised(vhost);
        self.live.insert(
            name.clone(),
            Live {
                group: group.clone(),
                own,
                told,
                asked: Limits::default(),
                disk,
                lent,
                meter,
                promised,
            },
        );
        let target = self
            .live
            .get(&name)
            .map_or(told, |live| self.target(vhost, live));
        let mut wanted = limits.clone();
        // What is asked for as it is by default is not even written in a new group.
        if !new || target.cpu != Setting::Max {
            wanted.cpu = target.cpu;
        }
        wanted.cpus = target.cpus;
        target.rank_into(&mut wanted, (!new).then_some(told));
        let done = if new {
            group.set_up(&wanted)
        } else {
            group.apply(&wanted)
        };
        let got = match done {
            Ok(got) => got,
            Err(error) => {
                match (before, self.live.get_mut(&name)) {
                    (Some((own, told, asked)), Some(live)) => {
                        (live.own, live.told, live.asked) = (own, told, asked);
                    }
                    _ => drop(self.live.remove(&name)),
                }
                return Err(error.into());
            }
        };
        if let Some(live) = self.live.get_mut(&name) {
            live.told = target;
            live.asked = wanted;
        }
        // With one more to share what is left, the others have less.
        if let Err(error) = self.rebalance(|_, _| true) {
            tracing::error!("{error:#}");
        }
        Ok(got)
    }

    /// A site's group is gone.
    pub(super) fn leave(&mut self, vhost: &str, group: &Arc<Group>) {
        if !self
            .live
            .get(vhost)
            .is_some_and(|live| Arc::ptr_eq(&live.group, group))
        {
            return;
        }
        self.live.remove(vhost);
        self.without.remove(vhost);
        if self.live.is_empty() {
            self.above = None;
            // Taken over anew by the next.
            self.standing = None;
        } else if let Err(error) = self.rebalance(|_, _| true) {
            tracing::error!("{error:#}");
        }
    }

    /// Tells the groups of awake sites what has changed for them, if `now` lets that be told: it sees the quotas of
    /// before and after.
    pub(super) fn rebalance(
        &mut self,
        now: impl Fn(Option<u64>, Option<u64>) -> bool,
    ) -> Result<()> {
        let targets: Vec<(Arc<str>, Own)> = self
            .live
            .iter()
            .map(|(name, live)| (name.clone(), self.target(name, live)))
            .collect();
        let mut failed = None;
        for (name, target) in targets {
            let Some(live) = self.live.get_mut(&name) else {
                continue;
            };
            if live.told == target || !now(live.told.quota(), target.quota()) {
                continue;
            }
            let mut limits = Limits::default();
            if live.told.cpu != target.cpu {
                limits.cpu = target.cpu;
            }
            if live.told.cpus != target.cpus {
                limits.cpus = target.cpus;
            }
            if (live.told.weight, live.told.idle) != (target.weight, target.idle) {
                target.rank_into(&mut limits, Some(live.told));
            }
            match live.group.apply(&limits) {
                Ok(_) => live.told = target,
                // It is just being removed, and nobody is left in it.
                Err(_) if live.group.pids().is_err() => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Another account is kept: first the sites that get less, then the group above, then those that get more.
    pub(super) fn install(
        &mut self,
        tree: &cgroup::Tree,
        owner: &str,
        own: Option<Account>,
    ) -> Result<()> {
        self.account = self.counted(own.as_ref());
        self.own = own;
        for live in self.live.values_mut() {
            live.lent = 0;
        }
        if self.live.is_empty() {
            return Ok(());
        }
        let less = |before: Option<u64>, after: Option<u64>| match (before, after) {
            (Some(before), Some(after)) => after < before,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        self.rebalance(less)?;
        self.bind(tree, owner, None)?;
        self.rebalance(|_, _| true)
    }

    /// Whether loans are to be looked after from now on, by the one who asks.
    pub(super) fn begins_to_lend(&mut self) -> bool {
        let begins = self.lends() && !self.tended;
        self.tended |= begins;
        begins
    }

    /// Whether there is somebody to lend and somebody to lend to.
    pub(super) fn lends(&self) -> bool {
        let lending = self
            .account
            .split
            .as_ref()
            .is_some_and(|s| s.kind == Kind::Lending && !s.shares.is_empty());
        lending && self.account.cpu().is_some() && !self.live.is_empty()
    }
}
