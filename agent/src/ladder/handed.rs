//! Data on a connection that was handed over wakes who is frozen, too: it runs over the container's own loopback, and the kernel
//! tells of it there, see [`netns::LocalArrivals`].
//!
//! Only who is frozen by an operator has such connections: who has one is not frozen because of time or pressure. So what it
//! costs (a descriptor, a rule in the namespace and a task) is had by those only, while they rest.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use anyhow::{Context, Result};
use netns::LocalArrivals;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::container::Container;
use crate::site::Site;
use crate::sys;

/// Vhosts at a time. The kernel takes some 15 ms for the end of each, also one after the other when the agent is killed, and the
/// next one waits for that.
const MOST: usize = 128;

/// Who is woken so.
pub(crate) struct Handed {
    places: Arc<Semaphore>,
    /// The log says that it cannot be done for somebody.
    told: AtomicBool,
}

/// Of one container.
pub(crate) struct Watch {
    arrivals: AsyncFd<LocalArrivals>,
    _place: OwnedSemaphorePermit,
}

impl Default for Handed {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MOST)),
            told: AtomicBool::new(false),
        }
    }
}

impl Handed {
    /// Has the kernel tell of data from now on; None if nobody has a connection over the container's loopback. Blocks.
    pub(crate) fn watch(&self, container: &Container) -> Result<Option<Watch>> {
        // Others are the site's own, to itself: it would undo a freeze with them.
        if !container.was_handed_over() || container.local_connections()? == 0 {
            return Ok(None);
        }
        let place = self.place()?;
        let Some(arrivals) = container.local_arrivals()? else {
            return Ok(None);
        };
        Ok(Some(Watch {
            arrivals: sys::watch_arrivals(arrivals)?,
            _place: place,
        }))
    }

    fn place(&self) -> Result<OwnedSemaphorePermit> {
        let place = self.places.clone().try_acquire_owned();
        place.with_context(|| format!("{MOST} frozen sites have such connections already"))
    }

    /// It cannot be done for this vhost, and in most cases for no other one: said once.
    pub(crate) fn failed(&self, vhost: &str, error: &anyhow::Error) {
        const WHAT: &str = "data on a connection that was handed over will not wake it";
        match self.told.swap(true, Ordering::Relaxed) {
            false => {
                tracing::warn!("{vhost}: {WHAT} (said once, whoever else is concerned): {error:#}")
            }
            true => tracing::debug!("{vhost}: {WHAT}: {error:#}"),
        }
    }
}

/// Wakes the vhost when data has come. Before that `over` may tell that it does not rest any more.
pub(crate) async fn attend(
    site: Arc<Site>,
    container: Weak<Container>,
    watch: Watch,
    over: oneshot::Receiver<()>,
) {
    tokio::select! {
        biased;
        _ = over => {}
        came = data(&watch.arrivals) => match (came, container.upgrade()) {
            (Ok(()), Some(container)) => site.handed_data_came(&container),
            (Err(error), Some(_)) => site.platform.ladder.handed.failed(&site.name, &error.into()),
            (_, None) => {}
        },
    }
    // The kernel takes its time to close it. Err: the agent is ending.
    let _ = tokio::task::spawn_blocking(move || drop(watch)).await;
}

async fn data(arrivals: &AsyncFd<LocalArrivals>) -> io::Result<()> {
    loop {
        let mut ready = arrivals.readable().await?;
        if arrivals.get_ref().read().map_err(io::Error::other)? {
            return Ok(());
        }
        ready.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn there_are_never_more_than_that() {
        let handed = Handed::default();
        let mut places: Vec<_> = (0..MOST).map(|_| handed.place().unwrap()).collect();
        let refused = handed.place().unwrap_err().to_string();
        assert!(refused.contains(&MOST.to_string()), "{refused}");
        places.pop();
        drop(handed.place().unwrap());
    }
}
