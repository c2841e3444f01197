#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// Parses every text of the table and compares stored number and printed form.
fn table<U: Unit + std::fmt::Debug>(rows: &[(&str, u64, &str)]) {
    for (text, raw, shown) in rows {
        let value: U = text.parse().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(
            (value.raw(), value.to_string().as_str()),
            (*raw, *shown),
            "{text}"
        );
    }
}

/// Every text is refused, and the error shows the text, the reason and an example.
fn refused<U: Unit + std::fmt::Debug>(rows: &[(&str, &str)]) {
    for (text, reason) in rows {
        let error = text.parse::<U>().unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
        assert!(
            error.starts_with(&format!("\"{text}\" is not ")) && error.ends_with(U::EXAMPLES),
            "{error}"
        );
    }
}

#[test]
fn cpu() {
    table::<Cpu>(&[
        ("20%", 2000, "20%"),
        ("1%", 100, "1%"),
        ("12.5%", 1250, "12.5%"),
        ("12.05 %", 1205, "12.05%"),
        ("1.5", 15_000, "150%"),
        ("2 cores", 20_000, "200%"),
        ("max", MAX, "max"),
    ]);
    refused::<Cpu>(&[
        ("0.5%", "below 1%"),
        ("0", "below 1%"),
        ("-1", "negative"),
        ("20x", "no unit"),
        ("9000", "so many cores"),
        ("", "empty"),
        (".5", "number"),
        ("1..5", "number"),
        ("1.", "number"),
    ]);
    assert_eq!(
        "20%".parse::<Cpu>().unwrap().quota_us(100_000),
        Some(20_000)
    );
    assert_eq!(Cpu::MAX.quota_us(100_000), None);
}

#[test]
fn sizes() {
    table::<Bytes>(&[
        ("256M", 256 << 20, "256M"),
        ("256MiB", 256 << 20, "256M"),
        ("1.5G", 1536 << 20, "1536M"),
        ("65536", 65536, "64K"),
        ("1000", 1000, "1000"),
        ("0", 0, "0"),
        ("5T", 5 << 40, "5T"),
        ("max", MAX, "max"),
    ]);
    refused::<Bytes>(&[
        ("1.5", "whole"),
        ("256Q", "no unit"),
        ("99999999P", "too large"),
        ("18446744073709551615", "too large"),
        ("123456789012345678901", "too many digits"),
        ("M", "number"),
    ]);
}

#[test]
fn rates() {
    table::<Rate>(&[
        ("2MB/s", 2_000_000, "2MB/s"),
        ("2Mbit/s", 250_000, "250KB/s"),
        ("512KiB/s", 524_288, "524288B/s"),
        ("1000", 1000, "1KB/s"),
        ("max", MAX, "max"),
    ]);
    table::<BitRate>(&[
        ("10Mbit", 1_250_000, "10Mbit/s"),
        ("10 Mbit/s", 1_250_000, "10Mbit/s"),
        ("1.5Gbit", 187_500_000, "1500Mbit/s"),
        ("2MB/s", 2_000_000, "16Mbit/s"),
    ]);
    refused::<Rate>(&[
        ("2Mbps", "bits or bytes"),
        ("2M", "bits or bytes"),
        ("0", "less than a byte"),
        ("7bit", "less than a byte"),
        ("2MB/m", "no unit"),
        ("9999999TB/s", "too large"),
    ]);
}

#[test]
fn times() {
    table::<Span>(&[
        ("60s", 60_000, "1m"),
        ("10m", 600_000, "10m"),
        ("24h", 86_400_000, "24h"),
        ("1h30m", 5_400_000, "1h30m"),
        ("1.5h", 5_400_000, "1h30m"),
        ("250ms", 250, "250ms"),
        ("1m 1s 1ms", 61_001, "1m1s1ms"),
        ("7d", 604_800_000, "7d"),
        ("90", 90_000, "1m30s"),
        ("0", 0, "0s"),
        ("never", MAX, "never"),
    ]);
    refused::<Span>(&[
        ("30m1h", "larger unit"),
        ("1s1s", "larger unit"),
        ("1h30", "no unit"),
        ("5 weeks", "no unit"),
        ("99999d", "ten years"),
        ("1s,", "number"),
        ("0.1ms", "smallest"),
    ]);
}

