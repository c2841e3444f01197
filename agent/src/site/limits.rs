//! Limits of a vhost while it runs: changed, read back, kept.

use std::os::fd::AsFd;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Kept, Site};
use crate::config::Limits;
use crate::config::definition::{LimitChange, LimitPatch};
use crate::container::{Container, documents, in_force, translate};

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
        let (definition, kept, container) = {
            let inner = self.lock();
            (
                inner.definition.clone(),
                inner.kept.clone(),
                inner.container.clone(),
            )
        };
        let defined = self.platform.config.limits.merge(&definition.limits);
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
                let before = in_force(&container.group.read()?);
                let after = self.enforce(&container, &new).await?;
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
                translate(&new, None, false).or_else(|_| self.translated(&new))?;
                Changed {
                    changes: Limits::diff(&old, &new),
                    in_force: super::view::shown(&new),
                }
            }
        };
        self.store(Kept {
            overrides,
            base: definition.limits.clone(),
            ..kept
        })
        .await?;
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
        let (limits, container) = {
            let inner = self.lock();
            (
                inner.effective_limits(&self.platform.config.limits),
                inner.container.clone(),
            )
        };
        if let Some(container) = container {
            self.enforce(&container, &limits).await?;
        }
        Ok(())
    }

    async fn enforce(
        self: &Arc<Self>,
        container: &Arc<Container>,
        limits: &Limits,
    ) -> Result<Limits> {
        let (site, container, limits) = (self.clone(), container.clone(), limits.clone());
        let work = move || -> Result<Limits> {
            let wanted = site.translated_live(&limits)?;
            container.group.apply(&wanted)?;
            Ok(in_force(&container.group.read()?))
        };
        tokio::task::spawn_blocking(work)
            .await
            .context("the task that writes the limits failed")?
    }

    fn translated(&self, limits: &Limits) -> Result<cgroup::Limits> {
        let documents = self.documents()?;
        translate(limits, documents.as_ref().map(AsFd::as_fd), false)
    }

    fn translated_live(&self, limits: &Limits) -> Result<cgroup::Limits> {
        let documents = self.documents()?;
        translate(limits, documents.as_ref().map(AsFd::as_fd), true)
    }

    /// The documents' directory, for the disk it is on.
    fn documents(&self) -> Result<Option<std::os::fd::OwnedFd>> {
        match &self.definition().documents {
            Some(path) => Ok(Some(documents::open_now(path)?)),
            None => Ok(None),
        }
    }

    /// Drops overrides of limits that the definition has changed since: the last word of the operator counts.
    pub(super) async fn forget_obsolete_overrides(self: &Arc<Self>) {
        let (definition, mut kept) = {
            let inner = self.lock();
            (inner.definition.clone(), inner.kept.clone())
        };
        let changed = Limits::diff(&kept.base, &definition.limits);
        let before = kept.overrides.clone();
        for (key, ..) in changed {
            kept.overrides.set(key, None);
        }
        kept.base = definition.limits.clone();
        if kept.overrides != before
            && let Err(error) = self.store(kept).await
        {
            tracing::error!("{}: {error:#}", self.name);
        }
    }

    /// On disk first, then in memory.
    async fn store(self: &Arc<Self>, kept: Kept) -> Result<()> {
        let site = self.clone();
        let write = move || -> Result<()> {
            site.keep(&kept)?;
            let mut inner = site.lock();
            // `down` may have been changed meanwhile by its own path.
            let down = inner.kept.down;
            inner.kept = Kept { down, ..kept };
            Ok(())
        };
        tokio::task::spawn_blocking(write)
            .await
            .context("the task that writes the state failed")?
    }
}
