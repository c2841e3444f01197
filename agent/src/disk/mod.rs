//! Disk space of vhosts: a project quota of ext4 or xfs over each one's documents.
//!
//! `kernel` has the system calls, `walk` labels a tree, `set` sets a limit, `table` knows whose project is which. A vhost that never had a
//! limit costs one look-up.

mod kernel;
mod readers;
mod set;
mod table;
mod walk;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use crate::config::Limits;
use crate::container::documents::Documents;
use crate::platform::Platform;
pub use kernel::Quota;
use readers::Readers;
use set::try_lock;
use table::Table;
use walk::Walks;

/// Limits are whole blocks of the file system, of which none has larger ones.
const BLOCK: u64 = 4096;

/// The documents of a vhost, opened without following a link.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    /// As its definition says.
    pub path: &'a Path,
    /// May be O_PATH.
    pub fd: BorrowedFd<'a>,
}

/// What is to be done about a limit that is below what is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BelowUse {
    /// Somebody asks who can be told.
    Refuse,
    /// It holds all the same: nothing more can be written. A site that has too much still serves it.
    Enforce,
}

/// The projects of all vhosts that have or had a limit.
#[derive(Debug)]
pub struct Projects {
    table: Table,
    walks: Walks,
    readers: Readers,
}

impl Projects {
    /// Reads what an earlier agent has kept in `directory`.
    pub fn load(directory: PathBuf) -> Result<Self> {
        Ok(Self {
            table: Table::load(directory)?,
            walks: Walks::default(),
            readers: Readers::default(),
        })
    }

    /// Whether it has or had a limit: then its quota has to be looked at.
    pub fn knows(&self, vhost: &str) -> bool {
        self.table.get(vhost).is_some()
    }

    /// All that have or had a limit.
    pub fn vhosts(&self) -> Vec<Arc<str>> {
        self.table.vhosts()
    }

    /// Limit and use as the kernel has them; None where there never was a limit. Waits for a moment only where the storage
    /// does not answer.
    pub fn quota(&self, vhost: &str) -> Option<Result<Quota>> {
        let project = self.table.get(vhost)?;
        Some(
            self.readers
                .read(&project)
                .with_context(|| format!("cannot read the disk quota of {vhost}")),
        )
    }

    /// As [`Self::quota`] when it was last read, and has it read again. Waits for nothing.
    pub fn recent(&self, vhost: &str) -> Option<Quota> {
        self.readers.recent(&self.table.get(vhost)?)
    }

    /// Whether all of its documents are counted; waits for who is going through them.
    pub async fn counted(&self, vhost: &str) -> bool {
        match self.table.get(vhost) {
            Some(project) => *project.labelled.lock().await,
            None => false,
        }
    }

    /// Whether its documents are being gone through.
    pub fn counting(&self, vhost: &str) -> bool {
        let project = self.table.get(vhost);
        project.is_some_and(|project| project.labelled.try_lock().is_err())
    }

    /// When whoever goes or went through its documents last got on; later than now while all of it is written out.
    pub fn got_on(&self, vhost: &str) -> Option<Instant> {
        self.table.get(vhost)?.got_on()
    }

    /// Limits what the documents of a vhost may take, or lifts that. Returns the limit before. Blocks; the first time
    /// for as long as it takes to go through the documents.
    pub fn limit(
        &self,
        vhost: &str,
        tree: Option<Tree<'_>>,
        wanted: Option<u64>,
        below_use: BelowUse,
    ) -> Result<Option<u64>> {
        let Some(bytes) = wanted else {
            return self.lift(vhost);
        };
        let set = || self.set(vhost, some(tree)?, whole(bytes), below_use);
        set().with_context(|| format!("cannot limit disk of {vhost}"))
    }

    /// Refuses what [`Self::limit`] would refuse, but for what only going through the documents shows, and changes nothing.
    pub fn check(&self, vhost: &str, tree: Option<Tree<'_>>, wanted: Option<u64>) -> Result<()> {
        let Some(bytes) = wanted else {
            let project = self.table.get(vhost);
            let free = project.map_or(Ok(()), |project| try_lock(&project).map(drop));
            return free.with_context(|| format!("cannot lift the disk limit of {vhost}"));
        };
        let look = || self.would_set(vhost, some(tree)?, whole(bytes));
        look().with_context(|| format!("cannot limit disk of {vhost}"))
    }

