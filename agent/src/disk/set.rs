//! Sets a limit: looks whether it can be kept, gives all documents to the project if they are not yet, and reads it back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags};
use tokio::sync::MutexGuard;

use super::kernel::{self, Label, Quotas};
use super::table::{FIRST, LAST, Project};
use super::walk::{self, Walk};
use super::{BelowUse, Projects, Tree};
use crate::config::units::Bytes;
use crate::doctor::project_quotas_advice;

/// How long the file system may take to write out what a walk has changed, and who waits for that is patient.
const WRITE_OUT: Duration = Duration::from_secs(120);

impl Projects {
    pub(super) fn set(
        &self,
        vhost: &str,
        tree: Tree<'_>,
        bytes: u64,
        below_use: BelowUse,
    ) -> Result<Option<u64>> {
        let (top, mut label) = self.look(vhost, tree)?;
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
                self.table.note(vhost, &project, &mut labelled, false)?;
                // From the first directory on, not only when all are counted.
                kernel::set_limit(tree.fd, id, Some(bytes)).context("cannot set its quota")?;
                self.count(vhost, tree, &project, bytes, below_use)?;
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

    /// Whether [`Self::set`] would refuse, as far as that is known before the documents are counted.
    pub(super) fn would_set(&self, vhost: &str, tree: Tree<'_>, bytes: u64) -> Result<()> {
        let (_, label) = self.look(vhost, tree)?;
        let known = self.table.get(vhost);
        let Some(project) = known.filter(|known| known.documents == tree.path) else {
            return self.walks.take().map(drop);
        };
        let labelled = try_lock(&project)?;
        if !*labelled || label.project != project.id || !label.inherited {
            return self.walks.take().map(drop);
        }
        let before = kernel::quota(tree.fd, project.id)
            .context("cannot read its quota")?
            .limit;
        put(tree.fd, project.id, before, bytes, false, BelowUse::Refuse)
    }

    /// Refuses where a limit could not be kept or would count somebody else's files. Changes nothing.
    fn look(&self, vhost: &str, tree: Tree<'_>) -> Result<(OwnedFd, Label)> {
        able(tree)?;
        let top = rustix::fs::openat(
            tree.fd,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .with_context(|| format!("cannot read {}", tree.path.display()))?;
        let label = kernel::label(top.as_fd())
            .with_context(|| format!("cannot read the project of {}", tree.path.display()))?;
        if let Some(other) = self.other(vhost, label.project) {
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
        Ok((top, label))
    }

    /// Who else has a project.
    fn other(&self, vhost: &str, project: u32) -> Option<String> {
        let owner = self.table.vhost_of(project)?;
        (&*owner != vhost).then(|| owner.to_string())
    }

    /// Gives all documents to the project, on disk too when this returns. The limit is in force meanwhile, but where there
    /// turns out to be more already and the kernel counts nothing above it (it does for who may use resources beyond quotas).
    fn count(
        &self,
        vhost: &str,
        tree: Tree<'_>,
        project: &Project,
        bytes: u64,
        below_use: BelowUse,
    ) -> Result<()> {
        let began = Instant::now();
        let path = tree.path.display();
        let walk =
            Walk {
                project: project.id,
                others: &|id| self.other(vhost, id),
                step: &|| project.get_on(Instant::now()),
                full: &|| match below_use {
                    BelowUse::Refuse => bail!("{} is below what is in use", Bytes(bytes)),
                    BelowUse::Enforce => Ok(kernel::set_limit(tree.fd, project.id, None)
                        .context("cannot set its quota")?),
                },
            };
        let new = walk::label_all(tree.fd, &walk)
            .with_context(|| format!("cannot count the documents in {path}"))?;
        let readable = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::openat(tree.fd, ".", readable, Mode::empty())?;
        project.get_on(Instant::now() + WRITE_OUT);
        let written = rustix::fs::syncfs(top);
        project.get_on(Instant::now());
        written.with_context(|| format!("cannot write out {path}"))?;
        let took = began.elapsed().as_secs_f64();
        tracing::info!(
            "{vhost}: {new} files in {path} are counted for its disk limit from now on ({took:.3} s)"
        );
        Ok(())
    }
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

/// No thread waits for a walk through documents: it may take as long as their owner likes, and threads are everybody's.
pub(super) fn try_lock(project: &Project) -> Result<MutexGuard<'_, bool>> {
    project.labelled.try_lock().ok().with_context(|| {
        format!(
            "{} is being gone through for its disk limit; try again when that is done",
            project.documents.display()
        )
    })
}
