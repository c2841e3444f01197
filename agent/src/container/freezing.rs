//! Stopping all processes of a container: for as long as its vhost is frozen, and for moments in which they must not move.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use super::Container;

/// Who wants them stopped. The lock is held while the kernel is told, never while it carries it out.
#[derive(Debug, Default)]
pub(super) struct Freezing(Mutex<Wishes>);

#[derive(Debug, Default)]
struct Wishes {
    /// Its vhost is frozen.
    vhost: bool,
    /// There is a [`Still`].
    still: bool,
}

impl Freezing {
    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While it lives no process of the container runs or is born. Then all go on, unless their vhost is frozen by now.
pub struct Still<'a>(&'a Container);

impl Drop for Still<'_> {
    fn drop(&mut self) {
        let mut wishes = self.0.freezing.wishes();
        wishes.still = false;
        if !wishes.vhost
            && let Err(error) = self.0.tell_frozen(false)
            // It has ended meanwhile.
            && self.0.group.is_frozen().is_ok()
        {
            tracing::error!("{error:#}");
        }
    }
}

impl Container {
    /// Tells the kernel to freeze or thaw all its processes, without waiting until it has; see [`Self::frozen`].
    pub fn set_frozen(&self, frozen: bool) -> Result<()> {
        let mut wishes = self.freezing.wishes();
        wishes.vhost = frozen;
        match wishes.still {
            // As it will be in a moment.
            true => Ok(()),
            false => self.tell_frozen(frozen),
        }
    }

    /// As it goes on with an agent that has just started, whatever the last one had asked for.
    pub(crate) fn found_frozen(&self, frozen: bool) {
        if let Err(error) = self.set_frozen(frozen) {
            tracing::debug!("{error:#}");
        }
    }

    fn tell_frozen(&self, frozen: bool) -> Result<()> {
        let result = if frozen {
            self.group.freeze(Duration::ZERO)
        } else {
            self.group.thaw(Duration::ZERO)
        };
        match result {
            Ok(()) | Err(cgroup::Error::Timeout { .. }) => Ok(()),
            Err(error) => Err(error).with_context(|| {
                let verb = if frozen { "freeze" } else { "thaw" };
                format!("cannot {verb} {}", self.vhost)
            }),
        }
    }

    /// Stops all its processes for a moment; blocks until they have, at most for `limit`. Only one may ask at a time.
    pub(super) fn still(&self, limit: Duration) -> Result<Still<'_>> {
        self.freezing.wishes().still = true;
        // From here on dropping it lets them go on.
        let still = Still(self);
        self.group
            .freeze(limit)
            .with_context(|| format!("cannot stop the processes of {}", self.vhost))?;
        Ok(still)
    }

    /// Waits until all its processes are frozen; false if they are not within `limit`.
    pub async fn frozen(&self, limit: Duration) -> bool {
        let end = tokio::time::Instant::now() + limit;
        loop {
            if self.group.is_frozen().unwrap_or(false) {
                return true;
            }
            if tokio::time::Instant::now() >= end {
                return false;
            }
            // cgroup.events tells at most every 10 ms, so asking is no worse than waiting for it.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