    /// Lifts the limit; its documents stay counted, so that the next limit costs little. Returns the limit before.
    fn lift(&self, vhost: &str) -> Result<Option<u64>> {
        let Some(project) = self.table.get(vhost) else {
            return Ok(None);
        };
        let _alone = try_lock(&project)?;
        let attempt = || -> Result<Option<u64>> {
            let fs = open_near(&project.documents)?;
            let before = kernel::quota(fs.as_fd(), project.id)?.limit;
            if before.is_some() {
                kernel::set_limit(fs.as_fd(), project.id, None)?;
            }
            Ok(before)
        };
        attempt().with_context(|| format!("cannot lift the disk limit of {vhost}"))
    }

    /// The vhost is gone: lifts its limit and gives its project away. Blocks.
    pub fn forget(&self, vhost: &str) {
        // Where the file system is gone there is nothing to lift.
        if let Err(error) = self.lift(vhost) {
            tracing::warn!("{error:#}");
        }
        if let Err(error) = self.table.remove(vhost) {
            tracing::error!("{vhost}: {error:#}");
        }
    }
}

/// There have to be documents.
fn some(tree: Option<Tree<'_>>) -> Result<Tree<'_>> {
    tree.context("there are no documents that it would be for; set `documents` or leave disk out")
}

/// Whole blocks.
fn whole(bytes: u64) -> u64 {
    (bytes / BLOCK).max(1) * BLOCK
}

/// The directory, or what is left of the way to it: something on its file system.
fn open_near(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut last = None;
    for path in path.ancestors() {
        match rustix::fs::openat2(CWD, path, flags, Mode::empty(), resolve) {
            Ok(directory) => return Ok(directory),
            Err(errno) => last = last.or(Some(errno)),
        }
    }
    let errno = last.unwrap_or(rustix::io::Errno::NOENT);
    Err(errno).with_context(|| format!("cannot open {}", path.display()))
}

/// Before the first process of a new container is. Costs one look-up where there is and was no limit.
pub async fn limit_new(
    platform: &Arc<Platform>,
    vhost: &Arc<str>,
    path: Option<&Path>,
    documents: Option<&Documents>,
    limits: &Limits,
) -> Result<()> {
    let mount = documents.map(|documents| documents.mount.as_fd());
    limit(platform, vhost, path.zip(mount), limits, BelowUse::Enforce)
        .await
        .map(drop)
}

/// [`Projects::limit`] in a thread that may block.
pub async fn limit(
    platform: &Arc<Platform>,
    vhost: &Arc<str>,
    tree: Option<(&Path, BorrowedFd<'_>)>,
    limits: &Limits,
    below_use: BelowUse,
) -> Result<Option<u64>> {
    let wanted = limits.disk().and_then(|disk| disk.finite());
    if wanted.is_none() && !platform.disk.knows(vhost) {
        return Ok(None);
    }
    blocking(platform, vhost, tree, move |disk, vhost, tree| {
        disk.limit(vhost, tree, wanted, below_use)
    })
    .await
}

/// [`Projects::check`] in a thread that may block.
pub async fn check(
    platform: &Arc<Platform>,
    vhost: &Arc<str>,
    tree: Option<(&Path, BorrowedFd<'_>)>,
    limits: &Limits,
) -> Result<()> {
    let wanted = limits.disk().and_then(|disk| disk.finite());
    if wanted.is_none() && !platform.disk.knows(vhost) {
        return Ok(());
    }
    blocking(platform, vhost, tree, move |disk, vhost, tree| {
        disk.check(vhost, tree, wanted)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    platform: &Arc<Platform>,
    vhost: &Arc<str>,
    tree: Option<(&Path, BorrowedFd<'_>)>,
    work: impl FnOnce(&Projects, &str, Option<Tree<'_>>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let tree = match tree {
        Some((path, fd)) => Some((path.to_owned(), fd.try_clone_to_owned()?)),
        None => None,
    };
    let (platform, vhost) = (platform.clone(), vhost.clone());
    let work = move || {
        let tree = tree.as_ref().map(|(path, fd)| Tree {
            path,
            fd: fd.as_fd(),
        });
        work(&platform.disk, &vhost, tree)
    };
    tokio::task::spawn_blocking(work)
        .await
        .context("the task that limits disk space failed")?
}
