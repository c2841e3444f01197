//! Removing a group from every hierarchy.

use crate::Error;
use crate::freeze::Backoff;
use crate::group::Group;
use crate::tree::{Root, Shared};
use rustix::io::Errno;
use std::time::Duration;

impl Group {
    /// Removes the group everywhere if no process is in it; false if one is, or was a moment ago. Cheaper than to ask
    /// first. A group of which only a part is gone is still one for [`Self::kill`] and [`Self::remove_alone`]: the v2
    /// side, by which processes are killed, goes first or not at all.
    pub fn remove_if_empty(&self) -> Result<bool, Error> {
        if self.is_gone() {
            return Ok(true);
        }
        for root in &self.shared.roots {
            match root.parent.rmdir(&self.name) {
                Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
                Err(Errno::BUSY | Errno::NOTEMPTY) => return Ok(false),
                Err(e) => return Err(root.parent.error("remove", &self.name, e)),
            }
        }
        self.is_removed();
        Ok(true)
    }

    /// [`Self::remove_alone`], and then the levels above it that have become empty.
    pub fn remove(&self, limit: Duration) -> Result<(), Error> {
        let above = |depth| {
            self.shared
                .prune(self.path.get(..depth).unwrap_or_default())
        };
        let pruned = (1..self.path.len()).rev().map(above);
        let alone = self.remove_alone(limit).err();
        Error::from_all(
            alone
                .into_iter()
                .chain(pruned.filter_map(Result::err))
                .collect(),
        )
    }

    /// Removes the group everywhere, trying again for up to `limit` while the kernel says that it is busy. Goes on after an
    /// error and reports all of them. Removing what is not there is no error. [`crate::Tree::prune`] removes the level
    /// above, at leisure.
    pub fn remove_alone(&self, limit: Duration) -> Result<(), Error> {
        if self.is_gone() {
            return Ok(());
        }
        let mut pause = Backoff::new(limit);
        let mut left: Vec<&Root> = self.shared.roots.iter().collect();
        let mut errors = Vec::new();
        loop {
            let mut busy = Vec::new();
            for root in left {
                match root.parent.rmdir(&self.name) {
                    Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
                    // The last process has been reaped, but the kernel is not through with it yet.
                    Err(Errno::BUSY | Errno::NOTEMPTY) => busy.push(root),
                    Err(e) => errors.push(root.parent.error("remove", &self.name, e)),
                }
            }
            left = busy;
            if left.is_empty() || !pause.wait(None)? {
                break;
            }
        }
        if left.is_empty() && errors.is_empty() {
            self.is_removed();
        }
        if !left.is_empty() {
            errors.push(self.timeout("removed", limit));
            let hint =
                "kill what is in it and wait until it is empty, or remove the groups below it";
            errors.extend(left.iter().map(|r| {
                r.parent
                    .error("remove", &self.name, Errno::BUSY)
                    .with_hint(hint)
            }));
        }
        Error::from_all(errors)
    }
}

impl Shared {
    /// Removes a level wherever it is empty.
    pub(crate) fn prune(&self, path: &[String]) -> Result<(), Error> {
        let name = path.join("/");
        let mut errors = Vec::new();
        for root in &self.roots {
            match root.parent.rmdir(&name) {
                // A group is in it, or is just being made.
                Ok(()) | Err(Errno::NOENT | Errno::NODEV | Errno::BUSY | Errno::NOTEMPTY) => {}
                Err(e) => errors.push(root.parent.error("remove", &name, e)),
            }
        }
        Error::from_all(errors)
    }
}
