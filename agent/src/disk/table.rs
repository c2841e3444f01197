//! Which project belongs to which vhost: on disk before it is used, so that no two ever have the same.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::kernel::{self, Quota};
use crate::persist::{self, Durable};

/// Ours: "F" and 24 bits. Whoever gives ids away by hand begins at 1.
pub(super) const FIRST: u32 = 0x4600_0000;
pub(super) const LAST: u32 = 0x46ff_ffff;

/// How many project ids are asked for.
const MOST_TRIES: u32 = 1000;

/// `disk/VHOST.json` of the state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    project: u32,
    documents: PathBuf,
    labelled: bool,
}

/// The project of one vhost.
#[derive(Debug)]
pub(super) struct Project {
    pub(super) id: u32,
    /// The tree that has it.
    pub(super) documents: PathBuf,
    /// All of that tree has it. Locked while it is labelled and its limit set.
    pub(super) labelled: tokio::sync::Mutex<bool>,
    /// When a walk through it last got on.
    got_on: Mutex<Option<Instant>>,
    /// Limit and use when they were read last.
    pub(super) recent: Mutex<Option<Quota>>,
    /// Held by those who read them.
    pub(super) reading: Arc<()>,
}

impl Project {
    /// Somebody goes through the tree, and has got on or does at the latest then.
    pub(super) fn get_on(&self, at: Instant) {
        *self.got_on.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    pub(super) fn got_on(&self) -> Option<Instant> {
        *self.got_on.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All projects of this agent.
#[derive(Debug)]
pub(super) struct Table {
    directory: PathBuf,
    /// Held by who gives a project away or takes one back, which waits for disks.
    changing: Mutex<()>,
    /// Held for a look only: every start does.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    projects: HashMap<Arc<str>, Arc<Project>>,
    vhosts: HashMap<u32, Arc<str>>,
    /// Where to look for the next that is free.
    next: u32,
}

impl Table {
    /// Reads what an earlier agent has given away.
    pub(super) fn load(directory: PathBuf) -> Result<Self> {
        let mut known = Known::default();
        let entries = std::fs::read_dir(&directory)
            .with_context(|| format!("cannot read {}", directory.display()))?;
        for file in entries {
            let name = file?.file_name();
            let Some(vhost) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            match persist::read::<Entry>(&directory.join(&name)) {
                Ok(Some(entry)) => known.put(vhost.into(), entry),
                Ok(None) => {}
                // Its project stays taken as long as its files have it: see `free`.
                Err(error) => tracing::error!("{error:#}; its documents are labelled anew"),
            }
        }
        Ok(Self {
            directory,
            changing: Mutex::new(()),
            known: Mutex::new(known),
        })
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, vhost: &str) -> Option<Arc<Project>> {
        self.known().projects.get(vhost).cloned()
    }

    pub(super) fn vhosts(&self) -> Vec<Arc<str>> {
        self.known().projects.keys().cloned().collect()
    }

    /// Whose project that is.
    pub(super) fn vhost_of(&self, project: u32) -> Option<Arc<str>> {
        self.known().vhosts.get(&project).cloned()
    }

    /// Takes a project that nobody has and that counts nothing on this file system.
    pub(super) fn add(
        &self,
        vhost: &str,
        documents: &Path,
        fs: BorrowedFd<'_>,
    ) -> Result<Arc<Project>> {
        let _alone = self.changing();
        if let Some(project) = self.get(vhost) {
            return Ok(project);
        }
        let project = self.free(|project| {
            let quota = kernel::quota(fs, project).context("cannot read its quotas")?;
            Ok(quota == Quota::default())
        })?;
        let entry = Entry {
            project,
            documents: documents.to_owned(),
            labelled: false,
        };
        self.write(vhost, &entry)?;
        self.known().put(vhost.into(), entry);
        self.get(vhost).context("it has been taken away again")
    }

    /// Notes, on disk first, whether all of its tree is labelled.
    pub(super) fn note(
        &self,
        vhost: &str,
        project: &Project,
        labelled: &mut bool,
        now: bool,
    ) -> Result<()> {
        if *labelled != now {
            let entry = Entry {
                project: project.id,
                documents: project.documents.clone(),
                labelled: now,
            };
            self.write(vhost, &entry)?;
            *labelled = now;
        }
        Ok(())
    }

    fn write(&self, vhost: &str, entry: &Entry) -> Result<()> {
        persist::write(&self.path(vhost), entry, Durable::Host)
    }

    /// Its number may be given to others from now on.
    pub(super) fn remove(&self, vhost: &str) -> Result<()> {
        let _alone = self.changing();
        persist::remove_durably(&self.path(vhost))?;
        let mut known = self.known();
        if known.projects.remove(vhost).is_some() {
            known.vhosts.retain(|_, of| &**of != vhost);
        }
        Ok(())
    }

    /// One that no vhost has and `unused` says yes to: files of vhosts that are gone, or another agent, may have it. For who
    /// holds `changing`.
    fn free(&self, mut unused: impl FnMut(u32) -> Result<bool>) -> Result<u32> {
        let mut from = self.known().next;
        for _ in 0..MOST_TRIES {
            let candidate = self.known().candidate(from)?;
            if unused(candidate)? {
                return Ok(candidate);
            }
            from = candidate + 1;
        }
        anyhow::bail!(
            "{MOST_TRIES} project ids in a row count something on this file system already; see repquota -P"
        )
    }

    fn path(&self, vhost: &str) -> PathBuf {
        self.directory.join(format!("{vhost}.json"))
    }
}

impl Known {
    fn put(&mut self, vhost: Arc<str>, entry: Entry) {
        self.next = self.next.max(entry.project.saturating_add(1));
        self.vhosts.insert(entry.project, vhost.clone());
        let project = Project {
            id: entry.project,
            documents: entry.documents,
            labelled: tokio::sync::Mutex::new(entry.labelled),
            got_on: Mutex::default(),
            recent: Mutex::default(),
            reading: Arc::default(),
        };
        self.projects.insert(vhost, Arc::new(project));
    }

    /// One that no vhost has, beginning with `from`.
    fn candidate(&self, from: u32) -> Result<u32> {
        let mut candidate = from;
        for _ in FIRST..=LAST {
            if !(FIRST..=LAST).contains(&candidate) {
                candidate = FIRST;
            }
            if !self.vhosts.contains_key(&candidate) {
                return Ok(candidate);
            }
            candidate += 1;
        }
        anyhow::bail!("all {} project ids are in use", LAST - FIRST + 1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn entry(project: u32) -> Entry {
        Entry {
            project,
            documents: "/srv/www".into(),
            labelled: true,
        }
    }

    #[test]
    fn is_the_same_for_the_next_agent() {
        let directory = tempfile::tempdir().unwrap();
        let table = Table::load(directory.path().into()).unwrap();
        table.write("a.example.com", &entry(FIRST + 4)).unwrap();
        std::fs::write(directory.path().join("torn.json"), "{").unwrap();
        let next = Table::load(directory.path().into()).unwrap();
        let project = next.get("a.example.com").unwrap();
        assert_eq!(project.id, FIRST + 4);
        assert!(*project.labelled.try_lock().unwrap());
        assert_eq!(next.vhost_of(FIRST + 4).as_deref(), Some("a.example.com"));
        assert!(next.get("torn").is_none());
        next.remove("a.example.com").unwrap();
        assert!(next.vhost_of(FIRST + 4).is_none());
        assert!(
            Table::load(directory.path().into())
                .unwrap()
                .vhosts()
                .is_empty()
        );
    }

    proptest! {
        #[test]
        fn no_two_have_the_same(
            gone in proptest::collection::vec(0usize..40, 0..40),
            foreign in proptest::collection::btree_set(FIRST..FIRST + 60, 0..20),
            near_the_end in any::<bool>(),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let table = Table::load(directory.path().into()).unwrap();
            table.known().next = if near_the_end { LAST - 10 } else { 0 };
            let mut gone = gone.into_iter();
            for number in 0..40usize {
                let project = table.free(|project| Ok(!foreign.contains(&project))).unwrap();
                let mut known = table.known();
                prop_assert!((FIRST..=LAST).contains(&project) && !foreign.contains(&project));
                prop_assert!(!known.vhosts.contains_key(&project));
                known.put(format!("v{number}").into(), entry(project));
                if let Some(victim) = gone.next() {
                    let name = format!("v{victim}");
                    if known.projects.remove(&*name).is_some() {
                        known.vhosts.retain(|_, of| **of != *name);
                    }
                }
            }
        }
    }
}
