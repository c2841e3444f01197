//! The cgroups of owners, above those of their sites. They outlive an owner's last container by a moment: a start that
//! finds its owner's there is a tenth faster, and owners' sites come and go together.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// For how long an owner's empty cgroup is kept.
const KEPT: Duration = Duration::from_secs(5);

/// Those that may have become empty.
#[derive(Debug)]
pub struct OwnerGroups {
    tree: cgroup::Tree,
    idle: Arc<Mutex<HashSet<String>>>,
}

impl OwnerGroups {
    /// None is known to be empty yet.
    pub fn new(tree: cgroup::Tree) -> Self {
        Self {
            tree,
            idle: Arc::default(),
        }
    }

    /// To be told whenever a site's cgroup is gone: its owner's goes in a while if it is empty then. There is at most one
    /// timer per owner, and none for those that sleep for longer. Called within the runtime.
    pub fn one_less(&self, owner: &str) {
        if !lock(&self.idle).insert(owner.to_owned()) {
            return;
        }
        let (tree, idle, owner) = (self.tree.clone(), self.idle.clone(), owner.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(KEPT).await;
            // First: whatever ends from now on sets a timer of its own.
            lock(&idle).remove(&owner);
            prune(&tree, &owner);
        });
    }

    /// Removes what is empty now; the agent ends.
    pub fn prune_idle(&self) {
        for owner in lock(&self.idle).drain() {
            prune(&self.tree, &owner);
        }
    }

    /// Removes every owner's cgroup that an earlier agent has left empty.
    pub fn prune_leftover(&self) -> Result<(), cgroup::Error> {
        for path in self.tree.existing()? {
            if let [owner] = path.as_slice() {
                prune(&self.tree, owner);
            }
        }
        Ok(())
    }
}

fn prune(tree: &cgroup::Tree, owner: &str) {
    if let Err(error) = tree.prune(&[owner]) {
        tracing::error!("{error}");
    }
}

fn lock(idle: &Mutex<HashSet<String>>) -> MutexGuard<'_, HashSet<String>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
