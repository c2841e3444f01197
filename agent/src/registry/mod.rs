//! All vhosts of this host: by definition file, by directory pattern, and those that have been woken.
//!
//! A vhost that was never asked for is only its definition. Whatever finds one ([`Registry::find`]) costs two hash
//! look-ups, however many there are.

mod change;
mod list;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::sync::watch as watch_channel;

use crate::api::problem::Problem;
use crate::config::host;
use crate::config::store::{Definitions, load_dir};
use crate::config::{Definition, Rules};
use crate::container::KILL_LIMIT;
use crate::container::documents::{self, DocumentsError};
use crate::machine::State;
use crate::platform::Platform;
use crate::site::{Site, Survey, survey, sweep};

use crate::config::pattern::Patterns;
pub use change::Placed;
pub use list::Counts;
use watch::Watch;
pub use watch::watch;

/// How long a directory may take to answer whether it exists.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// How often the rest of a vhost that is not defined any more is tried to be removed.
const CLEAR_RETRY: Duration = Duration::from_secs(10);

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
    /// Held while the patterns' directories are listed.
    listing: Arc<tokio::sync::Mutex<()>>,
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
            listing: Arc::default(),
            platform,
        });
        let surveyed = registry.platform.clone();
        let found = tokio::task::spawn_blocking(move || {
            let found = survey(&surveyed)?;
            sweep(&surveyed, &found);
            anyhow::Ok(found)
        });
        let found = found.await??;
        if found.is_empty() {
            registry.platform.templates.collect_old();
        }
        registry.wake_kept();
        registry.take_over(found);
        registry.platform.fill_pool()?;
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

    /// The vhost that answers under a name or alias.
    pub async fn find(self: &Arc<Self>, asked: &str) -> Result<Arc<Site>, Problem> {
        // A name longer than any host name is not even copied.
        if asked.len() > 254 {
            return Err(Problem::unknown_vhost(asked));
        }
        let name = host::normal(asked);
        loop {
            let defined = self.definitions().by_host(&name).cloned();
            let key = defined
                .as_ref()
                .map_or(&*name, |definition| &*definition.name);
            match self.site(key) {
                Some(site) if !site.withdrawn() => return Ok(site),
                // Its old container has to be gone before the name can have a new one.
                Some(old) => match old.settled().await {
                    State::Gone => self.forget(&old),
                    _ => return Ok(old),
                },
                None => {
                    let definition = match &defined {
                        Some(definition) => definition.clone(),
                        None => self
                            .matched_by_pattern(&name)
                            .await
                            .map_err(|error| {
                                // Nothing is made for a name of which nobody knows whether it is a site.
                                let detail =
                                    format!("cannot tell whether {name} is a site: {error}");
                                Problem::unavailable("storage", "No storage", detail, LOOK_LIMIT)
                                    .about(&name)
                            })?
                            .ok_or_else(|| Problem::unknown_vhost(asked))?,
                    };
                    if let Some(site) = self.wake(definition, defined.is_some())? {
                        return Ok(site);
                    }
                }
            }
        }
    }

    fn site(&self, name: &str) -> Option<Arc<Site>> {
        self.sites
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// What the first matching pattern makes of a host name, if its directory exists; an error if its storage cannot
    /// tell, which unmakes no vhost and makes none.
    async fn matched_by_pattern(
        &self,
        host: &str,
    ) -> Result<Option<Arc<Definition>>, DocumentsError> {
        let definition = self.pattern_definition(host);
        let Some((definition, path)) =
            definition.and_then(|d| Some((d.clone(), d.documents.clone()?)))
        else {
            return Ok(None);
        };
        match documents::open(&path, LOOK_LIMIT).await {
            Ok(_) => Ok(Some(definition)),
            Err(error) if error.says_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn pattern_definition(&self, host: &str) -> Option<Arc<Definition>> {
        self.patterns().find(host)
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

    /// The structure of a vhost, made if it has none. None if its definition has changed meanwhile; `defined` says
    /// that it comes from a file, not from a pattern.
    fn wake(
        &self,
        definition: Arc<Definition>,
        defined: bool,
    ) -> Result<Option<Arc<Site>>, Problem> {
        let fresh = Site::new(self.platform.clone(), definition.clone()).map_err(|e| {
            Problem::internal(format!("cannot serve {}: {e:#}", definition.name))
                .about(&definition.name)
        })?;
        // Both locks, in this order: a definition that goes finds the site or comes before it.
        let definitions = self.definitions();
        let now = definitions.by_host(&definition.name);
        let same = now.is_some_and(|now| Arc::ptr_eq(now, &definition));
        if same != defined || (!defined && now.is_some()) {
            return Ok(None);
        }
        let mut sites = self.sites.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(
            sites.entry(fresh.name.clone()).or_insert(fresh).clone(),
        ))
    }

    /// The structure of a vhost that the last agent knew, without asking its storage.
    fn wake_known(&self, vhost: &str) -> Option<Arc<Site>> {
        let defined = self.definitions().get(vhost).cloned();
        let from_file = defined.is_some();
        let definition = defined.or_else(|| self.pattern_definition(vhost))?;
        match self.wake(definition, from_file) {
            Ok(site) => site,
            Err(problem) => {
                tracing::error!("{}", problem.detail);
                None
            }
        }
    }

    /// Vhosts that the operator has put down are known as such from the start.
    fn wake_kept(&self) {
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
            let Some(site) = self.wake_known(&vhost) else {
                // The definition was removed while no agent ran.
                self.clear(found.remains(&self.platform), vhost);
                continue;
            };
            match site.adopt(found) {
                Ok(()) => tracing::info!("{vhost}: its container lives on"),
                Err((remains, error)) => {
                    tracing::error!("{vhost}: cannot take its container over: {error:#}");
                    site.clear_leftover(remains);
                }
            }
        }
        for (vhost, remains) in found.remains {
            match self.wake_known(&vhost) {
                Some(site) => site.clear_leftover(remains),
                None => self.clear(remains, vhost),
            }
        }
    }

    /// Removes what is left of a vhost that is not defined any more, however long that takes.
    fn clear(self: &Arc<Self>, mut remains: crate::container::Remains, vhost: String) {
        let platform = self.platform.clone();
        tokio::spawn(async move {
            loop {
                let (platform, name) = (platform.clone(), vhost.clone());
                let work = tokio::task::spawn_blocking(move || {
                    let result = remains.remove(&platform, &name, KILL_LIMIT);
                    (remains, result)
                });
                let Ok((back, result)) = work.await else {
                    return;
                };
                match result {
                    Ok(()) => return tracing::info!("{vhost}: removed what was left of it"),
                    Err(error) => tracing::error!("{error}"),
                }
                remains = back;
                tokio::time::sleep(CLEAR_RETRY).await;
            }
        });
    }

    /// Ends every container: for the removal of the package.
    pub async fn end_all(self: &Arc<Self>) {
        self.drain();
        let mut ending = tokio::task::JoinSet::new();
        for site in self.woken() {
            ending.spawn(async move { site.operate(crate::machine::Event::Stop).await });
        }
        while ending.join_next().await.is_some() {}
    }

    /// What is wrong with definition files and patterns now.
    pub fn problems(&self) -> Vec<Value> {
        let show = |p: &crate::config::Problem| json!({"file": p.file, "message": p.to_string()});
        let mut all: Vec<Value> = self.definitions().problems().map(show).collect();
        all.extend(self.patterns().problems().map(show));
        all
    }
}

impl Platform {
    /// What the configuration demands of definitions.
    pub fn rules(&self) -> Rules {
        self.config.rules()
    }
}
