//! What a changed file changes in the definitions in force.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::index::{Change, Definitions, File, Reading, Trouble};
use crate::config::definition::Definition;
use crate::config::problem::Problem;

/// Which vhosts changed in a round: the definition before the round, and now.
type Log = BTreeMap<Box<str>, (Option<Arc<Definition>>, Option<Arc<Definition>>)>;

/// What was wrong with the files that a round touched, before it.
type Troubles = BTreeMap<Arc<str>, Vec<Problem>>;

impl Definitions {
    pub(super) fn apply(&mut self, mut readings: Vec<(String, Reading)>) -> Vec<Change> {
        readings.sort_by_key(|(_, reading)| !matches!(reading, Reading::Gone));
        let (mut log, mut troubled) = (Log::new(), BTreeMap::new());
        for (file, reading) in readings {
            self.take(&Arc::from(file), reading, &mut log, &mut troubled);
        }
        let mut changes: Vec<Change> = Vec::new();
        changes.extend(log.into_values().filter_map(|change| match change {
            (None, Some(new)) => Some(Change::Added(new)),
            (Some(old), None) => Some(Change::Removed(old)),
            (Some(old), Some(new)) if old != new => Some(Change::Changed { old, new }),
            _ => None,
        }));
        for (file, before) in troubled {
            match self.files.get(&file).and_then(|file| file.trouble.as_ref()) {
                Some(now) if now.problems != before => {
                    changes.extend(now.problems.iter().cloned().map(Change::Problem));
                }
                None if !before.is_empty() => changes.push(Change::Solved(file)),
                _ => {}
            }
        }
        changes
    }

    /// Takes a file's content while loading, when nobody asks what changed.
    pub(super) fn take_first(&mut self, file: &str, reading: Reading) {
        self.take(
            &Arc::from(file),
            reading,
            &mut Log::new(),
            &mut BTreeMap::new(),
        );
    }

    pub(super) fn reserve(&mut self, files: usize) {
        self.files.reserve(files);
        self.hosts.reserve(files);
    }

    pub(super) fn shrink(&mut self) {
        self.files.shrink_to_fit();
        self.hosts.shrink_to_fit();
    }

    fn take(&mut self, file: &Arc<str>, reading: Reading, log: &mut Log, troubled: &mut Troubles) {
        // The file and the names that it gave up: whoever waits for one of these is asked again.
        let mut freed = VecDeque::new();
        self.forget_trouble(file, troubled);
        match reading {
            Reading::Gone => {
                if let Some(File {
                    current: Some(old), ..
                }) = self.files.remove(file)
                {
                    self.release(file, &old, log, &mut freed);
                }
            }
            Reading::Bad(problems) => self.set_trouble(file, problems, None),
            Reading::Good(definition) => self.claim(file, definition, log, &mut freed),
        }
        while let Some(host) = freed.pop_front() {
            for other in self.waiting.get(&host).cloned().unwrap_or_default() {
                if let Some(definition) = self.forget_trouble(&other, troubled) {
                    self.claim(&other, definition, log, &mut freed);
                }
            }
        }
    }

    /// Puts a definition in force, or notes that it waits for its names.
    fn claim(
        &mut self,
        file: &Arc<str>,
        definition: Arc<Definition>,
        log: &mut Log,
        freed: &mut VecDeque<Box<str>>,
    ) {
        for holder in self.stale_holders(file, &definition) {
            if let Some(old) = self
                .files
                .get_mut(&holder)
                .and_then(|file| file.current.take())
            {
                self.release(&holder, &old, log, freed);
            }
        }
        let conflicts = self.conflicts(file, &definition);
        if !conflicts.is_empty() {
            return self.set_trouble(file, conflicts, Some(definition));
        }
        let entry = self.files.entry(file.clone()).or_default();
        if entry.current.as_ref() == Some(&definition) {
            return;
        }
        let old = entry.current.replace(definition.clone());
        if let Some(old) = old {
            self.release(file, &old, log, freed);
        }
        let owned = self.owners.entry(definition.owner.clone()).or_default();
        owned.insert(file.clone());
        self.in_force += 1;
        for host in definition.names() {
            self.hosts
                .insert(host.into(), (definition.clone(), file.clone()));
        }
        let name = definition.name.clone();
        log.entry(name).or_insert((None, None)).1 = Some(definition);
    }

    /// The files whose last good definition has a name that this one wants and that their present content does not:
    /// they only wait themselves, and hold what nobody claims. Without this, two files could not swap their names.
    fn stale_holders(&self, file: &str, definition: &Definition) -> Vec<Arc<str>> {
        let gave_up = |host: &str, holder: &Arc<str>| {
            let trouble = self
                .files
                .get(holder)
                .and_then(|file| file.trouble.as_ref());
            trouble
                .and_then(|t| t.waiting.as_ref())
                .is_some_and(|wanted| wanted.names().all(|name| name != host))
        };
        definition
            .names()
            .filter_map(|host| Some((host, &self.hosts.get(host)?.1)))
            .filter(|(host, holder)| &***holder != file && gave_up(host, holder))
            .map(|(_, holder)| holder.clone())
            .collect()
    }

    /// Takes a definition out of force.
    fn release(
        &mut self,
        file: &str,
        old: &Arc<Definition>,
        log: &mut Log,
        freed: &mut VecDeque<Box<str>>,
    ) {
        self.in_force -= 1;
        if let Some(owned) = self.owners.get_mut(&old.owner) {
            owned.remove(file);
            if owned.is_empty() {
                self.owners.remove(&old.owner);
            }
        }
        for host in old.names() {
            self.hosts.remove(host);
            if self.waiting.contains_key(host) {
                freed.push_back(host.into());
            }
        }
        log.entry(old.name.clone())
            .or_insert_with(|| (Some(old.clone()), None))
            .1 = None;
    }

    fn set_trouble(
        &mut self,
        file: &Arc<str>,
        problems: Vec<Problem>,
        waiting: Option<Arc<Definition>>,
    ) {
        for host in waiting.iter().flat_map(|definition| definition.names()) {
            self.waiting
                .entry(host.into())
                .or_default()
                .insert(file.clone());
        }
        self.troubled.insert(file.clone());
        self.files.entry(file.clone()).or_default().trouble =
            Some(Box::new(Trouble { problems, waiting }));
    }

    /// Clears what was wrong with a file, and answers the definition that waited.
    fn forget_trouble(
        &mut self,
        file: &Arc<str>,
        troubled: &mut Troubles,
    ) -> Option<Arc<Definition>> {
        let trouble = self
            .files
            .get_mut(file)
            .and_then(|file| file.trouble.take());
        self.troubled.remove(file);
        let Some(trouble) = trouble else {
            troubled.entry(file.clone()).or_default();
            return None;
        };
        troubled.entry(file.clone()).or_insert(trouble.problems);
        for host in trouble
            .waiting
            .iter()
            .flat_map(|definition| definition.names())
        {
            if let Some(files) = self.waiting.get_mut(host) {
                files.remove(file);
                if files.is_empty() {
                    self.waiting.remove(host);
                }
            }
        }
        trouble.waiting
    }
}
