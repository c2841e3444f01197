//! Removing a group from every hierarchy.

use crate::Error;
use crate::freeze::Backoff;
use crate::group::Group;
use crate::tree::Root;
use rustix::io::Errno;
use std::time::Duration;

impl Group {
    /// Removes the group everywhere, trying again for up to `limit` while the kernel says that it is busy, and then the
    /// levels above it that have become empty. Goes on after an error and reports all of them. Removing what is not
    /// there is no error.
    pub fn remove(&self, limit: Duration) -> Result<(), Error> {
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
        for root in &self.shared.roots {
            errors.extend(self.remove_above(root).err());
        }
        Error::from_all(errors)
    }

    fn remove_above(&self, root: &Root) -> Result<(), Error> {
        for depth in (1..self.path.len()).rev() {
            let name = self.path.get(..depth).unwrap_or_default().join("/");
            match root.parent.rmdir(&name) {
                Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
                // A sibling is there, or is just being made.
                Err(Errno::BUSY | Errno::NOTEMPTY) => break,
                Err(e) => return Err(root.parent.error("remove", &name, e)),
            }
        }
        Ok(())
    }
}
