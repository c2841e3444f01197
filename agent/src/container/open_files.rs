//! Open files of one process: what a process has by the limits, and after a change of them. Pure, but for what the agent may.

use std::sync::LazyLock;

use rustix::thread::{CapabilitySet, capabilities};

use crate::config::Limits;

/// Where nothing is said.
pub const DEFAULT_OPEN_FILES: u64 = 4096;

/// More are a program's own wish: some go through all they may have.
const MOST_AT_FIRST: u64 = 4096;

/// The hard limit that limits demand.
pub(super) fn hard(limits: &Limits) -> u64 {
    limits
        .nofile()
        .and_then(|count| count.finite())
        .unwrap_or(DEFAULT_OPEN_FILES)
}

/// The soft limit that goes with a hard one.
pub(super) fn soft(hard: u64) -> u64 {
    hard.min(MOST_AT_FIRST)
}

/// Whether the kernel lets this agent raise a hard limit. One that is in a user namespace may have the capability and not
/// the right: then the kernel refuses, and all is as it was.
pub fn raise_is_allowed() -> bool {
    static ALLOWED: LazyLock<bool> = LazyLock::new(|| {
        let sets = capabilities(None);
        sets.is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE))
    });
    *ALLOWED
}

/// A change of the hard limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// Of all its processes, but those that have given some up.
    pub before: u64,
    /// From now on.
    pub wanted: u64,
}

impl OpenFiles {
    /// Whether it is a raise that this agent has no right to.
    pub fn is_refused(self) -> bool {
        self.wanted > self.before && !raise_is_allowed()
    }

    /// Why, and what to do.
    pub fn refusal(self, vhost: &str) -> String {
        format!(
            "cannot raise nofile of {vhost} from {} to {} while it runs: the agent has no CAP_SYS_RESOURCE, without which \
             the kernel raises no hard limit of open files (prlimit); set it while the site is stopped (`fastctl stop \
             {vhost}`), or give the agent that capability",
            self.before, self.wanted
        )
    }

    /// Soft and hard limit of a process that has these. What a process has taken from itself stays taken, and one that
    /// has chosen a soft limit of its own keeps that as far as it may.
    pub(super) fn of(self, (own_soft, own_hard): (u64, u64)) -> (u64, u64) {
        let hard = match own_hard < self.before {
            true => own_hard.min(self.wanted),
            false => self.wanted,
        };
        let new_soft = match own_soft == soft(self.before) && own_hard >= self.before {
            true => soft(self.wanted),
            false => own_soft,
        };
        (new_soft.min(hard), hard)
    }
}

#[cfg(test)]
#[path = "open_files_tests.rs"]
mod tests;
