//! What the accounts are told of a vhost: its container's begin and end, starts that came to nothing.

use std::sync::Arc;

use shim::protocol::ExitRecord;

use super::Site;
use crate::accounts::Asked;
use crate::container::{Container, Record, Remains};
use crate::persist;
use crate::platform::Platform;

impl Site {
    fn asked(&self) -> Asked {
        self.lock().asked.clone()
    }

    /// Its container listens: from now on its use is recorded.
    pub(super) fn account_begin(self: &Arc<Self>, container: &Arc<Container>) {
        let accounts = &self.platform.accounts;
        accounts.begun(container, self.asked(), self.watch(true));
    }

    /// Likewise, of one that was taken over.
    pub(super) fn account_adopted(self: &Arc<Self>, container: &Arc<Container>) {
        let accounts = &self.platform.accounts;
        accounts.begun(container, self.asked(), self.watch(false));
    }

    /// Its container has ended and its cgroup is still there.
    pub(super) fn account_end(&self, container: &Container) {
        self.platform.accounts.ended(container, &self.asked());
    }

    /// A start has come to nothing; what it made is still there.
    pub(super) fn account_failure(&self, remains: &Remains) {
        let group = remains.group.as_deref();
        // The owner whose cgroup it was, if it came to one: the definition may have changed.
        let owner = group.and_then(|group| group.path().first().cloned());
        let owner = owner.unwrap_or_else(|| self.owner().to_string());
        let accounts = &self.platform.accounts;
        accounts.failed(&self.name, &owner, group, &self.asked());
    }
}

/// What an earlier agent left of a vhost, before it is removed.
pub fn account_leftover(platform: &Platform, vhost: &str, remains: &Remains) {
    let known: Option<Record> = persist::read(&platform.record_path(vhost)).unwrap_or_default();
    let exit = std::fs::read_to_string(platform.exit_path(vhost)).ok();
    let exit: Option<ExitRecord> = exit.and_then(|text| text.trim().parse().ok());
    let ended = exit.map(|exit| exit.at);
    platform
        .accounts
        .left(vhost, remains, known.as_ref(), ended);
}
