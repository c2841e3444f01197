//! What can be said about a host that is slow.

use serde::{Deserialize, Serialize};

/// What is the matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Memory is short: pages go to and fro.
    Swapping,
    /// Storage is what everybody waits for.
    IoBound,
    /// There is no CPU time left.
    CpuBound,
    /// A site starts as many processes as it may, and would more.
    Forking,
    /// A site wants more memory than it may have.
    OutOfMemory,
    /// Processes wait for something that does not come.
    Blocked,
    /// One site uses much, and there is enough for the others.
    Busy,
    /// A site writes or reads much, and nobody waits for it.
    Writing,
    /// A site would use more than it is allowed to.
    Throttled,
    /// None of that.
    Idle,
}

impl Kind {
    /// As it is shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Swapping => "swapping",
            Self::IoBound => "I/O-bound",
            Self::CpuBound => "CPU-bound",
            Self::Forking => "forking",
            Self::OutOfMemory => "out of memory",
            Self::Blocked => "blocked",
            Self::Busy => "busy",
            Self::Writing => "writing",
            Self::Throttled => "throttled",
            Self::Idle => "idle",
        }
    }

    /// Whether it makes the host slow, for everybody.
    pub fn is_slow(self) -> bool {
        !matches!(
            self,
            Self::Busy
                | Self::Writing
                | Self::Forking
                | Self::OutOfMemory
                | Self::Throttled
                | Self::Idle
        )
    }
}

/// One finding with its evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What is the matter.
    pub kind: Kind,
    /// Who does it; None if it is none of the sites.
    pub vhost: Option<String>,
    /// Their owner.
    pub owner: Option<String>,
    /// The evidence, in words.
    pub text: String,
}
