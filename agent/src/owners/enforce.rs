//! A site's limits put in force below its owner's, and its end.

use std::sync::Arc;

use anyhow::Result;
use cgroup::{Group, IoLimit, Limits, Setting};

use super::disks::{Disk, Joining};
use super::state::State;
use super::{Owners, lock, owner_and_site};

impl Owners {
    /// Puts limits of a site in force, with its owner's budget and division; from then on changes of these reach it.
    /// `new` says that the group has just been made: before anything runs in it, the budget is on the group above it.
    /// `disk` is where the site's documents are. Answers what was read back, for what was asked.
    pub fn enforce(
        &self,
        group: &Arc<Group>,
        limits: &Limits,
        disk: Disk,
        new: bool,
    ) -> Result<Limits> {
        let (owner, vhost) = owner_and_site(group)?;
        let owner = self.owner(owner);
        let mut state = owner.lock();
        if new {
            state.admit(&owner.name, vhost)?;
            if group.made_above() {
                state.forget_above();
            }
        }
        let limits = match self.promises.ever() {
            true => &state.stand(&self.promises, &owner.name, vhost, limits, new),
            false => limits,
        };
        let site = Joining {
            site: vhost,
            disk,
            new,
        };
        let got = state.enforce(&self.tree, &owner.name, group, limits, site)?;
        self.lend(&owner, &mut state);
        Ok(got)
    }

    /// Whether limits of this site are in force within microseconds: nobody else is changing its owner's groups, which may
    /// take as long as it takes to take memory from them, and nothing is to be told to the group above it.
    pub fn is_quick(&self, group: &Group) -> bool {
        let owner = owner_and_site(group).map(|(owner, _)| self.known(owner));
        let Ok(Some(owner)) = owner else { return false };
        let state = owner.state.try_lock();
        state.is_ok_and(|state| !state.is_told())
    }

    /// A site's cgroup is gone.
    pub fn leave(&self, group: &Arc<Group>) {
        let Ok((name, vhost)) = owner_and_site(group) else {
            return;
        };
        let Some(owner) = self.known(name) else {
            return;
        };
        let idle = {
            let mut state = owner.lock();
            let last_awaited = state.awaited.remove(vhost) && state.awaited.is_empty();
            state.leave(vhost, group);
            // Now it is known which disks nobody is on.
            if last_awaited
                && !state.live.is_empty()
                && let Err(error) = state.bind(&self.tree, name, None)
            {
                tracing::error!("{error:#}");
            }
            state.is_idle()
        };
        let mut all = lock(&self.all);
        // The table's and ours: nobody is about to use it, and it can be made again from nothing.
        if idle && Arc::strong_count(&owner) == 2 && owner.lock().is_idle() {
            all.remove(name);
        }
    }
}

impl State {
    /// The budget on the group above and a site's limits below it. What fails changes nothing; but a container of the last
    /// agent is one of the owner's all the same.
    pub(super) fn enforce(
        &mut self,
        tree: &cgroup::Tree,
        owner: &str,
        group: &Arc<Group>,
        limits: &Limits,
        site: Joining<'_>,
    ) -> Result<Limits> {
        self.awaited.remove(site.site);
        let bound = self.bind(tree, owner, Some(site));
        if bound.is_ok() || site.new {
            bound?;
            return self.join(site.site, group, limits, site.disk, site.new);
        }
        // On cgroup v1 the group above cannot be given less than this site had until now.
        let before = self.before(site.site, group, limits)?;
        let got = self.join(site.site, group, limits, site.disk, false)?;
        let Err(error) = self.bind(tree, owner, Some(site)) else {
            return Ok(got);
        };
        if let Some((old, asked)) = before {
            match self.join(site.site, group, &old, site.disk, false) {
                Ok(_) => {
                    if let Some(live) = self.live.get_mut(site.site) {
                        live.asked = asked;
                    }
                }
                Err(error) => {
                    tracing::error!("{}: cannot go back to the old limits: {error:#}", site.site);
                }
            }
        }
        Err(error)
    }

    /// What would undo a change of a site's limits, with what its group was told; nothing for one that is not known yet.
    fn before(
        &self,
        vhost: &str,
        group: &Arc<Group>,
        change: &Limits,
    ) -> Result<Option<(Limits, Limits)>> {
        let live = self.live.get(vhost);
        let Some(live) = live.filter(|live| Arc::ptr_eq(&live.group, group)) else {
            return Ok(None);
        };
        let mut old = group.read()?;
        (old.cpu, old.cpu_weight) = (live.own.cpu, live.own.weight);
        for io in &change.io {
            if old.io.iter().all(|known| known.device != io.device) {
                old.io.push(IoLimit {
                    device: io.device,
                    read_bps: Setting::Max,
                    write_bps: Setting::Max,
                    read_iops: Setting::Max,
                    write_iops: Setting::Max,
                });
            }
        }
        Ok(Some((old, live.asked.clone())))
    }
}
