//! Lists and counts of vhosts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Value, json};

use super::Registry;
use crate::config::Definition;

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
        let listed = self.patterns().listed_directories();
        let hosts = listed
            .iter()
            .filter_map(|directory| self.patterns().list(directory).ok())
            .flatten();
        let fresh = hosts.filter(|host| self.definitions().by_host(host).is_none());
        fresh
            .filter_map(|host| self.pattern_definition(&host))
            .collect()
    }

    /// All vhosts that `visible` lets see (by owner), by name.
    pub async fn list(self: &Arc<Self>, visible: &(dyn Fn(&str) -> bool + Sync)) -> Vec<Value> {
        let registry = self.clone();
        let found = tokio::task::spawn_blocking(move || registry.pattern_sites())
            .await
            .unwrap_or_default();
        let mut all: BTreeMap<String, Value> = BTreeMap::new();
        let mut put = |definition: &Arc<Definition>| {
            if visible(&definition.owner) {
                all.insert(definition.name.to_string(), asleep(definition));
            }
        };
        self.definitions().iter().for_each(&mut put);
        found.iter().for_each(&mut put);
        for site in self.woken() {
            if visible(&site.owner()) && !site.gone() {
                all.insert(site.name.to_string(), site.view_now(false));
            }
        }
        all.into_values().collect()
    }

    /// Counts of the vhosts that `visible` lets see. Vhosts of patterns count once they have been woken.
    pub fn count(&self, visible: &dyn Fn(&str) -> bool) -> Counts {
        let mut counts = Counts {
            defined: self
                .definitions()
                .iter()
                .filter(|d| visible(&d.owner))
                .count(),
            ..Counts::default()
        };
        let mut patterned: HashMap<Arc<str>, ()> = HashMap::new();
        for site in self
            .woken()
            .iter()
            .filter(|site| visible(&site.owner()) && !site.gone())
        {
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

/// A vhost that has never been woken.
fn asleep(definition: &Definition) -> Value {
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
        "limits": crate::site::shown(&definition.limits),
    })
}
