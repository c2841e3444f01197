//! The class of a site.

use std::fmt;
use std::str::FromStr;

use super::{Unit, UnitError, serde_unit};

/// Whether a site is promised what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Class {
    /// What the others leave over; there may be more of these than the host could serve at once.
    #[default]
    BestEffort,
    /// Its CPU time is there whenever it wants it, whatever the others do.
    Guaranteed,
}

serde_unit!(Class);

impl Unit for Class {
    const WHAT: &'static str = "a class";
    const EXAMPLES: &'static str = "\"guaranteed\" or \"best-effort\"";
    fn raw(self) -> u64 {
        u64::from(self == Class::Guaranteed)
    }
    fn from_raw(raw: u64) -> Self {
        match raw {
            1 => Class::Guaranteed,
            _ => Class::BestEffort,
        }
    }
}

impl FromStr for Class {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text.trim().replace(['_', ' '], "-").as_str() {
            "guaranteed" => Ok(Class::Guaranteed),
            "best-effort" => Ok(Class::BestEffort),
            _ => Err(Self::error(text, "there are two")),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Guaranteed => "guaranteed",
            Class::BestEffort => "best-effort",
        })
    }
}
