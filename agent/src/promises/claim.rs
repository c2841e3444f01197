//! Quantities of what is promised, and of the most that may be.

/// What one site, or all sites of somebody, are promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Promise {
    /// Hundredths of a percent of a core.
    pub cpu: u64,
    /// Bytes.
    pub memory: u64,
}

impl Promise {
    /// Whether there is none.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_add(other.cpu),
            memory: self.memory.saturating_add(other.memory),
        }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(other.cpu),
            memory: self.memory.saturating_sub(other.memory),
        }
    }

    fn most(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.max(other.cpu),
            memory: self.memory.max(other.memory),
        }
    }
}

/// What a site is promised now, with the room that is kept for it: what it gives up for a time is promised to nobody else
/// meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Claim {
    /// Now.
    pub promise: Promise,
    /// The most that it is promised, now or later; never less than now.
    pub room: Promise,
}

impl From<Promise> for Claim {
    fn from(promise: Promise) -> Self {
        Self {
            promise,
            room: promise,
        }
    }
}

impl Claim {
    /// This with room for what will be promised.
    #[must_use]
    pub fn and_later(self, promise: Promise) -> Self {
        Self {
            room: self.room.most(promise),
            ..self
        }
    }

    /// Whether nothing is promised, now or later.
    pub fn is_none(self) -> bool {
        self.room.is_none()
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            promise: self.promise.plus(other.promise),
            room: self.room.plus(other.room),
        }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            promise: self.promise.minus(other.promise),
            room: self.room.minus(other.room),
        }
    }
}

/// The most that the sites of one owner may be promised together, whatever the host has: their budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bound {
    /// Hundredths of a percent of a core.
    pub cpu: Option<u64>,
    /// Bytes.
    pub memory: Option<u64>,
}

impl Bound {
    /// The lower of both.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        let least = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self {
            cpu: least(self.cpu, other.cpu),
            memory: least(self.memory, other.memory),
        }
    }

    /// What of these sums is more.
    pub(super) fn exceeded(self, sum: Promise) -> Option<(&'static str, u64, u64)> {
        let all = [
            ("CPU", self.cpu, sum.cpu),
            ("memory", self.memory, sum.memory),
        ];
        let mut over = all.into_iter().filter_map(|(what, most, sum)| {
            let most = most.filter(|most| sum > *most)?;
            Some((what, most, sum))
        });
        over.next()
    }
}
