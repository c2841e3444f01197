//! Looks whether a container has come up against its limits, whenever its use is accounted: no task of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use super::Site;
use super::hits::{Hit, KINDS};
use crate::accounts::Watch;
use crate::config::Limits;
use crate::container::Container;

/// What all sites together have hit since the agent's start.
#[derive(Debug, Default)]
pub struct HitTotals([AtomicU64; KINDS]);

impl HitTotals {
    pub(super) fn add(&self, hit: Hit, new: u64) {
        self.0[hit as usize].fetch_add(new, Ordering::Relaxed);
    }

    /// One of them, as it is shown.
    pub fn get(&self, hit: Hit) -> Value {
        hit.amount(self.0[hit as usize].load(Ordering::Relaxed))
    }
}

impl Site {
    /// For the accounts, which look every few seconds.
    pub(super) fn watch(self: &Arc<Self>, new: bool) -> Watch {
        self.lock().hits.begin(new);
        let site = Arc::downgrade(self);
        Box::new(move |container, throttled| {
            site.upgrade()
                .is_some_and(|site| site.look(container, throttled))
        })
    }

    /// Whether there is more to be told later.
    fn look(&self, container: &Container, throttled: Option<u64>) -> bool {
        let group = container.group.limit_hits();
        let dropped = container.egress_dropped();
        // As of the look before: its storage may not answer.
        let space = self.platform.disk.recent(&self.name);
        let totals = &self.platform.hits;
        let (due, waits, limits, owner) = {
            let mut inner = self.lock();
            for (hit, counter) in [
                (Hit::Throttled, throttled),
                (Hit::Reclaimed, group.memory),
                (Hit::ForkRefused, group.forks),
                (Hit::EgressDropped, dropped),
            ] {
                let new = counter.map_or(0, |counter| inner.hits.note(hit, counter));
                totals.add(hit, new);
            }
            if let Some(space) = space {
                let new = inner.hits.note_space(space.used, space.limit);
                totals.add(Hit::DiskFull, new);
            }
            let due = inner.hits.due(Instant::now());
            if due.is_empty() {
                return inner.hits.waits();
            }
            let limits = inner.effective_limits(&self.platform.config.limits);
            (due, inner.hits.waits(), limits, inner.owner.clone())
        };
        for (hit, amount) in due {
            let (event, unit) = hit.event();
            let more =
                json!({"amount": hit.amount(amount), "unit": unit, "limit": limit(hit, &limits)});
            self.platform
                .events
                .emit(event, Some((&self.name, &owner)), more);
        }
        waits
    }
}

/// The limit in words; nothing where it is its owner's.
pub(super) fn limit(hit: Hit, limits: &Limits) -> Option<String> {
    let set = |key: &&crate::config::definition::LimitKey| limits.get(**key).is_some();
    let key = hit.limits().iter().find(set)?;
    limits.get(*key).map(|raw| key.show(raw))
}
