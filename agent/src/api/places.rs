//! How many connections there may be, and for whom: nobody can shut out those above them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::rights::{Peer, Role};

/// Connections of one uid that is neither an operator nor a proxy.
const OF_ONE_UID: usize = 256;

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    most: u32,
    operators: Arc<Semaphore>,
    /// Half as many: without them no request is served.
    dispatchers: Arc<Semaphore>,
    /// A quarter: owners, and those who are only told that they may do nothing.
    others: Arc<Semaphore>,
    by_uid: CountByUid,
}

/// How many places each uid has taken.
type CountByUid = Arc<Mutex<HashMap<u32, usize>>>;

/// A taken place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    of_uid: Option<(u32, CountByUid)>,
}

impl Places {
    pub(super) fn new(most: u32) -> Self {
        let places = |n: u32| Arc::new(Semaphore::new(n.max(1) as usize));
        Self {
            most,
            operators: places(most),
            dispatchers: places(most / 2),
            others: places(most / 4),
            by_uid: Arc::default(),
        }
    }

    /// A place for a peer; None if those for its like are taken.
    pub(super) fn take(&self, peer: &Peer) -> Option<Place> {
        let (pool, bounded) = match peer.role {
            Role::Operator => (&self.operators, false),
            Role::Dispatcher => (&self.dispatchers, false),
            Role::Owner(_) | Role::User(_) | Role::Nobody => (&self.others, true),
        };
        let permit = pool.clone().try_acquire_owned().ok()?;
        if !bounded {
            return Some(Place {
                _permit: permit,
                of_uid: None,
            });
        }
        let mut by_uid = self.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_uid.entry(peer.uid).or_insert(0);
        if *count >= OF_ONE_UID {
            return None;
        }
        *count += 1;
        Some(Place {
            _permit: permit,
            of_uid: Some((peer.uid, self.by_uid.clone())),
        })
    }

    /// Waits until all places are free.
    pub(super) async fn all_free(&self) {
        for (pool, n) in [
            (&self.operators, self.most),
            (&self.dispatchers, self.most / 2),
            (&self.others, self.most / 4),
        ] {
            // Err cannot be: the semaphores are never closed.
            let _ = pool.acquire_many(n.max(1)).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((uid, by_uid)) = &self.of_uid else {
            return;
        };
        let mut by_uid = by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_uid.get_mut(uid) {
            *count -= 1;
            if *count == 0 {
                by_uid.remove(uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_shuts_out_those_above() {
        let places = Places::new(2048);
        let peer = |uid, role| Peer { uid, role };
        let crowd: Vec<_> = (0..600)
            .map(|_| places.take(&peer(70_001, Role::Nobody)))
            .collect();
        assert_eq!(crowd.iter().flatten().count(), OF_ONE_UID);
        let many: Vec<_> = (0..600)
            .map(|uid| places.take(&peer(uid, Role::Nobody)))
            .collect();
        assert_eq!(many.iter().flatten().count(), 512 - OF_ONE_UID);
        assert!(places.take(&peer(33, Role::Dispatcher)).is_some());
        assert!(places.take(&peer(0, Role::Operator)).is_some());
        drop((crowd, many));
        assert!(places.take(&peer(70_001, Role::Nobody)).is_some());
        assert!(
            places
                .by_uid
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_empty()
        );
    }
}
