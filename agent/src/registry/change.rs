//! Changes of definitions: by files, and by the API, which writes files.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::Registry;
use crate::api::problem::Problem;
use crate::config::Definition;
use crate::config::store::Change;
use crate::config::store::{file_name, remove_definition, write_definition};
use crate::machine::State;
use crate::site::Site;

/// How long storage may keep others from changing definitions.
const STORAGE_LIMIT: Duration = Duration::from_secs(2);

/// What `put` did.
#[derive(Debug)]
pub enum Placed {
    /// There was no such vhost.
    Created,
    /// Nothing differs.
    Unchanged,
    /// What differs: `{"key","old","new"}`.
    Changed(Vec<Value>),
}

impl Registry {
    /// Creates or changes a vhost: the definition is on disk when this returns.
    pub async fn put(
        self: &Arc<Self>,
        definition: Definition,
        dry_run: bool,
    ) -> Result<Placed, Problem> {
        let name = definition.name.clone();
        let bad = |text: String| Problem::bad_request(text).about(&name);
        definition
            .validate(&self.platform.rules())
            .map_err(|problems| {
                let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
                bad(format!(
                    "the definition of {name} is not valid: {}",
                    words.join("; ")
                ))
            })?;
        let _one_at_a_time = self.changing.lock().await;
        let (existing, file) = {
            let definitions = self.definitions();
            let file = match definitions
                .get(&name)
                .and_then(|_| definitions.file_of(&name))
            {
                Some(file) => file.to_owned(),
                None => file_name(&name).map_err(|p| bad(p.to_string()))?,
            };
            if let Some(conflict) = definitions.conflicts(&file, &definition).first() {
                return Err(Problem::conflict(conflict.to_string()).about(&name));
            }
            (definitions.get(&name).cloned(), file)
        };
        self.within_budget(&definition)?;
        let placed = match &existing {
            None => Placed::Created,
            Some(old) if **old == definition => Placed::Unchanged,
            Some(old) => Placed::Changed(differences(old, &definition)),
        };
        let old = existing.filter(|_| !dry_run);
        if matches!(placed, Placed::Unchanged) {
            return Ok(placed);
        }
        self.admit_promise(&definition, dry_run).await?;
        if dry_run {
            return Ok(placed);
        }
        let text = definition.to_toml().map_err(|p| bad(p.to_string()))?;
        let (dir, target) = (self.platform.config.vhosts_dir.clone(), file.clone());
        let written =
            tokio::task::spawn_blocking(move || write_definition(&dir, &target, &definition))
                .await
                .map_err(|e| Problem::internal(e.to_string()))?;
        if let Err(problem) = written {
            // What is not written is not promised either.
            match old {
                Some(old) => self.place_promise(&old).await,
                None => self.take_promise_back(&name).await,
            }
            return Err(Problem::internal(problem.to_string()).about(&name));
        }
        // In force now, not only when the watch has seen the file.
        let changes = self
            .definitions
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .apply_change(&file, Some(&text));
        self.apply(changes).await;
        Ok(placed)
    }

    /// Removes a vhost's definition and ends its container; returns the state reached.
    pub async fn delete(self: &Arc<Self>, name: &str) -> Result<State, Problem> {
        let one_at_a_time = self.changing.lock().await;
        let file = {
            let definitions = self.definitions();
            definitions
                .get(name)
                .and_then(|_| definitions.file_of(name))
                .map(str::to_owned)
        };
        let Some(file) = file else {
            if self.pattern_definition(name).is_some() && self.find(name, &|_| true).await.is_ok() {
                return Err(Problem::conflict(format!(
                    "{name} comes from a directory pattern; remove its directory instead"
                ))
                .about(name));
            }
            return Err(Problem::unknown_vhost(name));
        };
        let (dir, target) = (self.platform.config.vhosts_dir.clone(), file.clone());
        tokio::task::spawn_blocking(move || remove_definition(&dir, &target))
            .await
            .map_err(|e| Problem::internal(e.to_string()))?
            .map_err(|p| Problem::internal(p.to_string()).about(name))?;
        let site = self.site(name);
        let changes = self
            .definitions
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .apply_change(&file, None);
        self.apply(changes).await;
        drop(one_at_a_time);
        let Some(site) = site else {
            return Ok(State::Gone);
        };
        let state = site.settled().await;
        if state == State::Gone {
            // Whoever is defined under this name next inherits nothing.
            site.forgotten().await;
        }
        Ok(state)
    }

    /// Carries changes of definitions over to the vhosts that have been woken.
    pub(super) async fn apply(self: &Arc<Self>, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Added(definition)
                | Change::Changed {
                    new: definition, ..
                } => {
                    self.platform.events.emit(
                        "definition",
                        Some((&(&*definition.name).into(), &(&*definition.owner).into())),
                        json!({"change": "in force"}),
                    );
                    self.carry_over(&definition).await;
                }
                Change::Removed(definition) => {
                    self.take_promise_back(&definition.name).await;
                    match self.site(&definition.name) {
                        Some(site) => self.withdraw(site),
                        None => self.forget_disk(vec![(&*definition.name).into()]).await,
                    }
                }
                Change::Problem(problem) => {
                    tracing::error!("{problem}");
                    self.platform.events.emit(
                        "problem",
                        None,
                        json!({"file": problem.file, "detail": problem.to_string()}),
                    );
                }
                Change::Solved(file) => {
                    self.platform
                        .events
                        .emit("solved", None, json!({"file": &*file}));
                    self.forget_gone().await;
                }
            }
        }
        self.settle_unclaimed();
    }

    /// Lifts limits of disk space of vhosts that are not defined any more.
    pub(super) async fn forget_disk(&self, vhosts: Vec<Arc<str>>) {
        let platform = self.platform.clone();
        let gone: Vec<_> = vhosts
            .into_iter()
            .filter(|vhost| platform.disk.knows(vhost))
            .collect();
        if !gone.is_empty() {
            let work = tokio::task::spawn_blocking(move || {
                gone.iter().for_each(|vhost| platform.disk.forget(vhost));
            });
            // Elapsed: their storage does not answer; it is done when it does.
            let _ = tokio::time::timeout(STORAGE_LIMIT, work).await;
        }
    }

    /// Ends a vhost whose definition is gone, and forgets it afterwards.
    pub(super) fn withdraw(self: &Arc<Self>, site: Arc<Site>) {
        let ending = site.begin_withdrawal();
        let registry = self.clone();
        tokio::spawn(async move {
            let _ending = ending;
            site.until_gone().await;
            let _unchanging = site.unchanging().await;
            site.forget_everything().await;
            registry.take_promise_back(&site.name).await;
            registry.forget(&site);
            // Defined anew meanwhile: that is promised to another.
            let again = registry.definitions().get(&site.name).cloned();
            if let Some(definition) = again {
                registry.place_promise(&definition).await;
            }
        });
    }
}

/// What differs between two definitions, by key of their JSON, `a.b` for tables.
fn differences(old: &Definition, new: &Definition) -> Vec<Value> {
    let flat = |definition: &Definition| {
        let mut all = std::collections::BTreeMap::new();
        flatten("", &json!(definition), &mut all);
        all
    };
    let (old, new) = (flat(old), flat(new));
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| json!({"key": key, "old": old.get(key), "new": new.get(key)}))
        .collect()
}

fn flatten(prefix: &str, value: &Value, all: &mut std::collections::BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}.{key}")
                };
                flatten(&key, value, all);
            }
        }
        other => {
            all.insert(prefix.to_owned(), other.clone());
        }
    }
}
