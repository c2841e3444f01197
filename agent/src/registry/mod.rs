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

/// The vhosts.
pub struct Registry {
    platform: Arc<Platform>,
    definitions: RwLock<Definitions>,
    patterns: RwLock<Patterns>,
    sites: RwLock<HashMap<Arc<str>, Arc<Site>>>,
    /// The watch of files, until its task takes it.
    watch: Mutex<Option<Watch>>,
    /// One change of definition files by the API at a time.
    changing: tokio::sync::Mutex<()>,
    draining: watch_channel::Sender<bool>,
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
            patterns: RwLock::new(patterns),
            sites: RwLock::default(),
            watch: Mutex::new(Some(watch)),
            changing: tokio::sync::Mutex::default(),
            draining: watch_channel::Sender::new(false),
            platform,
        });
        let surveyed = registry.platform.clone();
        let found = tokio::task::spawn_blocking(move || {
            let found = survey(&surveyed)?;
            sweep(&surveyed, &found);
            anyhow::Ok(found)
        });
        registry.take_over(found.await??).await;
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
                    let definition = match defined {
                        Some(definition) => definition,
                        None => self
                            .from_pattern(&name)
                            .await
                            .ok_or_else(|| Problem::unknown_vhost(asked))?,
                    };
                    return Ok(self.wake(definition));
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

    /// What the first matching pattern makes of a host name, if its directory exists.
    async fn from_pattern(&self, host: &str) -> Option<Arc<Definition>> {
        let definition = self.pattern_definition(host)?;
        match documents::open(definition.documents.as_ref()?, LOOK_LIMIT).await {
            // Storage that hangs does not unmake a vhost; its start will say what is wrong.
            Ok(_) | Err(DocumentsError::Hangs { .. }) => Some(definition),
            Err(DocumentsError::System { .. }) => None,
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

    fn patterns(&self) -> std::sync::RwLockReadGuard<'_, Patterns> {
        self.patterns.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn definitions(&self) -> std::sync::RwLockReadGuard<'_, Definitions> {
        self.definitions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The structure of a vhost, made if it has none.
    fn wake(&self, definition: Arc<Definition>) -> Arc<Site> {
        let fresh = Site::new(self.platform.clone(), definition);
        let mut sites = self.sites.write().unwrap_or_else(PoisonError::into_inner);
        sites.entry(fresh.name.clone()).or_insert(fresh).clone()
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

    async fn take_over(self: &Arc<Self>, found: Survey) {
        for (vhost, found) in found.alive {
            match self.find(&vhost).await {
                Ok(site) if *site.name == *vhost => match site.adopt(found) {
                    Ok(()) => tracing::info!("{vhost}: its container lives on"),
                    Err(error) => {
                        tracing::error!("{vhost}: cannot take its container over: {error:#}")
                    }
                },
                // The definition was removed while no agent ran.
                _ => self.clear(found.remains(&self.platform), &vhost).await,
            }
        }
        for (vhost, remains) in found.remains {
            match self.find(&vhost).await {
                Ok(site) if *site.name == *vhost => site.clear_leftover(remains),
                _ => self.clear(remains, &vhost).await,
            }
        }
    }

    /// Removes what is left of a vhost that is not defined any more.
    async fn clear(self: &Arc<Self>, mut remains: crate::container::Remains, vhost: &str) {
        let (platform, name) = (self.platform.clone(), vhost.to_owned());
        let work = tokio::task::spawn_blocking(move || remains.remove(&platform, &name));
        match work.await {
            Ok(Ok(())) => tracing::info!("{vhost}: removed what was left of it"),
            Ok(Err(error)) => tracing::error!("{error}"),
            Err(error) => tracing::error!("{vhost}: cannot remove what is left of it: {error}"),
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
