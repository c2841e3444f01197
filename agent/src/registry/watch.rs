//! Follows the definition directory, the patterns' definitions and the patterns' directories.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use anyhow::Result;
use tokio::sync::watch;

use super::Registry;
use crate::config::store::Dir;
use crate::config::watch::{Event, Kind, Target, Watcher};
use crate::site::Site;

/// What a watched directory is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Definitions,
    /// It holds the definition file of a pattern.
    PatternFiles,
    /// Its entries are vhosts of patterns.
    Sites,
}

/// Follows all directories until `stop` turns true.
pub async fn watch(registry: Arc<Registry>, mut stop: watch::Receiver<bool>) -> Result<()> {
    let mut watcher = Watcher::new().map_err(|p| anyhow::anyhow!("{p}"))?;
    let mut roles: HashMap<usize, Role> = HashMap::new();
    let mut targets: Vec<Target> = Vec::new();
    let mut add = |watcher: &mut Watcher, path: &std::path::Path, kind, role| match watcher.add(path, kind) {
        Ok(target) => {
            roles.insert(targets.len(), role);
            targets.push(target);
        }
        Err(problem) => tracing::error!("{problem}"),
    };
    add(&mut watcher, &registry.platform.config.vhosts_dir.clone(), Kind::Files, Role::Definitions);
    {
        let patterns = registry.patterns.read().unwrap_or_else(PoisonError::into_inner);
        let directories: BTreeSet<_> =
            patterns.definition_files().iter().filter_map(|file| Some(file.parent()?.to_owned())).collect();
        for directory in directories {
            add(&mut watcher, &directory, Kind::Files, Role::PatternFiles);
        }
        for directory in patterns.listed_directories() {
            add(&mut watcher, &directory, Kind::Directories, Role::Sites);
        }
    }
    // Whatever changed between the loading and the watch.
    registry.rescan_definitions().await;
    let watched = crate::sys::watch(watcher.as_fd().try_clone_to_owned()?)?;
    loop {
        tokio::select! {
            ready = watched.readable() => ready?.clear_ready(),
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
        let events = watcher.read_changes().map_err(|p| anyhow::anyhow!("{p}"))?;
        let mut changed: Vec<String> = Vec::new();
        let mut rescan = false;
        for event in events {
            let (target, entry) = match event {
                Event::Entry(target, name) => (target, Some(name)),
                Event::Rescan(target) => (target, None),
                Event::Failed(target, problem) => {
                    tracing::error!("{problem}");
                    (target, None)
                }
            };
            let role = targets.iter().position(|known| *known == target).and_then(|at| roles.get(&at)).copied();
            match (role, entry) {
                (Some(Role::Definitions), Some(name)) => changed.push(name),
                (Some(Role::Definitions), None) => rescan = true,
                (Some(Role::PatternFiles), _) => registry.reread_patterns().await,
                (Some(Role::Sites), Some(name)) => registry.check_entry(targets_path(&watcher, target), &name).await,
                (Some(Role::Sites), None) => registry.check_sites().await,
                (None, _) => {}
            }
        }
        if rescan {
            registry.rescan_definitions().await;
        } else if !changed.is_empty() {
            registry.reread_definitions(changed).await;
        }
    }
}

fn targets_path(watcher: &Watcher, target: Target) -> Option<PathBuf> {
    watcher.path(target).map(PathBuf::from)
}

impl Registry {
    async fn rescan_definitions(self: &Arc<Self>) {
        let registry = self.clone();
        let work = move || {
            let path = &registry.platform.config.vhosts_dir;
            registry.definitions.write().unwrap_or_else(PoisonError::into_inner).rescan(path)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(changes)) => self.apply(changes).await,
            Ok(Err(problem)) => tracing::error!("{problem}"),
            Err(error) => tracing::error!("cannot read the definitions: {error}"),
        }
    }

    async fn reread_definitions(self: &Arc<Self>, names: Vec<String>) {
        let registry = self.clone();
        let work = move || {
            let dir = Dir::open(&registry.platform.config.vhosts_dir)?;
            Ok(registry.definitions.write().unwrap_or_else(PoisonError::into_inner).reread(&dir, &names))
        };
        let result: Result<Result<_, crate::config::Problem>, _> = tokio::task::spawn_blocking(work).await;
        match result {
            Ok(Ok(changes)) => self.apply(changes).await,
            Ok(Err(problem)) => tracing::error!("{problem}"),
            Err(error) => tracing::error!("cannot read the definitions: {error}"),
        }
    }

    /// Reads the patterns' definitions again and carries changes over to their vhosts.
    async fn reread_patterns(self: &Arc<Self>) {
        let reloaded: Vec<_> = {
            let mut patterns = self.patterns.write().unwrap_or_else(PoisonError::into_inner);
            let files = patterns.definition_files();
            files.iter().map(|file| patterns.reload(file)).collect()
        };
        for problem in reloaded.iter().flat_map(|r| &r.problems) {
            tracing::error!("{problem}");
        }
        if reloaded.iter().all(|r| r.changed.is_empty()) {
            return;
        }
        for site in self.woken() {
            if self.definitions().get(&site.name).is_none()
                && let Some(definition) = self.pattern_definition(&site.name)
                && site.definition() != definition
            {
                site.redefine(definition).await;
            }
        }
    }

    /// An entry of a patterns' directory came or went.
    async fn check_entry(self: &Arc<Self>, directory: Option<PathBuf>, entry: &str) {
        let Some(directory) = directory else { return };
        let hosts = self.patterns.read().unwrap_or_else(PoisonError::into_inner).hosts_of_entry(&directory, entry);
        for host in hosts {
            if let Some(site) = self.site(&host) {
                self.check_site(site).await;
            }
        }
    }

    /// Events were lost, or a whole directory of vhosts came or went.
    async fn check_sites(self: &Arc<Self>) {
        for site in self.woken() {
            self.check_site(site).await;
        }
    }

    /// Ends a pattern's vhost whose directory is gone.
    async fn check_site(self: &Arc<Self>, site: Arc<Site>) {
        let of_pattern = self.definitions().get(&site.name).is_none();
        if of_pattern && !site.withdrawn() && self.from_pattern(&site.name).await.is_none() {
            tracing::info!("{}: its directory is gone", site.name);
            self.withdraw(site);
        }
    }
}
