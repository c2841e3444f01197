//! The user namespaces of sites that were started lately. Nothing in them changes, and making them takes longer than half of a
//! start.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shim::protocol::Ids;

/// How many sites' namespaces are kept; each costs two descriptors and a few kB of kernel memory.
const KEPT: usize = 64;

/// The two user namespaces of a site.
#[derive(Debug)]
pub struct Users {
    /// What its processes live in.
    pub container: OwnedFd,
    /// Maps the site's on-disk uid and gid to the site's host ids, and nothing else.
    pub site: OwnedFd,
}

/// Recently used namespaces, the latest last.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Vec<(Ids, Arc<Users>)>>);

impl Cache {
    pub(super) fn get(&self, ids: Ids) -> Option<Arc<Users>> {
        let mut kept = self.lock();
        let at = kept.iter().position(|(known, _)| *known == ids)?;
        let found = kept.remove(at);
        let users = found.1.clone();
        kept.push(found);
        Some(users)
    }

    pub(super) fn put(&self, ids: Ids, users: Users) -> Arc<Users> {
        let users = Arc::new(users);
        let mut kept = self.lock();
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push((ids, users.clone()));
        users
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Ids, Arc<Users>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ids(number: u32) -> Ids {
        Ids {
            base: (number + 1) * Ids::RANGE,
            uid: 1000,
            gid: 1000,
            direct: false,
        }
    }

    #[test]
    fn the_latest_are_kept() {
        let cache = Cache::default();
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let most = u32::try_from(KEPT).unwrap();
        for number in 0..most {
            let users = Users {
                container: null(),
                site: null(),
            };
            cache.put(ids(number), users);
        }
        assert!(cache.get(ids(0)).is_some());
        let users = Users {
            container: null(),
            site: null(),
        };
        cache.put(ids(most), users);
        // The one that was not used for longest has made room.
        assert!(cache.get(ids(1)).is_none());
        assert!(cache.get(ids(0)).is_some() && cache.get(ids(most)).is_some());
        assert_eq!(cache.lock().len(), KEPT);
    }
}
