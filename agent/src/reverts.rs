//! When limits that are set for a time are over: one timer for all vhosts, which runs only while there are such limits.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;

use crate::site::Site;
use crate::time::unix_millis;

/// Somebody may have set the clock: that is seen after this time.
const LOOK: Duration = Duration::from_secs(60);
/// What could not be taken back is tried again so much later.
const RETRY: u64 = 10_000;

/// The vhosts with limits for a time, each with the moment at which the first of them is over.
#[derive(Default)]
pub struct Reverts {
    state: Mutex<State>,
    earlier: Notify,
}

#[derive(Default)]
struct State {
    order: BTreeSet<(u64, Arc<str>)>,
    sites: HashMap<Arc<str>, Entry>,
    tended: bool,
}

struct Entry {
    at: u64,
    site: Weak<Site>,
    /// It was tried before, in vain.
    again: bool,
}

impl Reverts {
    /// From now on this is when the vhost is looked at next; nothing if it has no limits for a time.
    pub fn follow(self: &Arc<Self>, site: &Arc<Site>, at: Option<u64>) {
        self.put(site, at, false);
    }

    fn put(self: &Arc<Self>, site: &Arc<Site>, at: Option<u64>, again: bool) {
        let mut state = self.lock();
        let known = state.sites.get(&site.name);
        // Another of the same name, defined anew, is not ours to forget.
        if at.is_none() && known.is_none_or(|entry| !std::ptr::eq(entry.site.as_ptr(), &**site)) {
            return;
        }
        if let Some(old) = state.sites.remove(&site.name) {
            state.order.remove(&(old.at, site.name.clone()));
        }
        let Some(at) = at else {
            return;
        };
        let site_of = Arc::downgrade(site);
        state.order.insert((at, site.name.clone()));
        let entry = Entry {
            at,
            site: site_of,
            again,
        };
        state.sites.insert(site.name.clone(), entry);
        if !state.tended {
            state.tended = true;
            tokio::spawn(run(self.clone()));
        } else if state.order.first().is_some_and(|(first, _)| *first == at) {
            self.earlier.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(reverts: Arc<Reverts>) {
    loop {
        let now = unix_millis();
        let (due, next) = {
            let mut state = reverts.lock();
            let mut due = Vec::new();
            while let Some((at, _)) = state.order.first()
                && *at <= now
            {
                let name = state.order.pop_first().map(|(_, name)| name);
                due.extend(name.and_then(|name| state.sites.remove(&name)));
            }
            let next = state.order.first().map(|(at, _)| *at);
            state.tended = next.is_some();
            (due, next)
        };
        for entry in due {
            if let Some(site) = entry.site.upgrade() {
                tokio::spawn(revert(reverts.clone(), site, entry.again));
            }
        }
        let Some(next) = next else {
            return;
        };
        let pause = Duration::from_millis(next.saturating_sub(now)).min(LOOK);
        // Elapsed: it is time, or time to look at the clock.
        let _ = tokio::time::timeout(pause, reverts.earlier.notified()).await;
    }
}

async fn revert(reverts: Arc<Reverts>, site: Arc<Site>, again: bool) {
    let Err(error) = site.revert_due().await else {
        return site.follow_temporary();
    };
    tracing::warn!(
        "{}: cannot take limits back whose time is over: {error:#}",
        site.name
    );
    if !again {
        let owner = site.owner();
        let more = json!({"cause": "not reverted", "detail": format!("{error:#}")});
        site.platform
            .events
            .emit("limits", Some((&site.name, &owner)), more);
    }
    reverts.put(&site, Some(unix_millis() + RETRY), true);
}
