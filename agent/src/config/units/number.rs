//! Decimal numbers with a unit behind them, read exactly: no floating point, so nothing is lost or rounded up.

use super::{Unit, UnitError};

/// A non-negative decimal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    /// The digits of the number without its point.
    digits: u128,
    /// How many of them stand behind the point.
    scale: u32,
}

/// More digits than any quantity needs, few enough that `digits * multiplier` fits 128 bits.
const MAX_DIGITS: usize = 20;

impl Decimal {
    /// The number times `multiplier`, rounded down; an error if it is not below [`super::MAX`].
    pub(super) fn times<U: Unit>(self, text: &str, multiplier: u64) -> Result<u64, UnitError> {
        let value = self.digits * u128::from(multiplier) / 10u128.pow(self.scale);
        if value == 0 && self.digits != 0 {
            return Err(U::error(text, "it is less than the smallest unit"));
        }
        u64::try_from(value)
            .ok()
            .filter(|&v| v != super::MAX)
            .ok_or_else(|| U::error(text, "it is too large"))
    }

    /// The number itself, if it is a whole one.
    pub(super) fn whole<U: Unit>(self, text: &str) -> Result<u64, UnitError> {
        if !self.digits.is_multiple_of(10u128.pow(self.scale)) {
            return Err(U::error(text, "it must be a whole number"));
        }
        self.times::<U>(text, 1)
    }
}

/// Splits `rest`, which is `text` or its tail, into the number at its head and what follows.
pub(super) fn take<'t, U: Unit>(
    text: &str,
    rest: &'t str,
) -> Result<(Decimal, &'t str), UnitError> {
    if rest.is_empty() {
        return Err(U::error(text, "it is empty"));
    }
    if rest.starts_with('-') {
        return Err(U::error(text, "it must not be negative"));
    }
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let (number, tail) = rest.split_at(end);
    let (int, fraction) = number.split_once('.').unwrap_or((number, ""));
    if int.is_empty() || fraction.contains('.') || (number.contains('.') && fraction.is_empty()) {
        return Err(U::error(text, "a number is expected"));
    }
    let (int, fraction) = (int.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if int.len() + fraction.len() > MAX_DIGITS {
        return Err(U::error(text, "the number has too many digits"));
    }
    let digits = int
        .bytes()
        .chain(fraction.bytes())
        .fold(0u128, |sum, digit| sum * 10 + u128::from(digit - b'0'));
    let scale = u32::try_from(fraction.len()).unwrap_or(0);
    Ok((Decimal { digits, scale }, tail))
}

/// Reads a text that is one number and its unit: the number, and the unit without the blanks around it.
pub(super) fn split<U: Unit>(text: &str) -> Result<(Decimal, &str), UnitError> {
    let (number, unit) = take::<U>(text, text.trim())?;
    Ok((number, unit.trim_start()))
}

/// The error for a unit that is none.
pub(super) fn unknown<U: Unit>(text: &str, unit: &str) -> UnitError {
    U::error(
        text,
        format!("\"{}\" is no unit for it", super::shorten(unit)),
    )
}
