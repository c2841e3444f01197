//! The definitions in force, by file and by host name.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::read;
use crate::config::definition::{Definition, Rules};
use crate::config::problem::Problem;

/// What a change of files changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A vhost that was not there.
    Added(Arc<Definition>),
    /// A vhost whose definition is another now; its name is the same.
    Changed {
        /// The definition that was in force.
        old: Arc<Definition>,
        /// The one that is.
        new: Arc<Definition>,
    },
    /// A vhost that is gone.
    Removed(Arc<Definition>),
    /// A file that cannot be used. What it defined before stays in force.
    Problem(Problem),
    /// A file that had a problem and has none now.
    Solved(Arc<str>),
}

/// What was found in a file.
#[derive(Debug)]
pub(super) enum Reading {
    Gone,
    Good(Arc<Definition>),
    Bad(Vec<Problem>),
}

impl Reading {
    pub(super) fn of(parsed: Result<Definition, Vec<Problem>>) -> Self {
        parsed.map_or_else(Reading::Bad, |definition| {
            Reading::Good(Arc::new(definition))
        })
    }
}

/// What was read of some files; [`Definitions::take_readings`] puts it in force. Reading takes time and no lock.
#[derive(Debug)]
pub struct Readings(pub(super) Vec<(String, Reading)>);

/// What is known of a file.
#[derive(Debug, Default)]
pub(super) struct File {
    /// Its definition in force: the last good one.
    pub(super) current: Option<Arc<Definition>>,
    /// What keeps its content from being in force.
    pub(super) trouble: Option<Box<Trouble>>,
}

#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) problems: Vec<Problem>,
    /// The definition, if it only waits for a name that another file has.
    pub(super) waiting: Option<Arc<Definition>>,
}

/// All definitions in force.
#[derive(Debug, Default)]
pub struct Definitions {
    pub(super) rules: Rules,
    pub(super) files: HashMap<Arc<str>, File>,
    pub(super) hosts: HashMap<Box<str>, (Arc<Definition>, Arc<str>)>,
    /// The files whose definitions in force are an owner's; no entry for who has none.
    pub(super) owners: HashMap<Box<str>, BTreeSet<Arc<str>>>,
    /// Files with a definition in force.
    pub(super) in_force: usize,
    /// The files that wait for a host name to become free.
    pub(super) waiting: HashMap<Box<str>, BTreeSet<Arc<str>>>,
    pub(super) troubled: BTreeSet<Arc<str>>,
}

impl Definitions {
    /// None yet.
    pub fn new(rules: Rules) -> Self {
        Definitions {
            rules,
            ..Definitions::default()
        }
    }

    /// The vhost that answers under this host name (in normal form), by name or alias.
    pub fn by_host(&self, host: &str) -> Option<&Arc<Definition>> {
        self.hosts.get(host).map(|(definition, _)| definition)
    }

    /// The vhost of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Definition>> {
        self.by_host(name)
            .filter(|definition| &*definition.name == name)
    }

    /// The file that defines the vhost with this name or alias.
    pub fn file_of(&self, host: &str) -> Option<&str> {
        self.hosts.get(host).map(|(_, file)| &**file)
    }

    /// All vhosts, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.files.values().filter_map(|file| file.current.as_ref())
    }

    /// Whether any vhost is this owner's.
    pub fn has_owner(&self, owner: &str) -> bool {
        self.owners.contains_key(owner)
    }

    /// An owner's vhosts; costs what they are, however many others there are.
    pub fn of_owner(&self, owner: &str) -> impl Iterator<Item = &Arc<Definition>> {
        let files = self.owners.get(owner).into_iter().flatten();
        files.filter_map(|file| self.files.get(file)?.current.as_ref())
    }

    /// How many vhosts there are; counted as they come and go.
    pub fn count(&self) -> usize {
        self.in_force
    }

    /// What is wrong at present, by file name.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.troubled
            .iter()
            .filter_map(|file| self.files.get(file)?.trouble.as_ref())
            .flat_map(|t| &t.problems)
    }

    /// Whether every file's vhost is known. One that cannot be used, and never could since the agent's start, may define any.
    pub fn complete(&self) -> bool {
        let unknown = |file: &Arc<str>| self.files.get(file).is_none_or(|f| f.current.is_none());
        !self.troubled.iter().any(unknown)
    }

    /// What keeps a definition from being put into a file: the names that other files have.
    pub fn conflicts(&self, file: &str, definition: &Definition) -> Vec<Problem> {
        definition
            .names()
            .filter_map(|host| Some((host, self.file_of(host).filter(|holder| *holder != file)?)))
            .map(|(host, holder)| {
                Problem::new(format!("\"{host}\" is already defined in {holder}")).in_file(file)
            })
            .collect()
    }

    /// Takes a file's new content; nothing if the file is gone. Costs the same however many definitions there are.
    pub fn apply_change(&mut self, file: &str, content: Option<&str>) -> Vec<Change> {
        let reading = match content {
            None => Reading::Gone,
            Some(text) => Reading::of(read::parse(file, text, &self.rules)),
        };
        self.apply(vec![(file.to_owned(), reading)])
    }

    /// Takes what was read of files. Files that are gone come first, so a renamed file changes nothing.
    pub fn take_readings(&mut self, readings: Readings) -> Vec<Change> {
        self.apply(readings.0)
    }

    /// The files that are known.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(|file| &**file)
    }
}

#[cfg(test)]
impl Definitions {
    pub(super) fn reread(&mut self, dir: &super::Dir, names: &[String]) -> Vec<Change> {
        self.take_readings(super::read_files(dir, names, &self.rules))
    }

    pub(super) fn rescan(&mut self, path: &std::path::Path) -> Result<Vec<Change>, Problem> {
        let dir = super::Dir::open(path)?;
        let mut names: BTreeSet<String> = dir.names()?.into_iter().collect();
        names.extend(self.file_names().map(str::to_owned));
        Ok(self.reread(&dir, &Vec::from_iter(names)))
    }

    pub(super) fn hosts_len(&self) -> usize {
        self.hosts.len()
    }

    /// Every name leads to the definition and file that has it, nothing else is indexed, and whoever waits, waits for
    /// a name that another file has.
    pub(super) fn check(&self) {
        let mut names = 0;
        let mut owned = 0;
        for (file, known) in &self.files {
            assert!(known.current.is_some() || known.trouble.is_some());
            assert_eq!(known.trouble.is_some(), self.troubled.contains(file));
            for host in known
                .current
                .iter()
                .flat_map(|definition| definition.names())
            {
                names += 1;
                let (definition, holder) = &self.hosts[host];
                assert!(
                    Arc::ptr_eq(definition, known.current.as_ref().expect("it has names"))
                        && holder == file
                );
            }
            if let Some(current) = &known.current {
                owned += 1;
                assert!(self.owners[&current.owner].contains(file));
            }
            if let Some(wanted) = known
                .trouble
                .as_ref()
                .and_then(|trouble| trouble.waiting.as_ref())
            {
                assert!(
                    !self.conflicts(file, wanted).is_empty(),
                    "{file} waits for nothing"
                );
                assert!(wanted.names().all(|host| self.waiting[host].contains(file)));
            }
        }
        assert_eq!(names, self.hosts.len());
        assert_eq!(owned, self.in_force);
        assert!(self.owners.values().all(|files| !files.is_empty()));
        assert_eq!(
            owned,
            self.owners.values().map(BTreeSet::len).sum::<usize>()
        );
        assert!(
            self.waiting
                .values()
                .flatten()
                .all(|file| self.files[file].trouble.is_some())
        );
    }
}
