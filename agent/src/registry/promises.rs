//! What definitions promise: told to the ledger as they come, change and go.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::Registry;
use crate::api::problem::Problem;
use crate::config::Definition;
use crate::promises::{Change, Claim, may_promise};
use crate::site::{Site, longest_wait};

impl Registry {
    /// What a site is promised under this definition, with what the operator has set since.
    fn claim_under(&self, definition: &Definition) -> Result<Claim, String> {
        let defaults = &self.platform.config.limits;
        let site = self.site(&definition.name);
        match site.filter(|site| !site.withdrawn()) {
            Some(site) => site.claim_under(definition),
            None if may_promise(definition, [defaults, &Default::default()]) => {
                Claim::of(&definition.limits_over(defaults), None)
            }
            None => Ok(Claim::default()),
        }
    }

    /// At the start: what fits is promised, in the order of the names; the rest is reported and treated as best effort.
    pub(super) async fn place_all(self: &Arc<Self>) {
        let mut all: Vec<Arc<Definition>> = self.definitions().iter().cloned().collect();
        // Patterns' vhosts that have overrides, or live.
        let woken = self.woken().into_iter().map(|site| site.definition());
        all.extend(woken);
        let defaults = &self.platform.config.limits;
        all.retain(|definition| {
            self.site(&definition.name).is_some()
                || may_promise(definition, [defaults, &Default::default()])
        });
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.dedup_by(|a, b| a.name == b.name);
        for definition in all {
            self.place_promise(&definition).await;
        }
    }

    /// A definition is about to be in force: so is what it promises, if there is room.
    pub(super) async fn place_promise(self: &Arc<Self>, definition: &Arc<Definition>) {
        self.place_promise_until(definition, longest_wait()).await;
    }

    async fn place_promise_until(self: &Arc<Self>, definition: &Arc<Definition>, until: Instant) {
        if let Some(site) = self.site(&definition.name).filter(|site| !site.withdrawn()) {
            return site.place_promise(Some(definition.clone()), until).await;
        }
        let claim = self.claim_under(definition).unwrap_or_else(|error| {
            tracing::error!("{}: {error}", definition.name);
            Claim::default()
        });
        let promises = &self.platform.promises;
        let change = promises.place(&definition.name, &definition.owner, claim);
        self.keep(change).await;
    }

    /// Has the ledger promise what a definition does, and carries it over to its vhost if that has been woken. While limits
    /// of that are being changed, all that is left waits its turn, but other definitions wait once, not for each step.
    pub(super) async fn carry_over(self: &Arc<Self>, definition: &Arc<Definition>) {
        let until = longest_wait();
        self.place_promise_until(definition, until).await;
        if let Some(site) = self.site(&definition.name).filter(|site| !site.withdrawn()) {
            site.redefine(definition.clone(), until).await;
            // Limits may have been set between the ledger's word and the definition's.
            site.place_promise(None, until).await;
        }
    }

    /// A definition is gone, and what it promised.
    pub(super) async fn take_promise_back(self: &Arc<Self>, name: &str) {
        let change = self.platform.promises.place(name, "", Claim::default());
        self.keep(change).await;
    }

    /// Of what the last agent had the kernel guarantee, keeps what still is.
    pub(super) async fn keep_memory(&self) {
        let platform = self.platform.clone();
        // Err: the agent is ending.
        let _ = tokio::task::spawn_blocking(move || platform.owners.keep_memory()).await;
    }

    async fn keep(&self, change: Change) {
        if change == Change::default() {
            return;
        }
        let platform = self.platform.clone();
        let told = tokio::task::spawn_blocking(move || platform.owners.keep_promises(&change));
        // Err: the agent is ending.
        let _ = told.await;
    }

    /// Promises what a definition that is about to be written promises, or says why that cannot be; `dry_run` only says it.
    pub(super) async fn admit_promise(
        &self,
        definition: &Definition,
        dry_run: bool,
    ) -> Result<(), Problem> {
        let name = &definition.name;
        let claim = self
            .claim_under(definition)
            .map_err(|why| Problem::bad_request(why).about(name))?;
        let change = self
            .platform
            .promises
            .admit(name, &definition.owner, claim, dry_run)
            .map_err(|why| Problem::conflict(format!("{name}: {why}")).about(name))?;
        self.keep(change).await;
        Ok(())
    }

    /// Promises that cannot be kept, as problems of the files that make them.
    pub(super) fn unkept(&self) -> Vec<Value> {
        let promises = &self.platform.promises;
        if !promises.ever() {
            return Vec::new();
        }
        let definitions = self.definitions();
        let show = |(site, why): (Arc<str>, String)| {
            let file = definitions.file_of(&site).unwrap_or(&site);
            json!({"file": file, "message": format!("{site} is treated as best effort: {why}")})
        };
        let mut all: Vec<Value> = promises.unkept().into_iter().map(show).collect();
        let memory = promises.memory();
        if let Some((level, most)) = self.platform.tree.memory_min_above()
            && memory > most
        {
            let bytes = |bytes| crate::promises::shown("memory", bytes);
            all.push(json!({"file": level, "message": format!(
                "its memory.min is {}, so of {} promised to sites not more is kept; raise it, or put the containers' cgroup \
                 at the top",
                bytes(most), bytes(memory)
            )}));
        }
        all
    }

    /// A pattern's vhost has been woken for the first time.
    pub(super) fn place_woken(self: &Arc<Self>, site: &Arc<Site>) {
        let Ok(claim) = site.claim_under(&site.definition()) else {
            return;
        };
        let change = self
            .platform
            .promises
            .place(&site.name, &site.owner(), claim);
        self.platform.owners.keep_promises(&change);
    }
}
