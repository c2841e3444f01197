//! Containers of the last agent whose vhost has no definition that can be read: they live on as they are until it has one
//! again, or is certain to have none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::Registry;
use crate::platform::Platform;
use crate::site::{Found, Site};

/// Who has them, decided under one lock: the vhost that is woken, or whoever ends them.
#[derive(Default)]
pub(super) struct Unclaimed(Mutex<Held>);

/// By vhost.
#[derive(Default)]
struct Held {
    found: HashMap<String, Found>,
    /// Of which something is being removed, and of how many containers.
    clearing: HashMap<String, watch::Sender<usize>>,
}

impl Held {
    fn begin_clearing(&mut self, vhost: String) {
        let count = self.clearing.entry(vhost).or_default();
        count.send_modify(|count| *count += 1);
    }
}

/// Something is left of its last container that has to go first.
pub(super) struct BeingCleared;

impl Unclaimed {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, platform: &Platform, vhost: String, mut found: Found) {
        found.claim(platform);
        self.lock().found.insert(vhost, found);
    }

    /// For its vhost.
    pub(super) fn take(&self, vhost: &str) -> Result<Option<Found>, BeingCleared> {
        let mut held = self.lock();
        if held.clearing.contains_key(vhost) {
            return Err(BeingCleared);
        }
        Ok(held.found.remove(vhost))
    }

    /// To be ended.
    fn take_to_clear(&self, vhost: &str) -> Option<Found> {
        let mut held = self.lock();
        let found = held.found.remove(vhost)?;
        held.begin_clearing(vhost.to_owned());
        Some(found)
    }

    pub(super) fn begin_clearing(&self, vhost: &str) {
        self.lock().begin_clearing(vhost.to_owned());
    }

    pub(super) fn end_clearing(&self, vhost: &str) {
        let mut held = self.lock();
        if let Some(count) = held.clearing.get(vhost) {
            count.send_modify(|count| *count -= 1);
            if *count.borrow() == 0 {
                held.clearing.remove(vhost);
            }
        }
    }

    /// How many of its containers are being removed, if any is.
    pub(super) fn clearing(&self, vhost: &str) -> Option<watch::Receiver<usize>> {
        self.lock()
            .clearing
            .get(vhost)
            .map(watch::Sender::subscribe)
    }

    pub(super) fn being_cleared(&self) -> Vec<String> {
        self.lock().clearing.keys().cloned().collect()
    }

    pub(super) fn vhosts(&self) -> Vec<String> {
        self.lock().found.keys().cloned().collect()
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
        // One that cannot be woken may still be defined.
        if self.complete() && !self.is_defined(&vhost) {
            self.end_found(vhost);
        } else {
            tracing::error!(
                "{vhost}: its container is left as it is until its definition, and what is kept of it, can be read"
            );
        }
    }

    pub(super) fn end_found(self: &Arc<Self>, vhost: String) {
        if let Some(found) = self.unclaimed.take_to_clear(&vhost) {
            self.clear(found.remains(&self.platform), vhost);
        }
    }

    /// To a vhost that has just been woken, before anybody else can ask for it.
    pub(super) fn give(site: &Arc<Site>, found: Found) {
        match site.adopt(found) {
            Ok(()) => tracing::info!("{}: its container lives on", site.name),
            Err((remains, error)) => {
                tracing::error!("{}: cannot take its container over: {error:#}", site.name);
                site.clear_leftover(remains);
            }
        }
    }

    /// As problems.
    pub(super) fn unclaimed_problems(&self) -> Vec<Value> {
        let show = |vhost: String| {
            let why = "its container runs, but cannot be reached before its definition, and what is kept of it, can be read";
            json!({"vhost": vhost, "message": why})
        };
        self.unclaimed.vhosts().into_iter().map(show).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_nobodys_until_all_that_was_left_of_it_is_gone() {
        let unclaimed = Unclaimed::default();
        let is_free = || matches!(unclaimed.take("a"), Ok(None));
        assert!(is_free() && unclaimed.clearing("a").is_none());
        // Two containers of one name, which two owners had.
        unclaimed.begin_clearing("a");
        unclaimed.begin_clearing("a");
        let count = unclaimed.clearing("a");
        let left = || count.as_ref().map(|count| *count.borrow());
        for expected in [2, 1] {
            assert_eq!(left(), Some(expected));
            assert!(!is_free() && matches!(unclaimed.take("b"), Ok(None)));
            unclaimed.end_clearing("a");
        }
        assert_eq!(left(), Some(0), "whoever waits is told");
        assert!(is_free() && unclaimed.clearing("a").is_none());
    }
}
