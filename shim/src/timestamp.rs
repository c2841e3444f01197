//! Wall-clock time as text.

use rustix::time::{ClockId, clock_gettime};

/// Seconds since 1970 and microseconds.
pub(crate) fn now() -> (u64, u32) {
    let t = clock_gettime(ClockId::Realtime);
    (
        u64::try_from(t.tv_sec).unwrap_or(0),
        u32::try_from(t.tv_nsec / 1000).unwrap_or(0),
    )
}

/// Nanoseconds of a clock that never jumps.
pub(crate) fn monotonic() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}

/// `2026-11-22T05:51:02.123456Z`.
pub(crate) fn format((seconds, micros): (u64, u32)) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in cycles of 400 years (146,097 days); years that begin in March end with the leap day.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000007Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000007Z"),
            (1_795_326_662, "2026-11-22T05:51:02.000007Z"),
        ] {
            assert_eq!(format((seconds, 7)), text);
        }
    }
}
