//! Lists and counts of vhosts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Registry;
use crate::api::rights::Role;
use crate::config::{Definition, Limits};
use crate::seeing::Live;
use crate::site::Site;

/// How long the patterns' directories may take.
const LIST_LIMIT: Duration = Duration::from_secs(2);

/// How many vhosts there are.
#[derive(Debug, Default)]
pub struct Counts {
    /// With a definition.
    pub defined: usize,
    /// Those that have been woken, by state.
    pub states: BTreeMap<&'static str, usize>,
    /// Requests since the agent's start.
    pub dispatches: u64,
    /// Starts since the agent's start.
    pub starts: u64,
}

impl Registry {
    /// Vhosts that the patterns' directories hold now. Blocks; reads those directories.
    fn pattern_sites(&self) -> Vec<Arc<Definition>> {
        let patterns = self.patterns();
        let listed = patterns.listed_directories();
        let hosts = listed
            .iter()
            .filter_map(|directory| patterns.list(directory).ok())
            .flatten();
        let fresh = hosts.filter(|host| self.definitions().by_host(host).is_none());
        fresh.filter_map(|host| patterns.find(&host)).collect()
    }

    /// [`Self::pattern_sites`] on a thread of its own, and not more than one such thread: a directory on storage that
    /// hangs is missing from the list, and that is all.
    async fn pattern_sites_in_time(self: &Arc<Self>) -> Vec<Arc<Definition>> {
        let Ok(one) = self.listing.clone().try_lock_owned() else {
            return Vec::new();
        };
        let registry = self.clone();
        let work = tokio::task::spawn_blocking(move || {
            let sites = registry.pattern_sites();
            drop(one);
            sites
        });
        match tokio::time::timeout(LIST_LIMIT, work).await {
            Ok(Ok(sites)) => sites,
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    }

    /// The definitions that `role` lets see. What an owner's cost does not depend on how many others there are.
    fn defined_for(&self, role: &Role) -> Vec<Arc<Definition>> {
        let definitions = self.definitions();
        match role {
            Role::Operator => definitions.iter().cloned().collect(),
            Role::Owner(owners) => {
                let theirs = owners.iter().flat_map(|owner| definitions.of_owner(owner));
                theirs.cloned().collect()
            }
            Role::User(_) | Role::Dispatcher | Role::Nobody => Vec::new(),
        }
    }

    /// Whether vhosts of patterns may be among those that `role` lets see.
    fn has_patterns_for(&self, role: &Role) -> bool {
        match role {
            Role::Operator => true,
            Role::Owner(owners) => {
                let patterns = self.patterns();
                owners.iter().any(|owner| patterns.has_owner(owner))
            }
            Role::User(_) | Role::Dispatcher | Role::Nobody => false,
        }
    }

    /// Those that `role` lets see and that have been woken.
    fn woken_for(&self, role: &Role) -> Vec<Arc<Site>> {
        let visible = |site: &Arc<Site>| role.owns(&site.owner()) && !site.gone();
        if self.has_patterns_for(role) {
            return self.woken().into_iter().filter(visible).collect();
        }
        let defined = self.defined_for(role);
        let sites = defined.iter().filter_map(|d| self.site(&d.name));
        sites.filter(visible).collect()
    }

    /// All vhosts that `role` lets see, by name.
    pub async fn list(self: &Arc<Self>, role: &Role) -> Vec<Value> {
        let found = match self.has_patterns_for(role) {
            true => self.pattern_sites_in_time().await,
            false => Vec::new(),
        };
        let (registry, role) = (self.clone(), role.clone());
        let work = move || {
            let mut all: BTreeMap<String, Value> = BTreeMap::new();
            // The definitions are shared: collected under the lock, written out without it.
            let defined = registry.defined_for(&role);
            for definition in defined.iter().chain(&found) {
                if role.owns(&definition.owner) {
                    let promised = registry.platform.promises.view_of(&definition.name);
                    let limits = definition.limits_over(&registry.platform.config.limits);
                    let view = asleep(definition, &limits, promised);
                    all.insert(definition.name.to_string(), view);
                }
            }
            for site in registry.woken_for(&role) {
                all.insert(site.name.to_string(), site.view_now(false));
            }
            all.into_values().collect()
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_default()
    }

    /// Those in one of these states that `role` lets see, by name. Where only vhosts with a container are asked for, all
    /// others cost nothing; vhosts that have never been woken are in none of these states.
    pub async fn list_in(self: &Arc<Self>, role: &Role, states: Vec<String>) -> Vec<Value> {
        if states.iter().any(|state| state == "stopped") {
            let mut all = self.list(role).await;
            all.retain(|vhost| states.iter().any(|state| vhost["state"] == **state));
            return all;
        }
        let (registry, role) = (self.clone(), role.clone());
        let work = move || {
            let live = states.iter().all(|state| Live::has_container(state));
            let mut sites = match live {
                true => registry.live_for(&role),
                false => registry.woken_for(&role),
            };
            sites.retain(|site| states.iter().any(|state| state == site.state().word()));
            sites.sort_by(|a, b| a.name.cmp(&b.name));
            sites.iter().map(|site| site.view_now(false)).collect()
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_default()
    }

    /// Those with a container that `role` lets see, by name.
    pub(crate) fn live_for(&self, role: &Role) -> Vec<Arc<Site>> {
        let mut sites = self.platform().live.sites();
        sites.retain(|site| role.owns(&site.owner()));
        sites
    }

    /// Counts of the vhosts that `role` lets see. Vhosts of patterns count once they have been woken.
    pub fn count(&self, role: &Role) -> Counts {
        let defined = match role {
            Role::Operator => self.definitions().count(),
            _ => self.defined_for(role).len(),
        };
        let mut counts = Counts {
            defined,
            ..Counts::default()
        };
        let mut patterned: HashMap<Arc<str>, ()> = HashMap::new();
        for site in self.woken_for(role) {
            *counts.states.entry(site.state().word()).or_default() += 1;
            let (dispatches, starts) = site.counters();
            counts.dispatches += dispatches;
            counts.starts += starts;
            if self.definitions().get(&site.name).is_none() {
                patterned.insert(site.name.clone(), ());
            }
        }
        counts.defined += patterned.len();
        counts
    }
}

/// A vhost that has never been woken, with the limits that it would have.
fn asleep(definition: &Definition, limits: &Limits, promised: Value) -> Value {
    json!({
        "vhost": definition.name,
        "owner": definition.owner,
        "state": "stopped",
        "wanted": "up",
        "pid": null,
        "uptime_s": null,
        "upstream": null,
        "dispatches": 0,
        "starts": 0,
        "class": limits.class().unwrap_or_default(),
        "promised": promised,
        "limits": crate::site::shown(limits),
    })
}
