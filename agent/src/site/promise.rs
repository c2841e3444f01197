//! What a vhost is promised: by its definition, and by what the operator has set for good or for a time.

use std::sync::Arc;

use anyhow::Result;
use tokio::time::Instant;

use super::{Kept, Site};
use crate::config::{Definition, Limits};
use crate::promises::{Change, Claim, may_promise};
use crate::time::unix_millis;

impl Kept {
    /// What is promised under these limits of a definition, with room for what will be when changes for a time are over.
    pub(super) fn claim(&self, defined: &Limits, now: u64) -> Result<Claim, String> {
        let at = |time: u64| defined.merge(&self.overrides_at(time));
        Claim::of(&at(now), self.temporary.ends().map(at))
    }
}

impl Site {
    /// What it is promised under this definition.
    pub(crate) fn claim_under(&self, definition: &Definition) -> Result<Claim, String> {
        let mut kept = self.lock().kept.clone();
        kept.follow(definition);
        let defined = definition.limits_over(&self.platform.config.limits);
        kept.claim(&defined, unix_millis())
    }

    /// Whether its limits may hold a promise, now or later.
    pub(crate) fn may_promise(&self) -> bool {
        let inner = self.lock();
        let kept = &inner.kept;
        let times = std::iter::once(unix_millis()).chain(kept.temporary.ends());
        let mut overrides = times.map(|time| kept.overrides_at(time));
        let defaults = &self.platform.config.limits;
        overrides.any(|overrides| may_promise(&inner.definition, [defaults, &overrides]))
    }

    /// Has the ledger promise what a definition does, if there is room, and the kernel keep it; without one, that which is
    /// in force. Not while limits are being changed: what they promise would be forgotten. Waits for that until then.
    pub(crate) async fn place_promise(
        self: &Arc<Self>,
        definition: Option<Arc<Definition>>,
        until: Instant,
    ) {
        let site = self.clone();
        let work = tokio::spawn(async move {
            let _one_at_a_time = site.limits.lock().await;
            if site.withdrawn() {
                return;
            }
            let definition = definition.unwrap_or_else(|| site.definition());
            let claim = site.claim_under(&definition).unwrap_or_else(|error| {
                tracing::error!("{}: {error}", site.name);
                Claim::default()
            });
            site.claim_again(&definition.owner, claim).await;
        });
        // Elapsed: a change under way waits for its storage. Others are not kept waiting, and whoever comes last is last.
        let _ = tokio::time::timeout_at(until, work).await;
    }

    /// Has the ledger promise it and the kernel keep it, or says why that cannot be. How the change has ended that it is for
    /// is told by [`Self::claim_again`].
    pub(super) async fn claim(&self, owner: &str, claim: Claim, dry_run: bool) -> Result<()> {
        let promises = &self.platform.promises;
        let admitted = self.while_defined(|| promises.admit(&self.name, owner, claim, dry_run));
        match admitted {
            Some(admitted) => self.keep(admitted.map_err(anyhow::Error::msg)?).await,
            None => anyhow::bail!("{} is being removed", self.name),
        }
        Ok(())
    }

    /// What is promised after a change: what is asked for, or was before if it has failed, or is once the time of limits is
    /// over.
    pub(super) async fn claim_again(&self, owner: &str, claim: Claim) {
        let promises = &self.platform.promises;
        let placed = self.while_defined(|| promises.place(&self.name, owner, claim));
        if let Some(change) = placed {
            self.keep(change).await;
        }
    }

    /// Does it unless the vhost is being removed, which does not begin meanwhile: what is promised afterwards would be
    /// taken back by nobody.
    fn while_defined<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let inner = self.lock();
        (!inner.withdrawn).then(work)
    }

    async fn keep(&self, change: Change) {
        if change != Change::default() {
            let platform = self.platform.clone();
            let told = tokio::task::spawn_blocking(move || platform.owners.keep_promises(&change));
            // Err: the agent is ending.
            let _ = told.await;
        }
    }
}
