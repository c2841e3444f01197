//! Numbers as people read them.

/// Bytes with a binary suffix, as definitions write them: `512B`, `45.2M`, `256M`.
pub(crate) fn bytes(n: u64) -> String {
    let mut suffixes = ["K", "M", "G", "T", "P", "E"].iter();
    if n < 1024 {
        return format!("{n}B");
    }
    let mut value = n as f64;
    let mut suffix = "B";
    // 999.5 and more would print as four digits: go on to the next suffix.
    while value >= 999.5 {
        match suffixes.next() {
            Some(next) => {
                value /= 1024.0;
                suffix = next;
            }
            None => break,
        }
    }
    if value >= 99.95 || (value - value.round()).abs() < 0.05 {
        format!("{value:.0}{suffix}")
    } else {
        format!("{value:.1}{suffix}")
    }
}

/// Seconds in at most two units: `0.42s`, `45s`, `12m30s`, `2h13m`, `12d4h`.
pub(crate) fn seconds(s: f64) -> String {
    if !s.is_finite() || s < 0.0 {
        return "?".to_owned();
    }
    if s == 0.0 {
        return "0s".to_owned();
    }
    if s < 9.995 {
        return format!("{s:.2}s");
    }
    let whole = s.round() as u64;
    let (d, h, m, s) = (
        whole / 86400,
        whole / 3600 % 24,
        whole / 60 % 60,
        whole % 60,
    );
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => format!("{m}m{s:02}s"),
        (0, _, _) => format!("{h}h{m:02}m"),
        _ => format!("{d}d{h:02}h"),
    }
}

/// Seconds without fractions, for times measured in whole seconds.
pub(crate) fn uptime(s: f64) -> String {
    if (0.0..10.0).contains(&s) {
        return format!("{}s", s as u64);
    }
    seconds(s)
}

/// Milliseconds with three digits: `0.42 ms`, `12.3 ms`, `1.20 s`.
pub(crate) fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 9.995 => format!("{ms:.2} ms"),
        ms if ms < 99.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1000.0),
    }
}

/// A size such as `256M`, `5G`, `1048576`, `2MB`, `512 KiB` in bytes; None if it is none.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let power = match suffix.trim().to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 1,
        "M" | "MB" | "MIB" => 2,
        "G" | "GB" | "GIB" => 3,
        "T" | "TB" | "TIB" => 4,
        _ => return None,
    };
    let value = number.parse::<f64>().ok()? * 1024f64.powi(power);
    Some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_short() {
        for (n, want) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1K"),
            (1536, "1.5K"),
            (47_395_635, "45.2M"),
            (256 << 20, "256M"),
            (1023 << 20, "1G"),
            (5 << 30, "5G"),
            (u64::MAX, "16E"),
        ] {
            let got = bytes(n);
            assert_eq!(got, want, "{n}");
            assert!(got.len() <= 5, "{got}");
            if n >= 1024 {
                let back = parse_bytes(&got).map(|b| b as f64 / n as f64);
                assert!(back.is_none_or(|r| (0.9..1.1).contains(&r)), "{n}: {got}");
            }
        }
    }

    #[test]
    fn times_have_two_units_at_most() {
        for (s, want) in [
            (0.0, "0s"),
            (0.421, "0.42s"),
            (9.999, "10s"),
            (45.4, "45s"),
            (59.7, "1m00s"),
            (750.0, "12m30s"),
            (7_980.0, "2h13m"),
            (1_051_200.0, "12d04h"),
            (f64::NAN, "?"),
        ] {
            assert_eq!(seconds(s), want, "{s}");
        }
        assert_eq!(uptime(3.9), "3s");
        assert_eq!(uptime(30.0), "30s");
        assert_eq!(millis(0.4219), "0.42 ms");
        assert_eq!(millis(12.34), "12.3 ms");
        assert_eq!(millis(123.4), "123 ms");
        assert_eq!(millis(1203.0), "1.20 s");
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse_bytes("256M"), Some(256 << 20));
        assert_eq!(parse_bytes("1.5G"), Some(1536 << 20));
        assert_eq!(parse_bytes("1048576"), Some(1 << 20));
        assert_eq!(parse_bytes("20%"), None);
        assert_eq!(parse_bytes("M"), None);
    }
}
