//! Disk space of vhosts: a project quota of ext4 or xfs over each one's documents.
//!
//! `kernel` has the system calls, `walk` labels a tree, `table` knows whose project is which. A vhost that never had a
//! limit costs one look-up.

mod kernel;
mod readers;
mod table;
mod walk;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, TryLockError};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use crate::config::Limits;
use crate::config::units::Bytes;
use crate::container::documents::Documents;
use crate::doctor::project_quotas_advice;
use crate::platform::Platform;
pub use kernel::Quota;
use kernel::Quotas;
use readers::Readers;
use table::{FIRST, LAST, Project, Table};
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
        let fail = || format!("cannot limit disk of {vhost}");
        let Some(tree) = tree else {
            bail!(
                "{}: there are no documents that it would be for; set `documents` or leave disk out",
                fail()
            );
        };
        self.set(vhost, tree, (bytes / BLOCK).max(1) * BLOCK, below_use)
            .with_context(fail)
    }

    fn set(
        &self,
        vhost: &str,
        tree: Tree<'_>,
        bytes: u64,
        below_use: BelowUse,
    ) -> Result<Option<u64>> {
        able(tree)?;
        let top = rustix::fs::openat(
            tree.fd,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .with_context(|| format!("cannot read {}", tree.path.display()))?;
        let mut label = kernel::label(top.as_fd())
            .with_context(|| format!("cannot read the project of {}", tree.path.display()))?;
        let others = |project: u32| match self.table.vhost_of(project) {
            Some(other) if &*other == vhost => None,
            Some(other) => Some(other.to_string()),
            None => None,
        };
        if let Some(other) = others(label.project) {
            bail!(
                "{} is, or is inside, the documents of {other}, whose disk limit counts them; give it documents of its \
                 own, or lift that limit and remove that site",
                tree.path.display()
            );
        }
        if label.project != 0 && !(FIRST..=LAST).contains(&label.project) {
            bail!(
                "{} has the project id {}, which somebody else has given it; take it away (chattr -R -p 0, or \
                 xfs_quota's project -C) if nobody needs it",
                tree.path.display(),
                label.project
            );
        }
        if let Some(known) = self.table.get(vhost)
            && known.documents != tree.path
        {
            // The old tree is not its documents any more.
            self.forget(vhost);
        }
        let project = self.table.add(vhost, tree.path, tree.fd)?;
        let id = project.id;
        let mut labelled = try_lock(&project)?;
        if label.project != id {
            label = kernel::label(top.as_fd())?;
        }
        let before = kernel::quota(tree.fd, id)
            .context("cannot read its quota")?
            .limit;
        let right = *labelled && label.project == id && label.inherited;
        let mut attempt = || -> Result<()> {
            if !right {
                let _place = self.walks.take()?;
                // What is above the limit could not be labelled.
                kernel::set_limit(tree.fd, id, None).context("cannot set its quota")?;
                self.table.note(vhost, &project, &mut labelled, false)?;
                walk_all(vhost, tree, id, &others)?;
                self.table.note(vhost, &project, &mut labelled, true)?;
            }
            let write = !right || before != Some(bytes);
            put(tree.fd, id, before, bytes, write, below_use)
        };
        match attempt() {
            Ok(()) => Ok(before),
            Err(error) => match kernel::set_limit(tree.fd, id, before) {
                Ok(()) => Err(error),
                Err(undo) => Err(error.context(format!("the old limit is not back: {undo}"))),
            },
        }
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

/// Gives all documents to the project, on disk too when this returns.
fn walk_all(vhost: &str, tree: Tree<'_>, project: u32, others: walk::Others<'_>) -> Result<()> {
    let began = std::time::Instant::now();
    let path = tree.path.display();
    let new = walk::label_all(tree.fd, project, others)
        .with_context(|| format!("cannot count the documents in {path}"))?;
    let readable = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(tree.fd, ".", readable, Mode::empty())?;
    rustix::fs::syncfs(top).with_context(|| format!("cannot write out {path}"))?;
    let took = began.elapsed().as_secs_f64();
    tracing::info!(
        "{vhost}: {new} files in {path} are counted for its disk limit from now on ({took:.3} s)"
    );
    Ok(())
}

/// Writes a limit where it is not yet, and reads it back.
fn put(
    fs: BorrowedFd<'_>,
    project: u32,
    before: Option<u64>,
    bytes: u64,
    write: bool,
    below_use: BelowUse,
) -> Result<()> {
    if below_use == BelowUse::Refuse && before != Some(bytes) {
        let used = kernel::quota(fs, project)
            .context("cannot read its quota")?
            .used;
        if bytes < used {
            bail!(
                "{} is below the {} in use; raise it or remove files",
                Bytes(bytes),
                cgroup::convert::human_bytes(used)
            );
        }
    }
    if !write {
        return Ok(());
    }
    kernel::set_limit(fs, project, Some(bytes)).context("cannot set its quota")?;
    let now = kernel::quota(fs, project).context("cannot read its quota back")?;
    let files = kernel::files_within(bytes);
    if now.most_files != Some(files) {
        bail!(
            "room for {files} files was written and {:?} read back",
            now.most_files
        );
    }
    if now.limit != Some(bytes) {
        bail!(
            "{} was written and {} read back",
            Bytes(bytes),
            now.limit
                .map_or_else(|| "none".to_owned(), |limit| Bytes(limit).to_string())
        );
    }
    Ok(())
}

/// Refuses where the kernel would not keep a limit.
fn able(tree: Tree<'_>) -> Result<()> {
    let state = kernel::quotas(tree.fd)
        .with_context(|| format!("cannot ask for the quotas of {}", tree.path.display()))?;
    let (kind, advice) = match state {
        Quotas::Enforced => return Ok(()),
        Quotas::Absent | Quotas::Counted => project_quotas_advice(tree.path),
    };
    let lack = if state == Quotas::Counted {
        "with project quotas that are counted and not enforced"
    } else {
        "without project quotas"
    };
    bail!("{} is on {kind} {lack}; {advice}", tree.path.display())
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
        platform.disk.limit(&vhost, tree, wanted, below_use)
    };
    tokio::task::spawn_blocking(work)
        .await
        .context("the task that limits disk space failed")?
}

/// Nobody waits for a walk through documents: it may take as long as their owner likes, and threads are everybody's.
fn try_lock(project: &Project) -> Result<MutexGuard<'_, bool>> {
    match project.labelled.try_lock() {
        Ok(guard) => Ok(guard),
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => bail!(
            "{} is being gone through for its disk limit; try again when that is done",
            project.documents.display()
        ),
    }
}
