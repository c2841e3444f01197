//! Figures as verdicts show them.

use crate::cli::units;

/// Bytes, or bytes a second.
pub(super) fn bytes(n: f64) -> String {
    // A negative number or none at all becomes 0.
    units::bytes(n.max(0.0) as u64)
}

/// `96 %`.
pub(super) fn percent(n: f64) -> String {
    format!("{:.0} %", n.max(0.0))
}

/// `part` of `whole`; nothing of nothing.
pub(super) fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}
