//! I/O of all sites of an owner together: on which disks it is bounded, and what their group is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Result, bail};
use cgroup::{Controller, Device, IoLimit, Setting};

use super::model::Budget;
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

impl Owners {
    /// Budgets that are not kept, each with what says it and why.
    pub fn problems(&self) -> impl Iterator<Item = (&str, &str)> {
        let why = impossible(&self.tree).unwrap_or_default();
        self.unkept.iter().map(move |who| (&**who, why))
    }

    /// Whether a budget can be kept on this host; what was said before it could not stays as it is.
    pub(super) fn check_io(&self, before: &Budget, budget: &Budget) -> Result<()> {
        match impossible(&self.tree) {
            Some(why) if budget.io.is_limited() && budget.io != before.io => bail!(why),
            _ => Ok(()),
        }
    }
}

/// A site that is about to have a container, or whose container is told something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joining<'a> {
    pub(super) site: &'a str,
    pub(super) disk: Disk,
    /// Nothing runs in it yet: it can be refused.
    pub(super) new: bool,
}

/// Disks on which an owner's sites are bounded together.
#[derive(Debug, Default)]
struct Bounds {
    disks: BTreeSet<Device>,
    /// Awake sites on no such disk, with the reason.
    without: BTreeMap<Arc<str>, String>,
}

/// The disk under a file system.
fn resolve(disk: Disk) -> Result<Option<Device>> {
    match disk {
        Disk::None => Ok(None),
        Disk::Unknown => bail!(
            "it was started by an older agent, which did not note the disk of its documents; restart it"
        ),
        Disk::Of(number) => Ok(Some(cgroup::block_device(number)?)),
    }
}

impl State {
    /// The disks that the budget bounds: those of the documents of awake sites, and of one that is about to be. Who is
    /// awake already is not to suffer from what another cannot have.
    fn bounds(&self, joining: Option<Joining<'_>>) -> Result<Bounds> {
        let mut bounds = Bounds::default();
        if !self.account.budget.io.is_limited() {
            return Ok(bounds);
        }
        let mut known: Vec<(Disk, Result<Option<Device>, String>)> = Vec::new();
        let mut look = |disk: Disk| {
            if let Some((_, found)) = known.iter().find(|(one, _)| *one == disk) {
                return found.clone();
            }
            let found = resolve(disk).map_err(|error| format!("{error:#}"));
            known.push((disk, found.clone()));
            found
        };
        let others = self.live.iter().map(|(name, live)| (&**name, live.disk));
        let others = others.filter(|(name, _)| joining.is_none_or(|joining| joining.site != *name));
        let joins = joining.map(|joining| (joining.site, joining.disk));
        for (site, disk) in others.chain(joins) {
            match look(disk) {
                Ok(device) => bounds.disks.extend(device),
                Err(why) if joining.is_some_and(|joining| joining.new && joining.site == site) => {
                    bail!("the I/O budget cannot be kept for {site}: {why}")
                }
                Err(why) => drop(bounds.without.insert(site.into(), why)),
            }
        }
        if !self.awaited.is_empty() {
            // Somebody of whom nobody has asked yet may be on any of them.
            bounds.disks.extend(&self.bounded);
        }
        Ok(bounds)
    }

    /// What the owner's group is to be told of I/O; and what has to be lifted, as it was told before.
    pub(super) fn io(
        &mut self,
        joining: Option<Joining<'_>>,
    ) -> Result<(Vec<IoLimit>, Vec<IoLimit>)> {
        let Bounds { disks, without } = self.bounds(joining)?;
        for (site, why) in &without {
            if !self.without.contains_key(site) {
                tracing::error!("{site} is not bound by its owner's I/O budget: {why}");
            }
        }
        self.without = without;
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
