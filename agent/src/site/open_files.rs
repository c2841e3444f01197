//! Open files of a running site: changed live where the agent may, else with the next start.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};

use super::limits::Ask;
use super::{Kept, Site};
use crate::config::Limits;
use crate::config::definition::LimitKey;
use crate::container::{Container, DEFAULT_OPEN_FILES, OpenFiles, Still, raise_is_allowed};
use crate::disk::BelowUse;

/// When processes that did not stop are asked to once more: meanwhile those that do have to run.
const AGAIN: Duration = Duration::from_secs(60);

impl Site {
    /// Refuses what this agent could not do, now or when a time is over, before anything has changed.
    pub(super) fn check_open_files(
        &self,
        ask: &Ask,
        new: &Limits,
        keep: &Kept,
        container: Option<&Container>,
    ) -> Result<()> {
        let named = ask.patch.0.iter().any(|(key, _)| *key == LimitKey::Nofile);
        if !named {
            return Ok(());
        }
        if let (Some(wanted), Some(most)) = (new.nofile().and_then(|n| n.finite()), most())
            && wanted > most
        {
            bail!(
                "cannot set nofile of {} to {wanted}: this kernel lets no process have more than {most} (fs.nr_open)",
                self.name
            );
        }
        if raise_is_allowed() {
            return Ok(());
        }
        if let Some(container) = container
            && let Some(change) = container.open_files_change(new)?
            && change.is_refused()
        {
            bail!(change.refusal(&self.name));
        }
        let defined = self.definition().limits_over(&self.platform.config.limits);
        let now = crate::time::unix_millis();
        if ask.time.is_some()
            && keep.rises_later(LimitKey::Nofile, DEFAULT_OPEN_FILES, &defined, now)
        {
            bail!(
                "cannot set nofile of {} for a time: to raise it again when that is over takes CAP_SYS_RESOURCE, which the \
                 agent has not; leave the time out, or give the agent that capability",
                self.name
            );
        }
        Ok(())
    }

    /// What has to be done of its container's processes. Nobody may be there to be told of what cannot be: then the other
    /// limits are in force, and this one with the next start.
    pub(super) fn open_files_change(
        &self,
        container: &Container,
        limits: &Limits,
        below_use: BelowUse,
    ) -> Result<Option<OpenFiles>> {
        match container.open_files_change(limits)? {
            Some(change) if change.is_refused() && below_use == BelowUse::Enforce => {
                tracing::warn!("{}; the next start has it", change.refusal(&self.name));
                Ok(None)
            }
            Some(change) if change.is_refused() && limits.nofile() == self.limits().nofile() => {
                // It is as it was and nobody has asked for it.
                Ok(None)
            }
            Some(change) if change.is_refused() => bail!(change.refusal(&self.name)),
            change => Ok(change),
        }
    }

    /// Stops its container's processes for that change. If they do not stop and nobody is there to be told, the other limits
    /// must not wait for that: then it is tried again later.
    pub(super) fn stop_for_open_files<'a>(
        self: &Arc<Self>,
        container: &'a Arc<Container>,
        change: Option<OpenFiles>,
        below_use: BelowUse,
    ) -> Result<Option<(OpenFiles, Still<'a>)>> {
        let Some(change) = change else {
            return Ok(None);
        };
        match container.still_for_open_files() {
            Ok(still) => Ok(Some((change, still))),
            Err(error) if below_use == BelowUse::Enforce => {
                tracing::warn!("{error:#}; all other limits are in force, this one is tried again");
                self.enforce_later(container);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn enforce_later(self: &Arc<Self>, container: &Arc<Container>) {
        if container.told_again.swap(true, Ordering::AcqRel) {
            return;
        }
        let (site, container) = (Arc::downgrade(self), Arc::downgrade(container));
        tokio::spawn(async move {
            tokio::time::sleep(AGAIN).await;
            let (Some(site), Some(container)) = (site.upgrade(), container.upgrade()) else {
                return;
            };
            container.told_again.store(false, Ordering::Release);
            drop(container);
            if let Err(error) = site.enforce_limits().await {
                tracing::error!("{}: {error:#}", site.name);
            }
        });
    }

    /// Whether another definition's limit takes another container.
    pub(super) fn needs_restart_for(&self, limits: &Limits) -> bool {
        let Some(container) = self.container() else {
            return false;
        };
        let change = container.open_files_change(limits);
        matches!(change, Ok(Some(change)) if change.is_refused())
    }

    /// A command that has just begun in its container, with this hard limit: the limits may have changed meanwhile.
    pub(crate) async fn follow_open_files(&self, container: &Arc<Container>, given: u64) {
        if container.last_open_files().is_none_or(|last| last == given) {
            return;
        }
        let _one_at_a_time = self.limits.lock().await;
        let Some(wanted) = container.last_open_files() else {
            return;
        };
        let change = OpenFiles {
            before: given,
            wanted,
        };
        if change.is_refused() {
            return;
        }
        let done = tokio::task::block_in_place(|| {
            let still = container.still_for_open_files()?;
            container.limit_open_files(Some((change, still)), || Ok(()))
        });
        if let Err(error) = done {
            tracing::warn!("{error:#}");
        }
    }
}

/// More the kernel lets no process have; None if it does not say.
fn most() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/fs/nr_open").ok()?;
    text.trim().parse().ok()
}

/// Puts it beside the limits that control groups show, of before and after, where it is a limit or was changed.
pub(super) fn show(
    container: &Container,
    limits: &Limits,
    change: Option<OpenFiles>,
    [before, after]: [&mut Limits; 2],
) {
    match change {
        Some(change) => {
            before.set(LimitKey::Nofile, Some(change.before));
            // Err: its command has ended.
            after.set(LimitKey::Nofile, container.open_files().ok());
        }
        None if limits.nofile().is_some() => {
            let last = container.last_open_files();
            before.set(LimitKey::Nofile, last);
            after.set(LimitKey::Nofile, last);
        }
        None => {}
    }
}
