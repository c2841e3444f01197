//! CPU shares, sizes, weights, counts, percentages.

use std::fmt;
use std::str::FromStr;

use super::{MAX, Unit, UnitError, number, serde_unit};

/// CPU time per time, in hundredths of a percent of one core: `20%`, `1.5` (cores), `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu(u64);

/// A number of bytes: `256M` (powers of 1024, as everywhere in cgroups), `1.5G`, `65536`, `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// A relative weight from 1 to 10000; 100 is what everybody has who says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u64);

/// A number of things (processes, operations per second, open files), or `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count(pub u64);

/// A part of a whole, in hundredths of a percent: `20%`, `0.5%`, `100%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u64);

serde_unit!(Cpu, Bytes, Weight, Count, Percent);

/// The most cores a share may name; beyond any machine, and small enough that no product overflows.
const MOST_CORES: u64 = 8192;

impl Cpu {
    /// No limit.
    pub const MAX: Cpu = Cpu(MAX);
    /// The least that is accepted: below 1 % of a core a site cannot even start.
    pub const MIN: Cpu = Cpu(100);

    /// This many hundredths of a percent of one core, if that is within what is accepted.
    pub fn from_permyriad(value: u64) -> Option<Cpu> {
        (Self::MIN.0..=MOST_CORES * 10_000)
            .contains(&value)
            .then_some(Cpu(value))
    }

    /// Hundredths of a percent of one core, or nothing for `max`.
    pub fn permyriad(self) -> Option<u64> {
        (self.0 != MAX).then_some(self.0)
    }

    /// CPU time in µs per period of `period_us`, or nothing for `max`.
    pub fn quota_us(self, period_us: u64) -> Option<u64> {
        let quota = u128::from(self.permyriad()?) * u128::from(period_us) / 10_000;
        Some(u64::try_from(quota).unwrap_or(MAX - 1))
    }
}

impl Bytes {
    /// No limit.
    pub const MAX: Bytes = Bytes(MAX);

    /// The number, or nothing for `max`.
    pub fn finite(self) -> Option<u64> {
        (self.0 != MAX).then_some(self.0)
    }
}

impl Weight {
    /// The weight, from 1 to 10000.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl Count {
    /// No limit.
    pub const MAX: Count = Count(MAX);

    /// The number, or nothing for `max`.
    pub fn finite(self) -> Option<u64> {
        (self.0 != MAX).then_some(self.0)
    }
}

impl Percent {
    /// Hundredths of a percent, from 0 to 10000.
    pub fn permyriad(self) -> u64 {
        self.0
    }
}

/// `2050` as `20.5`.
fn hundredths(f: &mut fmt::Formatter<'_>, value: u64) -> fmt::Result {
    match (value / 100, value % 100) {
        (int, 0) => write!(f, "{int}"),
        (int, rest) if rest % 10 == 0 => write!(f, "{int}.{}", rest / 10),
        (int, rest) => write!(f, "{int}.{rest:02}"),
    }
}

impl Unit for Cpu {
    const WHAT: &'static str = "a CPU share";
    const EXAMPLES: &'static str = "\"20%\" (of one core), \"1.5\" (cores) or \"max\"";
    fn raw(self) -> u64 {
        self.0
    }
    fn from_raw(raw: u64) -> Self {
        Cpu(raw)
    }
}

impl FromStr for Cpu {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text.trim() == "max" {
            return Ok(Self::MAX);
        }
        let (number, unit) = number::split::<Self>(text)?;
        let value = match unit {
            "%" => number.times::<Self>(text, 100)?,
            "" | "core" | "cores" => number.times::<Self>(text, 10_000)?,
            other => return Err(number::unknown::<Self>(text, other)),
        };
        Self::from_permyriad(value).ok_or_else(|| {
            let wrong = if value < Self::MIN.0 {
                "it is below 1% of a core"
            } else {
                "no machine has so many cores"
            };
            Self::error(text, wrong)
        })
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.permyriad() {
            None => f.write_str("max"),
            Some(value) => hundredths(f, value).and_then(|()| f.write_str("%")),
        }
    }
}

impl Unit for Bytes {
    const WHAT: &'static str = "a size";
    const EXAMPLES: &'static str = "\"256M\", \"1.5G\" (powers of 1024), 65536 (bytes) or \"max\"";
    fn raw(self) -> u64 {
        self.0
    }
    fn from_raw(raw: u64) -> Self {
        Bytes(raw)
    }
}

impl FromStr for Bytes {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text.trim() == "max" {
            return Ok(Self::MAX);
        }
        let (number, unit) = number::split::<Self>(text)?;
        let power = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => return number.whole::<Self>(text).map(Bytes),
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            "p" | "pb" | "pib" => 50,
            _ => return Err(number::unknown::<Self>(text, unit)),
        };
        number.times::<Self>(text, 1 << power).map(Bytes)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            MAX => f.write_str("max"),
            0 => f.write_str("0"),
            n => match [("P", 50), ("T", 40), ("G", 30), ("M", 20), ("K", 10)]
                .into_iter()
                .find(|(_, power)| n.trailing_zeros() >= *power)
            {
                Some((unit, power)) => write!(f, "{}{unit}", n >> power),
                None => write!(f, "{n}"),
            },
        }
    }
}

impl Unit for Weight {
    const WHAT: &'static str = "a weight";
    const EXAMPLES: &'static str = "a whole number from 1 to 10000 (100 is usual)";
    const BARE: bool = true;
    fn raw(self) -> u64 {
        self.0
    }
    fn from_raw(raw: u64) -> Self {
        Weight(raw)
    }
}

impl FromStr for Weight {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        match number::split::<Self>(text)? {
            (number, "") => match number.whole::<Self>(text)? {
                value @ 1..=10_000 => Ok(Weight(value)),
                _ => Err(Self::error(text, "it is out of range")),
            },
            (_, unit) => Err(number::unknown::<Self>(text, unit)),
        }
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Unit for Count {
    const WHAT: &'static str = "a number";
    const EXAMPLES: &'static str = "a whole number such as 128, or \"max\"";
    const BARE: bool = true;
    fn raw(self) -> u64 {
        self.0
    }
    fn from_raw(raw: u64) -> Self {
        Count(raw)
    }
}

impl FromStr for Count {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text.trim() == "max" {
            return Ok(Self::MAX);
        }
        match number::split::<Self>(text)? {
            // TOML knows no larger integer, and no limit needs one.
            (number, "") => match number.whole::<Self>(text)? {
                value if value <= i64::MAX as u64 => Ok(Count(value)),
                _ => Err(Self::error(text, "it is too large")),
            },
            (_, unit) => Err(number::unknown::<Self>(text, unit)),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == MAX {
            f.write_str("max")
        } else {
            self.0.fmt(f)
        }
    }
}

impl Unit for Percent {
    const WHAT: &'static str = "a percentage";
    const EXAMPLES: &'static str = "\"20%\" or \"0.5%\", at most \"100%\"";
    fn raw(self) -> u64 {
        self.0
    }
    fn from_raw(raw: u64) -> Self {
        Percent(raw)
    }
}

impl FromStr for Percent {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        match number::split::<Self>(text)? {
            (number, "%") => match number.times::<Self>(text, 100)? {
                value @ 0..=10_000 => Ok(Percent(value)),
                _ => Err(Self::error(text, "it is more than the whole")),
            },
            (_, "") => Err(Self::error(text, "the % is missing")),
            (_, unit) => Err(number::unknown::<Self>(text, unit)),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hundredths(f, self.0).and_then(|()| f.write_str("%"))
    }
}
