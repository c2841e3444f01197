//! Reading quotas in threads that nobody waits for longer than a moment: the path to a vhost's documents may lead over storage
//! that does not answer, and one that hangs is given up.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::kernel::{self, Quota};
use super::open_near;
use super::table::Project;

/// How long who wants to know waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many may be under way, and hang.
const MOST: usize = 64;

/// How many threads read.
#[derive(Debug, Default)]
pub(super) struct Readers(Arc<AtomicUsize>);

/// One of them.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Readers {
    /// Limit and use now.
    pub(super) fn read(&self, project: &Arc<Project>) -> Result<Quota> {
        let (tell, told) = sync_channel(1);
        self.begin(project, Some(tell))?;
        // Some ask on a thread that serves others too.
        let told = tokio::task::block_in_place(|| told.recv_timeout(PATIENCE));
        told.with_context(|| {
            format!(
                "the storage of {} does not answer",
                project.documents.display()
            )
        })?
    }

    /// What was read last, and has it read again unless that is under way.
    pub(super) fn recent(&self, project: &Arc<Project>) -> Option<Quota> {
        if Arc::strong_count(&project.reading) == 1 {
            // Err: as many hang as may.
            let _ = self.begin(project, None);
        }
        *project
            .recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, project: &Arc<Project>, tell: Option<SyncSender<Result<Quota>>>) -> Result<()> {
        if self.0.fetch_add(1, Ordering::Relaxed) >= MOST {
            drop(Place(self.0.clone()));
            bail!("{MOST} others are being read; their storage does not answer");
        }
        let place = Place(self.0.clone());
        let (project, reading) = (project.clone(), project.reading.clone());
        let work = move || {
            let quota = quota_of(&project);
            if let Ok(quota) = &quota {
                *project
                    .recent
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some(*quota);
            }
            drop((place, reading));
            // Err: whoever asked has given up.
            let _ = tell.map(|tell| tell.try_send(quota));
        };
        std::thread::Builder::new()
            .name("disk-quota".into())
            .spawn(work)
            .context("cannot start a thread")?;
        Ok(())
    }
}

fn quota_of(project: &Project) -> Result<Quota> {
    let fs = open_near(&project.documents)?;
    Ok(kernel::quota(fs.as_fd(), project.id)?)
}
