//! Quantities as people write them: `20%`, `256M`, `2MB/s`, `10Mbit`, `1h30m`.
//!
//! Every type is a small copyable number that parses from text, prints text which parses back to the same
//! number, and reads from TOML or JSON as text or as a plain number. `max` (`never` for times) means "no limit"
//! wherever a limit may be lifted, so that an override can lift what a definition sets.

mod class;
mod number;
mod quantity;
mod rate;
mod span;
#[cfg(test)]
mod tests;

use std::fmt;

pub use class::Class;
pub use quantity::{Bytes, Count, Cpu, Percent, Weight};
pub use rate::{BitRate, Rate};
pub use span::Span;

/// The stored number that means "no limit".
pub const MAX: u64 = u64::MAX;

/// A quantity: a number with a way to write it.
pub trait Unit: Copy + Sized + fmt::Display + std::str::FromStr<Err = UnitError> {
    /// What the quantity is called in errors, with its article: "a CPU share".
    const WHAT: &'static str;
    /// How to write one, for errors.
    const EXAMPLES: &'static str;
    /// Whether a finite value is written to JSON and TOML as a bare number.
    const BARE: bool = false;
    /// The stored number; [`MAX`] for no limit.
    fn raw(self) -> u64;
    /// The quantity with this stored number, which came from [`Unit::raw`].
    fn from_raw(raw: u64) -> Self;
    /// Builds the error for a text that is not such a quantity.
    fn error(text: &str, wrong: impl Into<String>) -> UnitError {
        UnitError {
            text: shorten(text),
            what: Self::WHAT,
            wrong: wrong.into(),
            examples: Self::EXAMPLES,
        }
    }
}

/// A text that is not the quantity it should be: says the text, what is wrong with it, and how to write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitError {
    text: String,
    what: &'static str,
    wrong: String,
    examples: &'static str,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is not {}: {}; write it as {}",
            self.text, self.what, self.wrong, self.examples
        )
    }
}

impl std::error::Error for UnitError {}

/// Makes foreign text fit to be shown: one line, printable, bounded.
pub(crate) fn shorten(text: &str) -> String {
    const SHOWN: usize = 120;
    let mut out: String = text
        .chars()
        .take(SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        out.push('…');
    }
    out
}

/// Gives a [`Unit`] its serde form: text, or a bare number.
macro_rules! serde_unit {
    ($($type:ty),+) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if <$type as super::Unit>::BARE && super::Unit::raw(*self) != super::MAX {
                    s.serialize_u64(super::Unit::raw(*self))
                } else {
                    s.collect_str(self)
                }
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any(super::UnitVisitor::<$type>(std::marker::PhantomData))
            }
        }
    )+};
}
pub(super) use serde_unit;

/// Reads a quantity from text or from a number, through the one text parser.
struct UnitVisitor<U>(std::marker::PhantomData<U>);

impl<U: Unit> serde::de::Visitor<'_> for UnitVisitor<U> {
    type Value = U;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, written as {}", U::WHAT, U::EXAMPLES)
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<U, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<U, E> {
        self.visit_str(&n.to_string())
    }
    fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<U, E> {
        self.visit_str(&n.to_string())
    }
    fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<U, E> {
        self.visit_str(&n.to_string())
    }
}
