//! Limits of a vhost while it runs: changed, read back, kept.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cgroup::{IoLimit, Setting};
use serde_json::{Value, json};

use super::{Kept, Site};
use crate::config::definition::{LimitChange, LimitKey, LimitPatch};
use crate::config::{Definition, Limits};
use crate::container::documents::{self, Documents};
use crate::container::{Container, translate};
use crate::disk::{self, BelowUse, Quota};
use crate::machine::State;
use crate::time::{moment, unix_millis};

/// How long storage may take to say which disk it is on.
const STORAGE_LIMIT: Duration = Duration::from_secs(2);

/// What a change of limits did.
#[derive(Debug)]
pub(crate) struct Changed {
    /// Old and new value of each, as they were and are in force.
    pub changes: Vec<LimitChange>,
    /// All limits in force, for the answer.
    pub in_force: Value,
    /// Those of them that are for a time, with its end.
    pub temporary: Value,
    /// How long it took until the kernel kept them and had been asked again; zero for a dry run.
    pub applied: Duration,
}

/// Changes as events tell them.
pub(super) fn events(changes: &[LimitChange]) -> Vec<Value> {
    let changes = changes.iter();
    changes
        .map(|(key, old, new)| json!({"key": key.name(), "old": old.map(|v| key.show(v)), "new": new.map(|v| key.show(v))}))
        .collect()
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ask {
    /// The limits.
    pub(crate) patch: LimitPatch,
    /// Only say what would be.
    pub(crate) dry_run: bool,
    /// For how long; nothing is for good.
    pub(crate) time: Option<Duration>,
}

/// Lifts what is in force and not asked for: limits that not every host has, which a change left alone that does not name
/// them, and rates of disks other than the documents'.
fn lift_others(wanted: &mut cgroup::Limits, found: &cgroup::Limits) {
    let lift = |wanted: &mut Setting<u64>, found: Setting<u64>| {
        if wanted.is_keep() && found.value().is_some() {
            *wanted = Setting::Max;
        }
    };
    lift(&mut wanted.memory_high, found.memory_high);
    lift(&mut wanted.memory_min, found.memory_min);
    lift(&mut wanted.swap_max, found.swap_max);
    if found.io_weight != Setting::To(100) {
        lift(&mut wanted.io_weight, found.io_weight);
    }
    for io in &found.io {
        if wanted.io.iter().all(|known| known.device != io.device) {
            let rate = Setting::Max;
            wanted.io.push(IoLimit {
                device: io.device,
                read_bps: rate,
                write_bps: rate,
                read_iops: rate,
                write_iops: rate,
            });
        }
    }
}

/// Whether the kernel may have to take memory back before it can say yes: that takes as long as it takes.
fn takes_memory(wanted: &cgroup::Limits, found: &cgroup::Limits) -> bool {
    let all = [
        (wanted.memory_max, found.memory_max),
        (wanted.memory_high, found.memory_high),
        (wanted.swap_max, found.swap_max),
    ];
    all.into_iter()
        .any(|(wanted, found)| match (wanted.value(), found.value()) {
            (Some(wanted), Some(found)) => wanted < found,
            (wanted, _) => wanted.is_some(),
        })
}

impl Site {
    /// Changes limits: on the running container first, read back, then on disk.
    pub(crate) async fn set_limits(self: &Arc<Self>, ask: &Ask) -> Result<Changed> {
        let _one_at_a_time = self.limits.lock().await;
        // A start under way has its limits already; they are changed once it is over.
        self.settled().await;
        if self.withdrawn() {
            anyhow::bail!("{} is being removed", self.name);
        }
        self.revert_before_a_change().await;
        let (definition, kept, container) = {
            let inner = self.lock();
            (
                inner.definition.clone(),
                inner.kept.clone(),
                inner.container.clone(),
            )
        };
        let now = unix_millis();
        let until = ask
            .time
            .map(|time| now + u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2));
        if until.is_some()
            && let Err(why) = kept.check_temporary()
        {
            anyhow::bail!("cannot set limits of {} for a time: {why}", self.name);
        }
        let defined = definition.limits_over(&self.platform.config.limits);
        let old = defined.merge(&kept.overrides_at(now));
        let before = kept.claim(&defined, now).unwrap_or_default();
        let mut keep = kept;
        keep.change(&ask.patch, until);
        let new = defined.merge(&keep.overrides_at(now));
        self.check_limits(&definition, &keep, now)?;
        self.check_open_files(ask, &new, &keep, container.as_deref())?;
        let claim = keep.claim(&defined, now).map_err(anyhow::Error::msg)?;
        let owner = self.owner();
        self.claim(&owner, claim, ask.dry_run)
            .await
            .with_context(|| format!("cannot set limits of {}", self.name))?;
        let temporary = super::revert::shown(&keep, &defined, now);
        if ask.dry_run {
            self.check_disk(&new).await?;
            return Ok(Changed {
                changes: Limits::diff(&old, &new),
                in_force: super::view::shown(&new),
                temporary,
                applied: Duration::ZERO,
            });
        }
        let asleep = container.is_none();
        let began = Instant::now();
        let changed = self.change_limits(&old, &new, container).await;
        let applied = began.elapsed();
        let (changes, in_force) = match changed {
            Ok(changed) => changed,
            Err(error) => {
                self.claim_again(&owner, before).await;
                let named = |key| ask.patch.0.iter().any(|(one, _)| *one == key);
                // The other limits may be in force already.
                if named(LimitKey::Nofile)
                    && let Err(undo) = self.enforce_limits_now().await
                {
                    return Err(error.context(format!("the old limits are not back: {undo:#}")));
                }
                return Err(error);
            }
        };
        let (patch, base) = (ask.patch.clone(), definition.limits.clone());
        let keep = self.change_kept(move |kept| {
            kept.change(&patch, until);
            kept.base = base;
        });
        if let Err(error) = keep.await {
            // What cannot be kept is not promised: back to what was.
            self.claim_again(&owner, before).await;
            self.enforce_limits_now().await?;
            return Err(error);
        }
        // Only now is what it gives up somebody else's.
        self.claim_again(&owner, claim).await;
        if self.withdrawn() {
            anyhow::bail!("{} is being removed", self.name);
        }
        if asleep && self.settled().await != State::Stopped {
            // Started meanwhile, with what was in force when that began.
            self.enforce_limits_now().await?;
        }
        let mut more = json!({"changes": events(&changes)});
        if let Some(until) = until {
            more["until"] = json!(moment(until));
        }
        self.platform
            .events
            .emit("limits", Some((&self.name, &self.owner())), more);
        Ok(Changed {
            changes,
            in_force: super::view::shown(&in_force),
            temporary,
            applied,
        })
    }

    /// Whether the limits make sense together, now and whenever one that is for a time is over.
    fn check_limits(&self, definition: &Definition, kept: &Kept, now: u64) -> Result<()> {
        let mut probe = definition.clone();
        for at in std::iter::once(now).chain(kept.temporary.ends()) {
            let defined = definition.limits_over(&self.platform.config.limits);
            probe.limits = defined.merge(&kept.overrides_at(at));
            if let Err(problems) = probe.validate(&self.platform.rules()) {
                let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
                let when = match at == now {
                    true => String::new(),
                    false => format!(", as they will be from {} on", moment(at)),
                };
                anyhow::bail!(
                    "cannot set limits of {}{when}: {}",
                    self.name,
                    words.join("; ")
                );
            }
        }
        Ok(())
    }

    /// Whom the kernel ends first is decided by the class.
    pub(super) async fn order_for_oom(self: &Arc<Self>, container: &Arc<Container>) {
        let (site, container) = (self.clone(), container.clone());
        let work = tokio::task::spawn_blocking(move || site.order_for_oom_now(&container));
        // Err: the agent is ending.
        let _ = work.await;
    }

    fn order_for_oom_now(&self, container: &Container) {
        super::oom_order::apply(container, self.platform.promises.of(&self.name).cpu > 0);
    }

    /// In force, but not kept yet: what has changed, and all limits.
    async fn change_limits(
        self: &Arc<Self>,
        old: &Limits,
        new: &Limits,
        container: Option<Arc<Container>>,
    ) -> Result<(Vec<LimitChange>, Limits)> {
        let Some(container) = container else {
            // Refused now rather than at the next start.
            let disk = self.disk(new, false).await?;
            translate(new, disk.as_ref().map(AsFd::as_fd), false)?;
            // That holds for a site that sleeps, too.
            self.limit_disk(new, BelowUse::Refuse).await?;
            return Ok((Limits::diff(old, new), new.clone()));
        };
        let (before, mut after) = self.enforce(&container, new, BelowUse::Refuse).await?;
        let mut changes = Limits::diff(&before, &after);
        if new.nofile().is_none() {
            after.set(LimitKey::Nofile, None);
        }
        // Nothing shows it.
        after.set(LimitKey::Class, new.get(LimitKey::Class));
        changes.extend(
            Limits::diff(old, new)
                .into_iter()
                .filter(|(key, ..)| *key == LimitKey::Class),
        );
        Ok((changes, after))
    }

    /// Applies what is in force by definition and operator to the running container, if there is one.
    pub(crate) async fn enforce_limits(self: &Arc<Self>) -> Result<()> {
        let _one_at_a_time = self.limits.lock().await;
        self.revert_before_a_change().await;
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
        match container {
            Some(container) => {
                self.enforce(&container, &limits, BelowUse::Enforce).await?;
            }
            // Its documents are limited while it sleeps; those that never were are with its next start.
            None if self.platform.disk.knows(&self.name) => {
                self.limit_disk(&limits, BelowUse::Enforce).await?;
            }
            None => {}
        }
        Ok(())
    }

    /// All limits in force on a container, read from the kernel.
    pub(super) fn in_force(&self, container: &Container) -> Result<Limits> {
        let quota = self.platform.disk.quota(&self.name).transpose()?;
        self.in_force_with(container, quota)
    }

    /// [`Self::in_force`] for who knows the quota, if there is or was one.
    pub(super) fn in_force_with(
        &self,
        container: &Container,
        quota: Option<Quota>,
    ) -> Result<Limits> {
        let mut limits = container.limits()?;
        if self.limits().nofile().is_some() {
            // Err: its command has ended.
            limits.set(LimitKey::Nofile, container.open_files().ok());
        }
        if let Some(quota) = quota {
            limits.set(LimitKey::Disk, quota.limit);
        }
        Ok(limits)
    }

    /// Limits disk space only. Returns the limit before.
    pub(super) async fn limit_disk(
        &self,
        limits: &Limits,
        below_use: BelowUse,
    ) -> Result<Option<u64>> {
        let definition = self.definition();
        let path = definition.documents.as_deref();
        let documents = self.documents_for_disk(limits, path).await?;
        let tree = path.zip(documents.as_ref().map(|d| d.mount.as_fd()));
        disk::limit(&self.platform, &self.name, tree, limits, below_use).await
    }

    /// Refuses a limit of disk space as [`Self::limit_disk`] would; changes nothing.
    async fn check_disk(&self, limits: &Limits) -> Result<()> {
        let definition = self.definition();
        let path = definition.documents.as_deref();
        let documents = self.documents_for_disk(limits, path).await?;
        let tree = path.zip(documents.as_ref().map(|d| d.mount.as_fd()));
        disk::check(&self.platform, &self.name, tree, limits).await
    }

    /// The documents, where a limit of disk space has to be set or lifted.
    async fn documents_for_disk(
        &self,
        limits: &Limits,
        path: Option<&Path>,
    ) -> Result<Option<Documents>> {
        let wanted = limits.disk().is_some() || self.platform.disk.knows(&self.name);
        match path.filter(|_| wanted) {
            Some(path) => Ok(Some(documents::open(path, STORAGE_LIMIT).await?)),
            None => Ok(None),
        }
    }

    /// Puts limits in force on a running container; all that were and all that are now, as the kernel says.
    ///
    /// Control groups are written on this thread: to wake another takes longer than they do, and with all processors busy
    /// ten times longer. What else it has to do is handed on where that may take longer: see [`Self::is_quick`].
    pub(super) async fn enforce(
        self: &Arc<Self>,
        container: &Arc<Container>,
        limits: &Limits,
        below_use: BelowUse,
    ) -> Result<(Limits, Limits)> {
        let files = self.open_files_change(container, limits, below_use)?;
        let found = container.group.read()?;
        let disk = self.disk(limits, !found.io.is_empty()).await?;
        let quota = self.limit_disk(limits, below_use).await?;
        let mut wanted = translate(limits, disk.as_ref().map(AsFd::as_fd), true)?;
        lift_others(&mut wanted, &found);
        let quick =
            !takes_memory(&wanted, &found) && files.is_none() && self.is_quick(container, limits);
        let write = || -> Result<(Limits, Limits)> {
            let mut before = container.limits_with(&found)?;
            let files = self.stop_for_open_files(container, files, below_use)?;
            let change = files.as_ref().map(|(change, _)| *change);
            let got = container.limit_traffic(limits, || {
                let owners = &self.platform.owners;
                let disk = container.record.disk();
                container.limit_open_files(files, || {
                    owners.enforce(&container.group, &wanted, disk, false)
                })
            })?;
            if self.platform.promises.ever() {
                self.order_for_oom_now(container);
            }
            let mut after = container.limits_with(&got.over(&found))?;
            let quota = self.platform.disk.quota(&self.name).transpose()?;
            after.set(LimitKey::Disk, quota.and_then(|quota| quota.limit));
            super::open_files::show(container, limits, change, [&mut before, &mut after]);
            Ok((before, after))
        };
        let done = match quick {
            true => write(),
            false => tokio::task::block_in_place(write),
        };
        if done.is_err() && quota != limits.disk().and_then(|disk| disk.finite()) {
            let mut old = Limits::default();
            old.set(LimitKey::Disk, quota);
            self.limit_disk(&old, BelowUse::Enforce).await?;
        }
        let (mut before, after) = done?;
        before.set(LimitKey::Disk, quota);
        Ok((before, after))
    }

    /// Whether nothing is to be told but the container's own control group: no link, no owner's group, no process.
    fn is_quick(&self, container: &Container, limits: &Limits) -> bool {
        let platform = &self.platform;
        !platform.promises.ever()
            && container.has_no_rates(limits)
            && platform.owners.is_quick(&container.group)
    }

    /// The documents, for the disk they are on: their storage is asked only where an I/O limit is or was set.
    async fn disk(&self, limits: &Limits, had: bool) -> Result<Option<OwnedFd>> {
        let wanted = limits
            .iter()
            .any(|(key, _)| key != LimitKey::IoWeight && key.name().starts_with("io."));
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
