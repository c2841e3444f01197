//! The patterns of agent.toml with their definitions, which are read again when their files change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{HostPattern, PathPattern, host_of_entry, listed_in};
use crate::config::agent::{AgentConfig, AliasConfig};
use crate::config::definition::{Definition, Rules};
use crate::config::problem::Problem;
use crate::config::store::Dir;

/// All patterns, in the order of agent.toml: the first that matches a host name has it.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    rules: Rules,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    pattern: HostPattern,
    documents: PathPattern,
    file: PathBuf,
    /// The last good definition.
    definition: Option<Arc<Definition>>,
    problems: Vec<Problem>,
}

/// What reading definition files again has changed.
#[derive(Debug, Default)]
pub struct Reloaded {
    /// The patterns whose vhosts have another definition now.
    pub changed: Vec<HostPattern>,
    /// What is wrong; the last good definition stays in force.
    pub problems: Vec<Problem>,
}

impl Patterns {
    /// Reads the definitions of all patterns of a configuration; see [`Patterns::problems`].
    pub fn load(config: &AgentConfig) -> Self {
        let entry = |alias: &AliasConfig| Entry {
            pattern: alias.pattern.clone(),
            documents: alias.documents.clone(),
            file: config.directory().join(&alias.definition),
            definition: None,
            problems: Vec::new(),
        };
        let mut patterns = Patterns {
            rules: config.rules(),
            entries: config.alias.iter().map(entry).collect(),
        };
        for file in patterns.definition_files() {
            patterns.reload(&file);
        }
        patterns
    }

    /// The definition files, to be watched.
    pub fn definition_files(&self) -> BTreeSet<PathBuf> {
        self.entries
            .iter()
            .map(|entry| entry.file.clone())
            .collect()
    }

    /// What is wrong at present.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.entries.iter().flat_map(|entry| &entry.problems)
    }

    /// Whether every pattern has a definition: vhosts of one that has none are not gone.
    pub fn complete(&self) -> bool {
        self.entries.iter().all(|entry| entry.definition.is_some())
    }

    /// Reads a definition file again, for all patterns that use it.
    pub fn reload(&mut self, file: &Path) -> Reloaded {
        let mut reloaded = Reloaded::default();
        if !self.entries.iter().any(|entry| entry.file == file) {
            return reloaded;
        }
        let read = read(file, &self.rules).map(Arc::new);
        if let Err(problems) = &read {
            reloaded.problems.clone_from(problems);
        }
        for entry in self.entries.iter_mut().filter(|entry| entry.file == file) {
            match &read {
                Ok(definition) => {
                    entry.problems.clear();
                    if entry.definition.as_ref() != Some(definition) {
                        entry.definition = Some(definition.clone());
                        reloaded.changed.push(entry.pattern.clone());
                    }
                }
                Err(problems) => entry.problems.clone_from(problems),
            }
        }
        reloaded
    }

    /// The definition of a vhost by its pattern, whether or not its documents exist: see [`exists`].
    pub fn find(&self, host: &str) -> Option<Arc<Definition>> {
        let entry = self.entry_of(host)?;
        let documents = entry.documents.expand(host)?;
        let definition = Definition {
            name: host.into(),
            documents: Some(documents.into()),
            ..Definition::clone(entry.definition.as_ref()?)
        };
        Some(Arc::new(definition))
    }

    /// Whether the vhosts of a pattern are this owner's.
    pub fn has_owner(&self, owner: &str) -> bool {
        let mut definitions = self.entries.iter().filter_map(|e| e.definition.as_ref());
        definitions.any(|definition| *definition.owner == *owner)
    }

    fn entry_of(&self, host: &str) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.pattern.matches(host))
    }

    /// The directories in which the vhosts of patterns are entries, to be watched and listed.
    pub fn listed_directories(&self) -> BTreeSet<PathBuf> {
        self.entries
            .iter()
            .filter_map(|entry| listed_in(&entry.documents))
            .collect()
    }

    /// The vhosts whose documents are this entry of a listed directory.
    pub fn hosts_of_entry(&self, directory: &Path, name: &str) -> Vec<String> {
        self.entries
            .iter()
            .filter(|entry| listed_in(&entry.documents).as_deref() == Some(directory))
            .filter_map(|entry| {
                let host = host_of_entry(&entry.pattern, &entry.documents, name)?;
                // An earlier pattern may have this host, with other documents.
                std::ptr::eq(self.entry_of(&host)?, entry).then_some(host)
            })
            .collect()
    }

    /// Lists the vhosts of a listed directory. Blocks as long as its file system does.
    pub fn list(&self, directory: &Path) -> std::io::Result<BTreeSet<String>> {
        let mut hosts = BTreeSet::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Some(name) = entry.file_name().to_str()
            {
                hosts.extend(self.hosts_of_entry(directory, name));
            }
        }
        Ok(hosts)
    }
}

