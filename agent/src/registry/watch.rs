//! Follows the definition directory, the patterns' definitions and the patterns' directories.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use anyhow::{Context, Result};
use tokio::sync::watch;

use super::Registry;
use crate::config::Problem;
use crate::config::pattern::Patterns;
use crate::config::store::{Dir, is_definition_file, read_files};
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

/// The watch, which begins before anything is read: nothing is missed then and nothing has to be read twice.
pub(super) struct Watch {
    watcher: Watcher,
    roles: Vec<(Target, Role)>,
}

impl Watch {
    /// Watches the definitions, and the patterns' files and directories.
    pub(super) fn new(definitions: &Path, patterns: &Patterns) -> Result<Self> {
        let watcher = Watcher::new().map_err(|p| anyhow::anyhow!("{p}"))?;
        let mut watch = Self {
            watcher,
            roles: Vec::new(),
        };
        watch.add(definitions, Kind::Files, Role::Definitions);
        let files = patterns.definition_files();
        for directory in files
            .iter()
            .filter_map(|file| file.parent())
            .collect::<BTreeSet<_>>()
        {
            watch.add(directory, Kind::Files, Role::PatternFiles);
        }
        for directory in patterns.listed_directories() {
            watch.add(&directory, Kind::Directories, Role::Sites);
        }
        Ok(watch)
    }

    fn add(&mut self, path: &Path, kind: Kind, role: Role) {
        match self.watcher.add(path, kind) {
            Ok(target) => self.roles.push((target, role)),
            Err(problem) => tracing::error!("{problem}"),
        }
    }
}

/// Follows all directories until `stop` turns true. Called once.
pub async fn watch(registry: Arc<Registry>, mut stop: watch::Receiver<bool>) -> Result<()> {
    let begun = registry
        .watch
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Watch { mut watcher, roles } =
        begun.context("the definitions are being watched already")?;
    let watched = crate::sys::watch(watcher.as_fd().try_clone_to_owned()?)?;
    loop {
        tokio::select! {
            ready = watched.readable() => ready?.clear_ready(),
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
        let events = watcher.read_changes().map_err(|p| anyhow::anyhow!("{p}"))?;
        let mut changed = BTreeSet::new();
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
            let role = roles
                .iter()
                .find(|(known, _)| *known == target)
                .map(|(_, role)| *role);
            match (role, entry) {
                // Editors' files and our own that are not in place yet are none of ours.
                (Some(Role::Definitions), Some(name)) if is_definition_file(&name) => {
                    changed.insert(name);
                }
                (Some(Role::Definitions), Some(_)) => {}
                (Some(Role::Definitions), None) => rescan = true,
                (Some(Role::PatternFiles), _) => registry.reread_patterns().await,
                (Some(Role::Sites), Some(name)) => {
                    registry.check_entry(watcher.path(target), &name).await
                }
                (Some(Role::Sites), None) => registry.check_sites().await,
                (None, _) => {}
            }
        }
        if rescan {
            registry.rescan_definitions().await;
        } else if !changed.is_empty() {
            registry.read_definitions(changed, false).await;
        }
    }
}

impl Registry {
    /// Reads the whole directory again, after changes may have been missed.
    async fn rescan_definitions(self: &Arc<Self>) {
        let known: BTreeSet<String> = self.definitions().file_names().map(str::to_owned).collect();
        self.read_definitions(known, true).await;
    }

    async fn read_definitions(self: &Arc<Self>, mut names: BTreeSet<String>, all: bool) {
        // Not while the API writes a file: what was read before would undo what it has put in force.
        let _one_at_a_time = self.changing.lock().await;
        let (path, rules) = (
            self.platform.config.vhosts_dir.clone(),
            self.platform.rules(),
        );
        let read = tokio::task::spawn_blocking(move || {
            let dir = Dir::open(&path)?;
            if all {
                names.extend(dir.names()?);
            }
            Ok::<_, Problem>(read_files(&dir, &Vec::from_iter(names), &rules))
        });
        match read.await {
            Ok(Ok(readings)) => {
                let changes = self
                    .definitions
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take_readings(readings);
                self.apply(changes).await;
            }
            Ok(Err(problem)) => tracing::error!("{problem}"),
            Err(error) => tracing::error!("cannot read the definitions: {error}"),
        }
    }

    /// Reads the patterns' definitions again and carries changes over to their vhosts.
    async fn reread_patterns(self: &Arc<Self>) {
        let mut patterns = (*self.patterns()).clone();
        let read = tokio::task::spawn_blocking(move || {
            let files = patterns.definition_files();
            let reloaded: Vec<_> = files.iter().map(|file| patterns.reload(file)).collect();
            (patterns, reloaded)
        });
        let Ok((patterns, reloaded)) = read.await else {
            return;
        };
        *self
            .patterns
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(patterns);
        for problem in reloaded.iter().flat_map(|r| &r.problems) {
            tracing::error!("{problem}");
        }
        if reloaded.iter().all(|r| r.changed.is_empty()) {
            return;
        }
        self.forget_gone().await;
        self.settle_unclaimed();
        for site in self.woken() {
            if self.definitions().get(&site.name).is_none()
                && let Some(definition) = self.pattern_definition(&site.name)
                && site.definition() != definition
            {
                self.carry_over(&definition).await;
            }
        }
    }

    /// An entry of a patterns' directory came or went.
    async fn check_entry(self: &Arc<Self>, directory: Option<&Path>, entry: &str) {
        let Some(directory) = directory else { return };
        let hosts = self.patterns().hosts_of_entry(directory, entry);
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
        if of_pattern
            && !site.withdrawn()
            && matches!(self.matched_by_pattern(&site.name).await, Ok(None))
        {
            tracing::info!("{}: its directory is gone", site.name);
            self.withdraw(site);
        }
    }
}
