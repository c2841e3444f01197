//! Limits that somebody has changed behind the agent's back: found when asked for, mended when told to.

use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};

use super::Site;
use crate::container::{Container, Drift};
use crate::disk::BelowUse;

impl Site {
    /// What is in force for its container otherwise than it should be. Reads the kernel's files.
    pub(crate) fn drift(&self, container: &Container) -> Result<Vec<Drift>> {
        let mut all = self.platform.owners.drift(&container.group)?;
        // While limits are being changed, their network's and open files are in force before they are kept.
        let quiet = || self.limits.try_lock().is_ok();
        if quiet() {
            let traffic = container.traffic_drift(&self.limits())?;
            let files = container.open_files_drift();
            if quiet() {
                all.extend(traffic);
                all.extend(files);
            }
        }
        Ok(all)
    }

    /// Writes all limits again; says what was not as it should be, and all that are in force, read back.
    pub(crate) async fn mend(self: &Arc<Self>, dry_run: bool) -> Result<(Vec<Drift>, Value)> {
        let _one_at_a_time = self.limits.lock().await;
        self.settled().await;
        self.revert_before_a_change().await;
        let wanted = self.limits();
        let Some(container) = self.container() else {
            return Ok((Vec::new(), super::view::shown(&wanted)));
        };
        let mut found = self.platform.owners.drift(&container.group)?;
        found.extend(container.traffic_drift(&wanted)?);
        let files = container.open_files_drift();
        if files.is_some() && !dry_run {
            container.doubt_open_files();
        }
        found.extend(files);
        if dry_run || found.is_empty() {
            return Ok((found, super::view::shown(&self.in_force(&container)?)));
        }
        self.platform.owners.doubt(&container.group)?;
        let (_, in_force) = self.enforce(&container, &wanted, BelowUse::Enforce).await?;
        let left = self.platform.owners.drift(&container.group)?;
        if let Some(drift) = left.first() {
            anyhow::bail!(
                "cannot mend the limits of {}: {} is {} in {} once more; somebody else keeps writing it",
                self.name,
                drift.key,
                drift.found,
                drift.file
            );
        }
        let changes: Vec<Value> = found.iter().map(change).collect();
        self.platform.events.emit(
            "limits",
            Some((&self.name, &self.owner())),
            json!({"changes": changes, "cause": "mended"}),
        );
        Ok((found, super::view::shown(&in_force)))
    }
}

/// A drift as the change that mends it.
pub(crate) fn change(drift: &Drift) -> Value {
    json!({"key": drift.key, "old": drift.found, "new": drift.wanted})
}
