//! Limits of a vhost while it runs: changed, read back, kept.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Site;
use crate::config::Limits;
use crate::config::definition::{LimitChange, LimitKey, LimitPatch};
use crate::container::{Container, documents, translate};
use crate::disk::{self, BelowUse};

/// How long storage may take to say which disk it is on.
const STORAGE_LIMIT: Duration = Duration::from_secs(2);

/// What a change of limits did.
#[derive(Debug)]
pub struct Changed {
    /// Old and new value of each, as they were and are in force.
    pub changes: Vec<LimitChange>,
    /// All limits in force, for the answer.
    pub in_force: Value,
}

impl Site {
    /// Changes limits: on the running container first, read back, then on disk. `dry_run` only says what would be.
    pub async fn set_limits(
        self: &Arc<Self>,
        patch: &LimitPatch,
        dry_run: bool,
    ) -> Result<Changed> {
        let _one_at_a_time = self.limits.lock().await;
        // A start under way has its limits already; they are changed once it is over.
        self.settled().await;
        let (definition, kept, container) = {
            let inner = self.lock();
            (
                inner.definition.clone(),
                inner.kept.clone(),
                inner.container.clone(),
            )
        };
        let defined = definition.limits_over(&self.platform.config.limits);
        let old = defined.merge(&kept.overrides);
        let overrides = kept.overrides.patched(patch);
        let new = defined.merge(&overrides);
        let mut probe = (*definition).clone();
        probe.limits = new.clone();
        if let Err(problems) = probe.validate(&self.platform.rules()) {
            let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::bail!("cannot set limits of {}: {}", self.name, words.join("; "));
        }
        if dry_run {
            return Ok(Changed {
                changes: Limits::diff(&old, &new),
                in_force: super::view::shown(&new),
            });
        }
        let changed = match container {
            Some(container) => {
                let before = self.in_force(&container)?;
                let after = self.enforce(&container, &new, BelowUse::Refuse).await?;
                let mut changes = Limits::diff(&before, &after);
                // Limits that no control group shows, such as open files, change with the next start.
                changes.extend(Limits::diff(&old, &new).into_iter().filter(|(key, ..)| {
                    before.get(*key).is_none()
                        && after.get(*key).is_none()
                        && key.name() == "nofile"
                }));
                Changed {
                    changes,
                    in_force: super::view::shown(&after),
                }
            }
            None => {
                // Refused now rather than at the next start.
                let disk = self.disk(&new, None).await?;
                translate(&new, disk.as_ref().map(AsFd::as_fd), false)?;
                // That holds for a site that sleeps, too.
                self.limit_disk(&new, BelowUse::Refuse).await?;
                Changed {
                    changes: Limits::diff(&old, &new),
                    in_force: super::view::shown(&new),
                }
            }
        };
        let (patch, base) = (patch.clone(), definition.limits.clone());
        let keep = self.change_kept(move |kept| {
            kept.overrides = kept.overrides.patched(&patch);
            kept.base = base;
        });
        if let Err(error) = keep.await {
            // What cannot be kept is not promised: back to what was.
            self.enforce_limits_now().await?;
            self.limit_disk(&old, BelowUse::Enforce).await?;
            return Err(error);
        }
        let shown: Vec<Value> = changed
            .changes
            .iter()
            .map(|(key, old, new)| json!({"key": key.name(), "old": old.map(|v| key.show(v)), "new": new.map(|v| key.show(v))}))
            .collect();
        self.platform.events.emit(
            "limits",
            Some((&self.name, &self.owner())),
            json!({"changes": shown}),
        );
        Ok(changed)
    }

    /// Applies what is in force by definition and operator to the running container, if there is one.
    pub(crate) async fn enforce_limits(self: &Arc<Self>) -> Result<()> {
        let _one_at_a_time = self.limits.lock().await;
        self.enforce_limits_now().await
    }

    async fn enforce_limits_now(self: &Arc<Self>) -> Result<()> {
        let (limits, container) = {
            let inner = self.lock();
            (
                inner.effective_limits(&self.platform.config.limits),
                inner.container.clone(),
            )
        };
        if let Some(container) = container {
            self.enforce(&container, &limits, BelowUse::Enforce).await?;
        }
        Ok(())
    }

    /// All limits in force on a container, read from the kernel.
    pub(super) fn in_force(&self, container: &Container) -> Result<Limits> {
        let mut limits = container.limits()?;
        self.platform.disk.add_in_force(&self.name, &mut limits)?;
        Ok(limits)
    }

    /// Limits disk space only. Returns the limit before.
    async fn limit_disk(&self, limits: &Limits, below_use: BelowUse) -> Result<Option<u64>> {
        let definition = self.definition();
        let path = definition.documents.as_deref();
        let wanted = limits.disk().is_some() || self.platform.disk.knows(&self.name);
        let documents = match path.filter(|_| wanted) {
            Some(path) => Some(documents::open(path, STORAGE_LIMIT).await?),
            None => None,
        };
        let tree = path.zip(documents.as_ref().map(|d| d.mount.as_fd()));
        disk::limit(&self.platform, &self.name, tree, limits, below_use).await
    }

    async fn enforce(
        self: &Arc<Self>,
        container: &Arc<Container>,
        limits: &Limits,
        below_use: BelowUse,
    ) -> Result<Limits> {
        let disk = self.disk(limits, Some(container)).await?;
        let wanted = translate(limits, disk.as_ref().map(AsFd::as_fd), true)?;
        let before = self.limit_disk(limits, below_use).await?;
        let (site, container, all) = (self.clone(), container.clone(), limits.clone());
        let work = move || -> Result<Limits> {
            let platform = &site.platform;
            container.limit_traffic(&all, || {
                platform.owners.enforce(&container.group, &wanted, false)
            })?;
            site.in_force(&container)
        };
        let done = tokio::task::spawn_blocking(work)
            .await
            .context("the task that writes the limits failed")?;
        if done.is_err() && before != limits.disk().and_then(|disk| disk.finite()) {
            let mut old = Limits::default();
            old.set(LimitKey::Disk, before);
            self.limit_disk(&old, BelowUse::Enforce).await?;
        }
        done
    }

    /// The documents, for the disk they are on: their storage is asked only where an I/O limit is or was set.
    async fn disk(
        &self,
        limits: &Limits,
        container: Option<&Container>,
    ) -> Result<Option<OwnedFd>> {
        let wanted = limits
            .iter()
            .any(|(key, _)| key != LimitKey::IoWeight && key.name().starts_with("io."));
        let had = match container {
            Some(container) => !container.group.read()?.io.is_empty(),
            None => false,
        };
        let path = self
            .definition()
            .documents
            .clone()
            .filter(|_| wanted || had);
        match path {
            Some(path) => Ok(Some(documents::open(&path, STORAGE_LIMIT).await?.mount)),
            None => Ok(None),
        }
    }
}
