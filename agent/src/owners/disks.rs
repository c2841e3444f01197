//! I/O of all sites of an owner together: on which disks it is bounded, and what their group is told.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use cgroup::{Controller, Device, IoLimit, Setting};

use super::model::{Account, Budget};
use super::state::State;
use super::{Defaults, Owners};

/// The device of a site's documents, as `stat` answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// It has no documents.
    None,
    /// It was started by an agent that did not note it.
    Unknown,
    /// This one.
    Of(u64),
}

/// Why no group of this host bounds the I/O of those below it.
pub(super) fn impossible(tree: &cgroup::Tree) -> Option<&'static str> {
    tree.hierarchy().is_v1(Controller::Io).then_some(
        "an I/O budget cannot be kept on this host: its blkio controller is cgroup v1, where the limits of a group do not \
         hold for the groups below it; leave io out and limit each site with `fastctl set SITE io.write=…`, or boot with \
         systemd.unified_cgroup_hierarchy=1",
    )
}

/// Takes what cannot be kept out of budgets of agent.toml; says whose it was.
pub(super) fn strip(defaults: &mut Defaults) -> Vec<String> {
    let each = defaults.each.iter_mut();
    let each = each.map(|(name, budget)| (format!("owner.{name}.budget"), budget));
    let all = std::iter::once(("budget".to_owned(), &mut defaults.all));
    let stripped = all.chain(each).filter_map(|(key, budget)| {
        let had = std::mem::take(&mut budget.io).is_limited();
        had.then_some(key)
    });
    stripped.collect()
}

/// The same of what is kept of an owner.
pub(super) fn strip_account(account: &mut Account) -> bool {
    std::mem::take(&mut account.budget.io).is_limited()
}

impl Owners {
    /// Budgets that are not kept, each with what says it and why.
    pub fn problems(&self) -> impl Iterator<Item = (&str, &str)> {
        let why = impossible(&self.tree).unwrap_or_default();
        self.unkept.iter().map(move |who| (&**who, why))
    }

    /// Whether a budget can be kept on this host.
    pub(super) fn check_io(&self, budget: &Budget) -> Result<()> {
        match impossible(&self.tree) {
            Some(why) if budget.io.is_limited() => bail!(why),
            _ => Ok(()),
        }
    }
}

impl State {
    /// The disks that the budget bounds: those of the documents of awake sites, and of one that is about to be.
    fn disks(&self, joining: Option<(&str, Disk)>) -> Result<BTreeSet<Device>> {
        if !self.account.budget.io.is_limited() {
            return Ok(BTreeSet::new());
        }
        let live = self.live.iter().map(|(name, live)| (&**name, live.disk));
        let all = live
            .filter(|(name, _)| joining.is_none_or(|(other, _)| other != *name))
            .chain(joining);
        let mut disks = BTreeSet::new();
        for (site, disk) in all {
            let kept = || format!("the I/O budget cannot be kept for {site}");
            match disk {
                Disk::None => {}
                Disk::Unknown => bail!(
                    "{}: it was started by an older agent, which did not note the disk of its documents; restart it",
                    kept()
                ),
                Disk::Of(device) => {
                    disks.insert(cgroup::block_device(device).with_context(kept)?);
                }
            }
        }
        Ok(disks)
    }

    /// What the owner's group is to be told of I/O; and what has to be lifted, as it was told before.
    pub(super) fn io(&self, joining: Option<(&str, Disk)>) -> Result<(Vec<IoLimit>, Vec<IoLimit>)> {
        let disks = self.disks(joining)?;
        let [read_bps, write_bps, read_iops, write_iops] = self
            .account
            .budget
            .io
            .limits()
            .map(|rate| rate.map_or(Setting::Max, Setting::To));
        let limit = |device: &Device| IoLimit {
            device: *device,
            read_bps,
            write_bps,
            read_iops,
            write_iops,
        };
        let lift = |device: &Device| IoLimit {
            device: *device,
            read_bps: Setting::Max,
            write_bps: Setting::Max,
            read_iops: Setting::Max,
            write_iops: Setting::Max,
        };
        let over = self.bounded.difference(&disks);
        Ok((disks.iter().map(limit).collect(), over.map(lift).collect()))
    }

    /// Remembers of which disks the owner's group says something.
    pub(super) fn note_disks(&mut self, found: &cgroup::Limits) {
        self.bounded.extend(found.io.iter().map(|io| io.device));
    }
}
