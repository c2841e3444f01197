//! What the last agent left on owners' groups: a budget that nobody sets any more, promises that nobody makes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use cgroup::{Limits, Setting};

use super::Owners;
use super::above::Above;
use crate::promises::Standing;

impl Owners {
    /// Looks at the groups of all owners, once, before anybody's limits are put in force: what is on them and was not told
    /// by this agent goes with the first of an owner's sites whose are. Blocks.
    pub fn take_over(&self) -> Result<()> {
        let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for path in self.tree.existing()? {
            let mut path = path.into_iter();
            if let Some(owner) = path.next() {
                owners.entry(owner).or_default().extend(path.next());
            }
        }
        for (name, sites) in owners {
            let found = self.tree.open_group(&[&name]);
            let found = found.and_then(|group| Ok((group.read()?, group)));
            let (found, group) = match found {
                Ok(found) => found,
                Err(error) => {
                    tracing::error!("cannot see what is left of the owner {name}: {error}");
                    continue;
                }
            };
            if !limited(&found) {
                continue;
            }
            let owner = self.owner(&name);
            let mut state = owner.lock();
            state.note_disks(&found);
            state.awaited = sites;
            state.above = Some(Above { group, told: None });
            state.standing = Some(Standing::default());
            state.promises = Some(self.promises.clone());
        }
        Ok(())
    }
}

/// Whether a group has limits or a rank.
fn limited(found: &Limits) -> bool {
    let default = |weight: Setting<u64>| weight.value().is_none_or(|weight| weight == 100);
    found.cpu.value().is_some()
        || found.memory_max.value().is_some()
        || found.memory_min.value().is_some_and(|bytes| bytes > 0)
        || !found.io.is_empty()
        || found.cpu_idle == Setting::To(true)
        || !default(found.cpu_weight)
}
