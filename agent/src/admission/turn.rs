//! One start's turn: from when it was asked for until others need not wait for it any more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::{Admission, Place};

/// For how long a start has its place, at most. A server that waits for something else before it listens uses no processor
/// meanwhile, and one that never listens must not keep others from starting.
const LOADING: Duration = Duration::from_secs(1);

/// See the module. What it has is given back with it.
#[derive(Debug)]
pub struct Turn {
    admission: Arc<Admission>,
    arrival: u64,
    had: Mutex<Had>,
}

#[derive(Debug)]
enum Had {
    Nothing,
    Place {
        since: Instant,
        _place: Place,
    },
    /// It has given its place back.
    Enough(Instant),
}

impl Turn {
    /// Of a start that is asked for now.
    pub(crate) fn new(admission: &Arc<Admission>) -> Self {
        Self {
            admission: admission.clone(),
            arrival: admission.arrival(),
            had: Mutex::new(Had::Nothing),
        }
    }

    /// Waits until the start may begin; at once if it has already (a second attempt).
    pub(crate) async fn come(&self, owner: &str) -> Result<()> {
        if self.begun().is_none() {
            let _place = self.admission.place(owner, self.arrival).await?;
            let since = Instant::now();
            *self.lock() = Had::Place { since, _place };
        }
        Ok(())
    }

    /// Since when it may.
    pub(crate) fn begun(&self) -> Option<Instant> {
        match &*self.lock() {
            Had::Nothing => None,
            Had::Place { since, .. } | Had::Enough(since) => Some(*since),
        }
    }

    /// Gives the place back if the start has had it for long. When to look again, if ever.
    pub(crate) fn relieve(&self, now: Instant) -> Option<Instant> {
        let mut had = self.lock();
        let since = match &*had {
            Had::Nothing => return Some(now + LOADING),
            Had::Place { since, .. } => *since,
            Had::Enough(_) => return None,
        };
        if now < since + LOADING {
            return Some(since + LOADING);
        }
        *had = Had::Enough(since);
        None
    }

    fn lock(&self) -> MutexGuard<'_, Had> {
        self.had.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