#[test]
fn counts_weights_percentages() {
    table::<Count>(&[("128", 128, "128"), ("max", MAX, "max"), ("0", 0, "0")]);
    table::<Weight>(&[("1", 1, "1"), ("10000", 10_000, "10000")]);
    table::<Percent>(&[
        ("20%", 2000, "20%"),
        ("0.5%", 50, "0.5%"),
        ("100%", 10_000, "100%"),
    ]);
    refused::<Count>(&[("1.5", "whole"), ("1k", "no unit")]);
    refused::<Weight>(&[("0", "range"), ("10001", "range"), ("max", "number")]);
    refused::<Percent>(&[("20", "% is missing"), ("101%", "more than the whole")]);
}

#[test]
fn reads_numbers_and_text_from_json() {
    assert_eq!(
        serde_json::from_str::<Cpu>("1.5").unwrap().to_string(),
        "150%"
    );
    assert_eq!(serde_json::from_str::<Count>("64").unwrap(), Count(64));
    assert_eq!(serde_json::to_string(&Count(64)).unwrap(), "64");
    assert_eq!(serde_json::to_string(&Count::MAX).unwrap(), "\"max\"");
    assert_eq!(serde_json::to_string(&Bytes(1 << 20)).unwrap(), "\"1M\"");
    assert!(
        serde_json::from_str::<Bytes>("-5")
            .unwrap_err()
            .to_string()
            .contains("negative")
    );
    assert!(
        serde_json::from_str::<Bytes>("[]")
            .unwrap_err()
            .to_string()
            .contains("256M")
    );
}

/// Whatever parses must print text that parses to the same number.
fn round_trip<U: Unit + std::fmt::Debug + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<U>() {
        assert_eq!(value.to_string().parse::<U>().unwrap(), value, "{text}");
    }
}

/// Texts near enough to quantities that many of them parse.
const NEARLY: &str =
    "[0-9]{0,12}(\\.[0-9]{0,4})? ?(%|[kKMGTP]i?B?(/s)?|[KMG]?bits?(/s)?|ms|s|m|h|d|h[0-9]{1,2}m|)";

proptest! {
    #[test]
    fn never_panics_and_round_trips(text in prop_oneof![NEARLY, "\\PC{0,30}"]) {
        round_trip::<Cpu>(&text);
        round_trip::<Bytes>(&text);
        round_trip::<Rate>(&text);
        round_trip::<BitRate>(&text);
        round_trip::<Span>(&text);
        round_trip::<Count>(&text);
        round_trip::<Weight>(&text);
        round_trip::<Percent>(&text);
    }

    #[test]
    fn prints_what_it_parses(n in any::<u64>()) {
        prop_assert_eq!(Bytes(n).to_string().parse::<Bytes>(), Ok(Bytes(n)));
        let cpu = Cpu::from_permyriad(100 + n % 80_000_000).unwrap();
        prop_assert_eq!(cpu.to_string().parse::<Cpu>(), Ok(cpu));
        let span = Span::from_raw(n % (3650 * 86_400_000));
        prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
        let rate = BitRate::from_raw(1 + n % 1_000_000_000_000_000_000);
        prop_assert_eq!(rate.to_string().parse::<BitRate>(), Ok(rate));
    }

    #[test]
    fn more_is_more(a in 0u32..1_000_000, b in 0u32..1_000_000, unit in "[KMG]|") {
        let size = |n: u32| format!("{n}{unit}").parse::<Bytes>().unwrap();
        prop_assert_eq!(a.cmp(&b), size(a).cmp(&size(b)));
        let time = |n: u32| format!("{n}ms").parse::<Span>().unwrap();
        prop_assert_eq!(a.cmp(&b), time(a).cmp(&time(b)));
        let rate = |n: u32| format!("{}.{:03}Mbit", n / 1000, n % 1000).parse::<BitRate>();
        if let (Ok(x), Ok(y)) = (rate(a), rate(b)) {
            prop_assert_eq!(a.cmp(&b), x.cmp(&y));
        }
    }
}