/// Whether a vhost's documents are there: a directory, not a link to one. Blocks as long as its file system does.
pub fn exists(definition: &Definition) -> bool {
    let documents = definition.documents.as_ref();
    documents.is_some_and(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_dir()))
}

fn read(file: &Path, rules: &Rules) -> Result<Definition, Vec<Problem>> {
    let shown = file.to_string_lossy();
    let located = |problem: Problem| vec![problem.in_file(&shown)];
    let (Some(parent), Some(name)) = (
        file.parent(),
        file.file_name().and_then(|name| name.to_str()),
    ) else {
        return Err(located(Problem::new(
            "is not the name of a definition file (*.toml)",
        )));
    };
    let text = Dir::open(parent)
        .and_then(|dir| dir.read(name))
        .map_err(located)?;
    let text = text.ok_or_else(|| {
        located(Problem::new(
            "does not exist; a pattern of agent.toml names it",
        ))
    })?;
    let definition = Definition::from_toml(&text).map_err(located)?;
    let checked = definition.validate_pattern(rules);
    checked.map_err(|problems| {
        problems
            .into_iter()
            .map(|problem| problem.in_file(&shown))
            .collect::<Vec<_>>()
    })?;
    Ok(definition)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;
    use crate::config::Overrides;

    const PHP: &str = "owner = \"acme\"\ncommand = [\"php\"]\nlisten = \"tcp:8080\"\n";

    fn patterns(dir: &Path) -> Patterns {
        let root = dir.display();
        let config = format!(
            "[[alias]]\npattern = \"*.example.net\"\ndocuments = \"{root}/net/%1\"\ndefinition = \"php.toml\"\n\
             [[alias]]\npattern = \"**\"\ndocuments = \"{root}/all/%h\"\ndefinition = \"php.toml\"\n"
        );
        fs::write(dir.join("agent.toml"), config).unwrap();
        let overrides = Overrides {
            config: Some(dir.join("agent.toml")),
            ..Overrides::default()
        };
        Patterns::load(&AgentConfig::load(&overrides).unwrap())
    }

    #[test]
    fn finds_lists_and_reloads() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("php.toml");
        for made in [
            "net/shop",
            "net/Bad Name",
            "all/a.example.org",
            "all/x.example.net",
        ] {
            fs::create_dir_all(dir.path().join(made)).unwrap();
        }
        fs::write(dir.path().join("net/file"), "x").unwrap();
        let mut all = patterns(dir.path());
        assert_eq!(all.problems().count(), 2, "the definition is not there yet");
        assert!(all.find("shop.example.net").is_none());
        fs::write(&file, PHP).unwrap();
        assert_eq!(all.reload(&file).changed.len(), 2);
        assert_eq!(all.problems().count(), 0);

        let shop = all.find("shop.example.net").unwrap();
        assert_eq!(
            (&*shop.name, shop.documents.as_deref()),
            ("shop.example.net", Some(&*dir.path().join("net/shop")))
        );
        assert_eq!(shop.validate(&all.rules), Ok(()));
        assert!(exists(&shop) && !exists(&all.find("none.example.net").unwrap()));
        assert!(all.find("../x").is_none());
        let listed: Vec<String> = all
            .listed_directories()
            .iter()
            .flat_map(|at| all.list(at).unwrap())
            .collect();
        assert_eq!(
            listed,
            ["a.example.org", "shop.example.net"],
            "x.example.net belongs to the first pattern"
        );

        assert!(all.reload(&file).changed.is_empty());
        fs::write(&file, format!("name = \"a\"\n{PHP}")).unwrap();
        let reloaded = all.reload(&file);
        assert!(
            reloaded.problems[0]
                .to_string()
                .contains("name: must not be set here"),
            "{reloaded:?}"
        );
        assert!(
            all.find("shop.example.net").is_some(),
            "the last good definition stays"
        );
        fs::write(&file, PHP.replace("8080", "8081")).unwrap();
        assert_eq!(all.reload(&file).changed.len(), 2);
        assert_eq!(
            all.find("shop.example.net").unwrap().listen,
            crate::config::definition::Listen::Tcp(8081)
        );
    }
}
