//! Arithmetic between what is asked for and what the kernel stores. Pure.

/// The weight of a group that was given none.
pub const WEIGHT_DEFAULT: u64 = 100;
/// The lowest weight.
pub const WEIGHT_MIN: u64 = 1;
/// The highest weight.
pub const WEIGHT_MAX: u64 = 10_000;
const BFQ_MAX: u64 = 1_000;

/// v1 `cpu.shares` for a v2 weight, as systemd converts: 100 is 1024.
#[must_use]
pub fn weight_to_shares(weight: u64) -> u64 {
    (weight.clamp(WEIGHT_MIN, WEIGHT_MAX) * 1024 / 100).clamp(2, 262_144)
}

/// The weight that [`weight_to_shares`] would have come from; the nearest one for other shares.
#[must_use]
pub fn shares_to_weight(shares: u64) -> u64 {
    (shares.min(262_144) * 100 + 512)
        .div_euclid(1024)
        .clamp(WEIGHT_MIN, WEIGHT_MAX)
}

/// The BFQ scheduler's weight (1..1000, default 100) for an I/O weight: the same, so that shares are what the weights say.
/// Above its upper end there is no more to be had (systemd compresses what is above the default instead: with that a site
/// with three times its sibling's weight would get 54 instead of 75 % of the disk).
#[must_use]
pub fn weight_to_bfq(weight: u64) -> u64 {
    weight.clamp(WEIGHT_MIN, BFQ_MAX)
}

/// The lowest weight that becomes this BFQ weight.
#[must_use]
pub fn bfq_to_weight(bfq: u64) -> u64 {
    bfq.clamp(WEIGHT_MIN, BFQ_MAX)
}

/// Memory limits are kept in pages, rounded down.
#[must_use]
pub fn round_to_page(bytes: u64, page: u64) -> u64 {
    bytes - bytes % page.max(1)
}

/// v1 shows "no limit" as the greatest page-aligned signed number.
#[must_use]
pub fn is_v1_memory_max(bytes: u64, page: u64) -> bool {
    bytes >= round_to_page(i64::MAX as u64, page)
}

/// Bytes for a person: `4M`, `6.2M`, `512K`, `100`.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["", "K", "M", "G", "T"];
    let mut unit = 0;
    let mut scale = 1u64;
    while unit + 1 < UNITS.len() && bytes / scale >= 1024 {
        scale *= 1024;
        unit += 1;
    }
    let whole = bytes / scale;
    let tenth = (bytes % scale) * 10 / scale;
    let name = UNITS.get(unit).copied().unwrap_or("");
    if tenth == 0 {
        format!("{whole}{name}")
    } else {
        format!("{whole}.{tenth}{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        assert_eq!(weight_to_shares(100), 1024);
        assert_eq!(weight_to_shares(10_000), 102_400);
        assert_eq!(weight_to_bfq(10_000), 1_000);
        assert_eq!(human_bytes(4 << 20), "4M");
        assert_eq!(human_bytes(6_501_172), "6.2M");
        assert_eq!(human_bytes(1023), "1023");
        assert!(is_v1_memory_max(9_223_372_036_854_771_712, 4096));
        assert!(!is_v1_memory_max(1 << 50, 4096));
    }

    proptest! {
        #[test]
        fn every_weight_survives_v1(weight in WEIGHT_MIN..=WEIGHT_MAX) {
            prop_assert_eq!(shares_to_weight(weight_to_shares(weight)), weight);
        }

        #[test]
        fn bfq_is_monotonic_and_stable(weight in WEIGHT_MIN..WEIGHT_MAX) {
            let bfq = weight_to_bfq(weight);
            prop_assert!((1..=1000).contains(&bfq));
            prop_assert!(bfq <= weight_to_bfq(weight + 1));
            prop_assert_eq!(weight_to_bfq(bfq_to_weight(bfq)), bfq);
            prop_assert!(bfq_to_weight(bfq) <= weight);
        }

        #[test]
        fn any_number_is_safe(n in any::<u64>(), page in any::<u64>()) {
            let _ = (weight_to_shares(n), shares_to_weight(n), weight_to_bfq(n), bfq_to_weight(n), human_bytes(n));
            prop_assert!(round_to_page(n, page) <= n);
            let _ = is_v1_memory_max(n, page);
        }
    }
}
