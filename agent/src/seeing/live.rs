//! The vhosts that have a container now: whoever looks at these must not pay for those that sleep.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::machine::State;
use crate::site::Site;

/// Vhosts with a container, by name.
#[derive(Default)]
pub struct Live(Mutex<HashMap<Arc<str>, Arc<Site>>>);

impl Live {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Site>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A vhost is in this state from now on.
    pub(crate) fn follow(&self, site: &Arc<Site>, state: State) {
        if Self::has_container(state.word()) {
            self.lock().insert(site.name.clone(), site.clone());
        } else {
            self.lock().remove(&site.name);
        }
    }

    /// Whether vhosts in a state of this name have a container.
    pub fn has_container(state: &str) -> bool {
        matches!(
            state,
            "running" | "frozen" | "reclaimed" | "stopping" | "stuck"
        )
    }

    /// All of them, by name.
    pub fn sites(&self) -> Vec<Arc<Site>> {
        let mut sites: Vec<Arc<Site>> = self.lock().values().cloned().collect();
        sites.sort_by(|a, b| a.name.cmp(&b.name));
        sites
    }
}
