//! Containers of the last agent whose vhost has no definition that can be read: they live on as they are until it has one
//! again, or is certain to have none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::Registry;
use crate::platform::Platform;
use crate::site::{Found, Site};

/// By vhost.
#[derive(Default)]
pub(super) struct Unclaimed(Mutex<HashMap<String, Found>>);

impl Unclaimed {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Found>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, platform: &Platform, vhost: String, mut found: Found) {
        found.claim(platform);
        self.lock().insert(vhost, found);
    }

    fn take(&self, vhost: &str) -> Option<Found> {
        self.lock().remove(vhost)
    }

    fn vhosts(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }
}

impl Registry {
    /// A container that lives: its vhost takes it over, now or when it has a definition; of one that was removed while no
    /// agent ran it goes.
    pub(super) fn take_found(self: &Arc<Self>, vhost: String, found: Found) {
        self.unclaimed.hold(&self.platform, vhost.clone(), found);
        self.settle(vhost);
    }

    /// After definitions have changed.
    pub(super) fn settle_unclaimed(self: &Arc<Self>) {
        for vhost in self.unclaimed.vhosts() {
            self.settle(vhost);
        }
    }

    fn settle(self: &Arc<Self>, vhost: String) {
        // Whoever is woken claims it.
        if self.wake_known(&vhost).is_some() {
            return;
        }
        if !self.complete() {
            tracing::error!(
                "{vhost}: its container is left as it is until its definition can be read"
            );
        } else if let Some(found) = self.unclaimed.take(&vhost) {
            self.clear(found.remains(&self.platform), vhost);
        }
    }

    /// To a vhost that has just been woken, before anybody else can ask for it.
    pub(super) fn claim(&self, site: &Arc<Site>) {
        let Some(found) = self.unclaimed.take(&site.name) else {
            return;
        };
        match site.adopt(found) {
            Ok(()) => tracing::info!("{}: its container lives on", site.name),
            Err((remains, error)) => {
                tracing::error!("{}: cannot take its container over: {error:#}", site.name);
                site.clear_leftover(remains);
            }
        }
    }

    /// Those that nobody has claimed end, too.
    pub(super) async fn end_unclaimed(self: &Arc<Self>) {
        let found = std::mem::take(&mut *self.unclaimed.lock());
        for (vhost, found) in found {
            // Err: it could not be ended by a task that panicked.
            let _ = self.clear(found.remains(&self.platform), vhost).await;
        }
    }

    /// As problems.
    pub(super) fn unclaimed_problems(&self) -> Vec<Value> {
        let show = |vhost: String| {
            let why = format!(
                "the container of {vhost} runs, but cannot be reached before the definition can be read"
            );
            json!({"file": vhost, "message": why})
        };
        self.unclaimed.vhosts().into_iter().map(show).collect()
    }
}
