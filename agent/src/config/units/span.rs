//! Lengths of time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{MAX, Unit, UnitError, number, serde_unit};

/// A length of time in milliseconds: `60s`, `10m`, `24h`, `1h30m`, `250ms`, `7d`, 60 (seconds), `never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

serde_unit!(Span);

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// The longest span that is not `never`; adding it to a clock can never overflow.
const LONGEST: u64 = 3650 * DAY;

impl Span {
    /// A time that never ends.
    pub const NEVER: Span = Span(MAX);

    /// So many seconds, ten years at most.
    pub const fn seconds(seconds: u64) -> Span {
        let ms = seconds.saturating_mul(SECOND);
        Span(if ms > LONGEST { LONGEST } else { ms })
    }

    /// Milliseconds, or nothing for `never`.
    pub fn millis(self) -> Option<u64> {
        (self.0 != MAX).then_some(self.0)
    }

    /// The standard library's form, or nothing for `never`.
    pub fn finite(self) -> Option<Duration> {
        self.millis().map(Duration::from_millis)
    }
}

impl Unit for Span {
    const WHAT: &'static str = "a length of time";
    const EXAMPLES: &'static str =
        "\"60s\", \"10m\", \"24h\", \"1h30m\", \"250ms\", \"7d\" or \"never\"";
    fn raw(self) -> u64 {
        self.0
    }
    fn from_raw(raw: u64) -> Self {
        Span(raw)
    }
}

impl FromStr for Span {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut rest = text.trim();
        if rest == "never" || rest == "max" {
            return Ok(Self::NEVER);
        }
        let (mut total, mut last) = (0u64, MAX);
        loop {
            let (number, tail) = number::take::<Self>(text, rest)?;
            let tail = tail.trim_start();
            let end = tail
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(end);
            let multiplier = match unit {
                "ms" => 1,
                "s" | "sec" => SECOND,
                "m" | "min" => MINUTE,
                "h" => HOUR,
                "d" => DAY,
                // A bare number is seconds, as in most servers' configuration, but not after another unit.
                "" if last == MAX && tail.is_empty() => SECOND,
                other => {
                    return Err(number::unknown::<Self>(
                        text,
                        if other.is_empty() { tail } else { other },
                    ));
                }
            };
            if multiplier >= last {
                return Err(Self::error(
                    text,
                    "the larger unit comes first, and each only once",
                ));
            }
            last = multiplier;
            total = total.saturating_add(number.times::<Self>(text, multiplier)?);
            rest = tail.trim_start();
            if rest.is_empty() {
                break;
            }
        }
        if total > LONGEST {
            return Err(Self::error(text, "it is more than ten years"));
        }
        Ok(Span(total))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            MAX => f.write_str("never"),
            0 => f.write_str("0s"),
            // "24h" stays as people write it; from two days on whole days read better.
            ms if ms >= 2 * DAY && ms.is_multiple_of(DAY) => write!(f, "{}d", ms / DAY),
            mut ms => {
                for (unit, size) in [("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", 1)] {
                    if ms >= size {
                        write!(f, "{}{unit}", ms / size)?;
                        ms %= size;
                    }
                }
                Ok(())
            }
        }
    }
}
