//! What the operator did to a vhost that is not in its definition; on disk before it is promised.

use std::sync::{Arc, PoisonError};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Site;
use super::temporary::Temporaries;
use crate::config::definition::LimitPatch;
use crate::config::{Definition, Limits};
use crate::persist::{self, Durable};

/// Kept in `vhosts/NAME.json` of the state directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Kept down.
    #[serde(default)]
    pub down: bool,
    /// Limits set with `fastctl set`, above those of the definition.
    #[serde(default)]
    pub overrides: Limits,
    /// The definition's limits when `overrides` were set: where the definition changes a limit later, that wins.
    #[serde(default)]
    pub base: Limits,
    /// Limits set with `fastctl set --for`, above `overrides` until their time is over.
    #[serde(default, skip_serializing_if = "Temporaries::is_empty")]
    pub temporary: Temporaries,
}

impl Kept {
    /// Drops overrides of limits that the definition has changed since: the last word of the operator counts.
    pub(super) fn follow(&mut self, definition: &Definition) {
        for (key, ..) in Limits::diff(&self.base, &definition.limits) {
            self.overrides.set(key, None);
            self.temporary.forget(&LimitPatch(vec![(key, None)]));
        }
        self.base = definition.limits.clone();
    }

    /// Whether there is anything to keep.
    fn matters(&self) -> bool {
        self.down || !self.overrides.is_empty() || !self.temporary.is_empty()
    }
}

impl Site {
    /// Changes what is kept: on disk first, then in memory. One change at a time, whoever asks. Of a vhost that is being
    /// removed nothing is kept: whoever gets its name next would inherit it.
    pub(super) async fn change_kept(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Kept) + Send + 'static,
    ) -> Result<()> {
        let site = self.clone();
        let work = move || {
            let _one_at_a_time = site.keeping.lock().unwrap_or_else(PoisonError::into_inner);
            let before = {
                let inner = site.lock();
                if inner.withdrawn {
                    return Ok(());
                }
                inner.kept.clone()
            };
            let mut kept = before.clone();
            change(&mut kept);
            if kept != before {
                site.write_kept(&kept)?;
                site.lock().kept = kept;
                site.follow_temporary();
            }
            Ok(())
        };
        tokio::task::spawn_blocking(work)
            .await
            .context("the task that writes the state failed")?
    }

    fn write_kept(&self, kept: &Kept) -> Result<()> {
        let path = self.platform.kept_path(&self.name);
        if kept.matters() {
            persist::write(&path, kept, Durable::Host)
        } else {
            persist::remove_durably(&path)
        }
    }
}

impl Site {
    /// Removes what is kept of a vhost that is gone: whoever gets its name next does not inherit it.
    pub async fn forget_everything(self: &Arc<Self>) {
        let site = self.clone();
        let work = move || {
            let _one_at_a_time = site.keeping.lock().unwrap_or_else(PoisonError::into_inner);
            let platform = &site.platform;
            for path in [
                platform.kept_path(&site.name),
                platform.last_exit_path(&site.name),
            ] {
                if let Err(error) = persist::remove(&path) {
                    tracing::error!("{}: {error:#}", site.name);
                }
            }
            platform.disk.forget(&site.name);
            let logs = platform.log_dir(&site.name);
            match std::fs::remove_dir_all(&logs) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::error!("cannot remove {}: {error}", logs.display());
                }
                _ => {}
            }
        };
        // Err: the agent is ending.
        let _ = tokio::task::spawn_blocking(work).await;
    }
}
