//! What a stretch of time has beside its first fields: memory as it was seen, and how long starts took. Pure.

use serde::{Deserialize, Serialize};

/// The parts of a start, in the order in which they are stored; the last is all of it.
pub const PHASES: [&str; 6] = [
    "documents",
    "resources",
    "clone",
    "setup",
    "listen",
    "total",
];

/// How long each part of one start took, µs.
pub type Phases = [u64; PHASES.len()];

/// How long starts took: of those after which the site listened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Starts {
    /// How many.
    pub count: u64,
    /// All together, µs.
    pub sum: Phases,
    /// The longest of each part, µs.
    pub most: Phases,
}

impl Starts {
    /// A single one.
    pub fn one(phases: Phases) -> Self {
        Self {
            count: 1,
            sum: phases,
            most: phases,
        }
    }

    /// These and others together.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        for part in 0..PHASES.len() {
            self.sum[part] = self.sum[part].saturating_add(other.sum[part]);
            self.most[part] = self.most[part].max(other.most[part]);
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct More {
    /// The most bytes of memory that there were when it was read.
    pub memory: u64,
    /// The most bytes that its processes had for themselves; 0 if that was not measured.
    pub private: u64,
    /// How long its starts took.
    pub starts: Starts,
}

impl More {
    /// This stretch and another together.
    pub fn merge(&mut self, other: &Self) {
        self.memory = self.memory.max(other.memory);
        self.private = self.private.max(other.private);
        self.starts.merge(&other.starts);
    }
}
