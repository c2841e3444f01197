//! What an owner's sites may read and write together, on each disk that their documents are on.

use serde::{Deserialize, Serialize};

use crate::config::definition::LimitKey;
use crate::config::units::{Count, Rate};

/// The keys of a budget's I/O, those of a site's limits.
pub const KEYS: [LimitKey; 4] = [
    LimitKey::IoRead,
    LimitKey::IoWrite,
    LimitKey::IoReadIops,
    LimitKey::IoWriteIops,
];

/// See the module; what is not there is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IoBudget {
    /// Bytes read per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<Rate>,
    /// Bytes written per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write: Option<Rate>,
    /// Reads per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_iops: Option<Count>,
    /// Writes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_iops: Option<Count>,
}

impl IoBudget {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This with what `defaults` say of what it leaves out. `max` is no limit, whoever says it.
    pub fn over(&self, defaults: &Self) -> Self {
        let rate = |own: Option<Rate>, default: Option<Rate>| {
            own.or(default).filter(|rate| rate.finite().is_some())
        };
        let count = |own: Option<Count>, default: Option<Count>| {
            own.or(default).filter(|count| count.finite().is_some())
        };
        Self {
            read: rate(self.read, defaults.read),
            write: rate(self.write, defaults.write),
            read_iops: count(self.read_iops, defaults.read_iops),
            write_iops: count(self.write_iops, defaults.write_iops),
        }
    }

    /// Values in the order of [`KEYS`], as people write them.
    pub fn shown(&self) -> [Option<String>; 4] {
        [
            self.read.map(|v| v.to_string()),
            self.write.map(|v| v.to_string()),
            self.read_iops.map(|v| v.to_string()),
            self.write_iops.map(|v| v.to_string()),
        ]
    }

    /// Whether any of them is a limit.
    pub fn is_limited(&self) -> bool {
        self.limits().iter().any(Option::is_some)
    }

    /// Numbers in the order of [`KEYS`]; nothing is no limit.
    pub fn limits(&self) -> [Option<u64>; 4] {
        [
            self.read.and_then(Rate::finite),
            self.write.and_then(Rate::finite),
            self.read_iops.and_then(Count::finite),
            self.write_iops.and_then(Count::finite),
        ]
    }
}

/// A change of one of them: the new value, nothing for that of agent.toml.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoChange {
    /// `io.read`
    Read(Option<Rate>),
    /// `io.write`
    Write(Option<Rate>),
    /// `io.read_iops`
    ReadIops(Option<Count>),
    /// `io.write_iops`
    WriteIops(Option<Count>),
}

impl IoChange {
    /// Makes the change.
    pub fn apply(self, io: &mut IoBudget) {
        match self {
            Self::Read(rate) => io.read = rate,
            Self::Write(rate) => io.write = rate,
            Self::ReadIops(count) => io.read_iops = count,
            Self::WriteIops(count) => io.write_iops = count,
        }
    }
}
