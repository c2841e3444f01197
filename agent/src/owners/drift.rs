//! Whether the groups of sites and owners still are as they were told; looked at only when somebody asks.

use std::sync::Arc;

use anyhow::Result;
use cgroup::{CpuLimit, Group, Limits, Setting};

use super::{Owners, owner_and_site};
use crate::container::{Drift, drifted};

impl Owners {
    /// What a site's group and its owner's say otherwise than they were told. Reads the kernel's files.
    pub fn drift(&self, group: &Arc<Group>) -> Result<Vec<Drift>> {
        let (name, vhost) = owner_and_site(group)?;
        let Some(owner) = self.known(name) else {
            return Ok(Vec::new());
        };
        // Under the lock under which it is told.
        let state = owner.lock();
        let Some(live) = state.live.get(vhost) else {
            return Ok(Vec::new());
        };
        if !Arc::ptr_eq(&live.group, group) {
            return Ok(Vec::new());
        }
        let told = Limits {
            cpu: live.told.cpu,
            cpu_weight: live.told.weight,
            cpu_idle: Setting::To(live.told.idle),
            cpus: live.told.cpus,
            ..live.asked.clone()
        };
        let mut all = drifted(&live.group, &told, &live.group.read()?);
        if let Some(above) = &state.above
            && let Some(told) = &above.told
        {
            let found = above.group.read()?;
            let mut told = told.clone();
            // Kernels before 5.14 have none, and then it has been told none.
            if found.cpu.value().is_some_and(|cpu| cpu.burst_usec == 0) {
                told.cpu = told.cpu.map(|cpu| CpuLimit {
                    burst_usec: 0,
                    ..cpu
                });
            }
            let above = drifted(&above.group, &told, &found);
            all.extend(above.into_iter().map(|drift| Drift {
                key: format!("owner.{}", drift.key),
                ..drift
            }));
        }
        Ok(all)
    }

    /// From now on nothing is taken for granted of the group above: what is enforced next is written there too. What it was
    /// told nothing of is put back here.
    pub fn doubt(&self, group: &Arc<Group>) -> Result<()> {
        let (name, _) = owner_and_site(group)?;
        let Some(owner) = self.known(name) else {
            return Ok(());
        };
        let mut state = owner.lock();
        let Some(above) = &mut state.above else {
            return Ok(());
        };
        let told = above.told.take();
        let found = above.group.read()?;
        if let Some(told) = told {
            above.group.apply(&untold(&told, &found))?;
        }
        // Somebody may have bounded other disks.
        state.note_disks(&found);
        Ok(())
    }
}

/// What a group was told nothing of and that somebody has changed, as it is in a new one.
fn untold(told: &Limits, found: &Limits) -> Limits {
    fn back<T: Copy + PartialEq>(
        told: Setting<T>,
        new: Setting<T>,
        found: Setting<T>,
    ) -> Setting<T> {
        match told {
            Setting::Keep if new != found => new,
            _ => Setting::Keep,
        }
    }
    let new = Group::expected(told, found);
    Limits {
        cpu_weight: back(told.cpu_weight, new.cpu_weight, found.cpu_weight),
        cpu_idle: back(told.cpu_idle, new.cpu_idle, found.cpu_idle),
        memory_high: back(told.memory_high, new.memory_high, found.memory_high),
        memory_min: back(told.memory_min, new.memory_min, found.memory_min),
        swap_max: back(told.swap_max, new.swap_max, found.swap_max),
        pids_max: back(told.pids_max, new.pids_max, found.pids_max),
        io_weight: back(told.io_weight, new.io_weight, found.io_weight),
        ..Limits::default()
    }
}
