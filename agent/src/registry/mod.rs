//! All vhosts of this host: by definition file, by directory pattern, and those that have been woken.
//!
//! A vhost that was never asked for is only its definition. Whatever finds one ([`Registry::find`]) costs two hash
//! look-ups, however many there are.

mod change;
mod clearing;
mod find;
mod list;
mod owners;
mod promises;
mod unclaimed;
mod watch;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::sync::watch as watch_channel;

use crate::config::Rules;
use crate::config::store::{Definitions, load_dir};
use crate::platform::Platform;
use crate::site::{Site, Survey, survey, sweep};

use crate::config::pattern::Patterns;
pub use change::Placed;
pub use list::Counts;
use watch::Watch;
pub use watch::watch;

/// The vhosts.
pub struct Registry {
    platform: Arc<Platform>,
    definitions: RwLock<Definitions>,
    patterns: RwLock<Arc<Patterns>>,
    sites: RwLock<HashMap<Arc<str>, Arc<Site>>>,
    /// The watch of files, until its task takes it.
    watch: Mutex<Option<Watch>>,
    /// One change of definition files by the API at a time.
    changing: tokio::sync::Mutex<()>,
    draining: watch_channel::Sender<bool>,
    /// Vhosts that went while no agent ran may still have limits of disk space.
    gone_limited: AtomicBool,
    /// Held while the patterns' directories are listed.
    listing: Arc<tokio::sync::Mutex<()>>,
    unclaimed: unclaimed::Unclaimed,
}

impl Registry {
    /// Loads the definitions and takes over what the last agent left.
    pub async fn new(platform: Arc<Platform>) -> Result<Arc<Self>> {
        let (path, rules) = (platform.config.vhosts_dir.clone(), platform.rules());
        let patterns = Patterns::load(&platform.config);
        let watch = Watch::new(&path, &patterns)?;
        let loading = tokio::task::spawn_blocking(move || load_dir(&path, &rules));
        let definitions = loading.await?.map_err(|p| anyhow::anyhow!("{p}"))?;
        for problem in definitions.problems() {
            tracing::error!("{problem}");
        }
        let registry = Arc::new(Self {
            definitions: RwLock::new(definitions),
            patterns: RwLock::new(Arc::new(patterns)),
            sites: RwLock::default(),
            watch: Mutex::new(Some(watch)),
            changing: tokio::sync::Mutex::default(),
            draining: watch_channel::Sender::new(false),
            gone_limited: AtomicBool::new(true),
            listing: Arc::default(),
            unclaimed: unclaimed::Unclaimed::default(),
            platform,
        });
        let surveyed = registry.platform.clone();
        let found = tokio::task::spawn_blocking(move || {
            let found = survey(&surveyed)?;
            sweep(&surveyed, &found);
            surveyed.owners.take_over()?;
            anyhow::Ok(found)
        });
        let found = found.await??;
        if found.is_empty() {
            registry.platform.templates.collect_old();
        }
        registry.wake_kept();
        registry.forget_gone().await;
        registry.place_all().await;
        registry.keep_memory().await;
        registry.take_over(found);
        Ok(registry)
    }

    /// Whether requests could be answered: takes the locks that they take.
    pub fn responds(&self) {
        drop((self.definitions(), self.site("")));
    }

    /// The host that the vhosts run on.
    pub fn platform(&self) -> &Arc<Platform> {
        &self.platform
    }

    /// Whether no new requests are taken.
    pub fn draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// From now on no new requests are taken.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Waits until no new requests are taken.
    pub async fn drained(&self) {
        let mut draining = self.draining.subscribe();
        // Err cannot be: the sender lives in the registry.
        let _ = draining.wait_for(|draining| *draining).await;
    }

    fn site(&self, name: &str) -> Option<Arc<Site>> {
        self.sites
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// All that have been woken.
    fn woken(&self) -> Vec<Arc<Site>> {
        self.sites
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// The patterns as they are now; nobody holds a lock while their directories are read.
    fn patterns(&self) -> Arc<Patterns> {
        self.patterns
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn definitions(&self) -> std::sync::RwLockReadGuard<'_, Definitions> {
        self.definitions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Vhosts that the operator has put down are known as such from the start.
    fn wake_kept(self: &Arc<Self>) {
        let dir = self.platform.config.state_dir.join("vhosts");
        let Ok(entries) = std::fs::read_dir(dir) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let vhost = name.to_str().and_then(|name| name.strip_suffix(".json"));
            if let Some(vhost) = vhost.filter(|vhost| !vhost.ends_with(".exit")) {
                self.wake_known(vhost);
            }
        }
    }

    /// Lifts limits of disk space of vhosts that went while no agent ran. Not before every definition can be read: the
    /// documents of one that is only misspelt keep their limit.
    async fn forget_gone(&self) {
        if !self.gone_limited.load(Ordering::Relaxed) {
            return;
        }
        let limited = self.platform.disk.vhosts().into_iter();
        let gone: Vec<_> = limited.filter(|vhost| !self.is_defined(vhost)).collect();
        if gone.is_empty() || self.complete() {
            self.gone_limited.store(false, Ordering::Relaxed);
            return self.forget_disk(gone).await;
        }
        tracing::warn!(
            "limits of disk space are left as they are until every definition can be read: {}",
            gone.join(", ")
        );
    }

    /// Whether every vhost is known: none is only misspelt.
    fn complete(&self) -> bool {
        self.definitions().complete() && self.patterns().complete()
    }

    fn forget(&self, site: &Arc<Site>) {
        let mut sites = self.sites.write().unwrap_or_else(PoisonError::into_inner);
        if sites
            .get(&site.name)
            .is_some_and(|known| Arc::ptr_eq(known, site))
        {
            sites.remove(&site.name);
        }
    }

    fn take_over(self: &Arc<Self>, found: Survey) {
        for (vhost, found) in found.alive {
            self.take_found(vhost, found);
        }
        for (vhost, remains) in found.remains {
            match self.wake_known(&vhost) {
                Some(site) => site.clear_leftover(remains),
                None => {
                    self.unclaimed.begin_clearing(&vhost);
                    self.clear(remains, vhost);
                }
            }
        }
    }

    /// Ends every container: for the removal of the package.
    pub async fn end_all(self: &Arc<Self>) {
        self.drain();
        let mut ending = tokio::task::JoinSet::new();
        for site in self.woken() {
            ending.spawn(async move { site.operate(crate::machine::Event::Stop).await });
        }
        while ending.join_next().await.is_some() {}
        self.end_unclaimed().await;
    }

    /// What is wrong with definition files and patterns now.
    pub fn problems(&self) -> Vec<Value> {
        let show = |p: &crate::config::Problem| json!({"file": p.file, "message": p.to_string()});
        let mut all: Vec<Value> = self.definitions().problems().map(show).collect();
        all.extend(self.patterns().problems().map(show));
        all.extend(self.unkept());
        all.extend(self.unclaimed_problems());
        let budgets = self.platform.owners.problems();
        all.extend(budgets.map(|(file, why)| json!({"file": file, "message": why})));
        all
    }
}

impl Platform {
    /// What the configuration demands of definitions.
    pub fn rules(&self) -> Rules {
        self.config.rules()
    }
}
