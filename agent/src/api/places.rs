//! How many of something there may be, and for whom: nobody can shut out those above them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::rights::{Peer, Role};

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    most: u32,
    operators: Arc<Semaphore>,
    /// Half as many: without them no request is served.
    dispatchers: Arc<Semaphore>,
    /// A quarter: owners, and those who are only told that they may do nothing.
    others: Arc<Semaphore>,
    /// How many of these one uid may take.
    of_one_uid: usize,
    by_uid: Tally<u32>,
}

/// A taken place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _of_uid: Option<Tallied<u32>>,
}

/// How many each of some have taken; those who have none are not kept.
#[derive(Debug)]
pub(super) struct Tally<K>(Arc<Mutex<HashMap<K, usize>>>);

/// One that has been counted; until it is dropped.
#[derive(Debug)]
pub(super) struct Tallied<K: Hash + Eq> {
    key: K,
    all: Arc<Mutex<HashMap<K, usize>>>,
}

impl Places {
    /// `most` of them; `of_one_uid` for one that is neither an operator nor a proxy.
    pub(super) fn new(most: u32, of_one_uid: usize) -> Self {
        let places = |n: u32| Arc::new(Semaphore::new(n.max(1) as usize));
        Self {
            most,
            operators: places(most),
            dispatchers: places(most / 2),
            others: places(most / 4),
            of_one_uid,
            by_uid: Tally::default(),
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
                _of_uid: None,
            });
        }
        Some(Place {
            _permit: permit,
            _of_uid: Some(self.by_uid.take(peer.uid, self.of_one_uid)?),
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

impl<K: Hash + Eq + Clone> Tally<K> {
    /// One more for `key`; None if it has `most` already.
    pub(super) fn take(&self, key: K, most: usize) -> Option<Tallied<K>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.get(&key).copied().unwrap_or(0);
        if count >= most {
            return None;
        }
        all.insert(key.clone(), count + 1);
        drop(all);
        let all = self.0.clone();
        Some(Tallied { key, all })
    }
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Hash + Eq> Drop for Tallied<K> {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_ONE_UID: usize = 256;

    #[test]
    fn nobody_shuts_out_those_above() {
        let places = Places::new(2048, OF_ONE_UID);
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
        let counted = places.by_uid.0.lock();
        assert!(counted.unwrap_or_else(PoisonError::into_inner).is_empty());
    }
}
