//! Bytes per second, written in bytes (disks) or in bits (networks).

use std::fmt;
use std::str::FromStr;

use super::{MAX, Unit, UnitError, number, serde_unit};

/// A disk's rate in bytes per second: `2MB/s`, `2Mbit/s`, `512KiB/s`, `max`. Prints in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

/// A network's rate, kept in bytes per second: `10Mbit`, `10Mbit/s`, `2MB/s`, `max`. Prints in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitRate(u64);

serde_unit!(Rate, BitRate);

/// The most that is accepted, in bytes per second: an exabyte, so that times 8 it fits.
const MOST: u64 = 1_000_000_000_000_000_000;

impl Rate {
    /// No limit.
    pub const MAX: Rate = Rate(MAX);

    /// So many bytes per second, at least one and at most what is accepted.
    pub const fn per_second(bytes: u64) -> Rate {
        Rate(if bytes == 0 {
            1
        } else if bytes > MOST {
            MOST
        } else {
            bytes
        })
    }

    /// Bytes per second, or nothing for `max`.
    pub fn finite(self) -> Option<u64> {
        (self.0 != MAX).then_some(self.0)
    }
}

impl BitRate {
    /// No limit.
    pub const MAX: BitRate = BitRate(MAX);

    /// Bytes per second, or nothing for `max`.
    pub fn finite(self) -> Option<u64> {
        (self.0 != MAX).then_some(self.0)
    }
}

/// Reads either kind. Units without `i` are powers of 1000, as on every disk's and network's label.
fn parse<U: Unit>(text: &str) -> Result<u64, UnitError> {
    if text.trim() == "max" {
        return Ok(MAX);
    }
    let (number, unit) = number::split::<U>(text)?;
    let base = unit.strip_suffix("/s").unwrap_or(unit);
    let (prefix, bits) = if base.is_empty() {
        ("", false)
    } else if let Some(prefix) = base
        .strip_suffix("bits")
        .or_else(|| base.strip_suffix("bit"))
    {
        (prefix, true)
    } else if let Some(prefix) = base.strip_suffix('B') {
        (prefix, false)
    } else if is_ambiguous(base) {
        return Err(U::error(text, "bits or bytes? the unit does not say"));
    } else {
        return Err(number::unknown::<U>(text, unit));
    };
    let multiplier = match prefix {
        "" => 1,
        "k" | "K" => 1000,
        "m" | "M" => 1_000_000,
        "g" | "G" => 1_000_000_000,
        "t" | "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return Err(number::unknown::<U>(text, unit)),
    };
    let value = number.times::<U>(text, multiplier)?;
    let value = if bits { value / 8 } else { value };
    match value {
        0 => Err(U::error(text, "it is less than a byte per second")),
        1..=MOST => Ok(value),
        _ => Err(U::error(text, "it is too large")),
    }
}

/// `M`, `Mb`, `mbps` and the like: people mean bits or bytes by them.
fn is_ambiguous(unit: &str) -> bool {
    let unit = unit.to_ascii_lowercase();
    let rest = unit
        .strip_suffix("bps")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit);
    matches!(rest, "" | "k" | "m" | "g" | "t" | "ki" | "mi" | "gi" | "ti")
}

/// Prints `value` with the largest decimal prefix that loses nothing.
fn print(f: &mut fmt::Formatter<'_>, value: u64, unit: &str) -> fmt::Result {
    let (prefix, divisor) = [
        ("T", 1_000_000_000_000),
        ("G", 1_000_000_000),
        ("M", 1_000_000),
        ("K", 1000),
    ]
    .into_iter()
    .find(|(_, divisor)| value.is_multiple_of(*divisor))
    .unwrap_or(("", 1));
    write!(f, "{}{prefix}{unit}/s", value / divisor)
}

impl Unit for Rate {
    const WHAT: &'static str = "a rate";
    const EXAMPLES: &'static str =
        "\"2MB/s\" (bytes), \"2Mbit/s\" (bits), 2000000 (bytes per second) or \"max\"";
    fn raw(self) -> u64 {
        self.0
    }
    fn from_raw(raw: u64) -> Self {
        Rate(raw)
    }
}

impl FromStr for Rate {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse::<Self>(text).map(Rate)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == MAX {
            f.write_str("max")
        } else {
            print(f, self.0, "B")
        }
    }
}

impl Unit for BitRate {
    const WHAT: &'static str = "a network rate";
    const EXAMPLES: &'static str = "\"10Mbit\" (bits per second), \"2MB/s\" (bytes) or \"max\"";
    fn raw(self) -> u64 {
        self.0
    }
    fn from_raw(raw: u64) -> Self {
        BitRate(raw)
    }
}

impl FromStr for BitRate {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse::<Self>(text).map(BitRate)
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == MAX {
            f.write_str("max")
        } else {
            print(f, self.0 * 8, "bit")
        }
    }
}
