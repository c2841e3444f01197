//! Thresholds as Nagios writes them: `10`, `10:`, `~:10`, `5:10`, `@5:10`.

use std::fmt;
use std::str::FromStr;

/// The values that are well; beyond them is an alert. With `@` it is the other way round.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    start: f64,
    end: f64,
    inside: bool,
    text: String,
}

impl Range {
    /// Whether this value is to be told.
    pub(crate) fn alerts(&self, value: f64) -> bool {
        let within = self.start <= value && value <= self.end;
        within == self.inside
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (inside, bounds) = match text.strip_prefix('@') {
            Some(bounds) => (true, bounds),
            None => (false, text),
        };
        let number = |text: &str| {
            let number = text.parse::<f64>().ok().filter(|n| n.is_finite());
            number.ok_or_else(|| {
                format!("{text:?} is no number; a range is 10, 10:, ~:10, 5:10 or @5:10")
            })
        };
        let (start, end) = match bounds.split_once(':') {
            None => (0.0, number(bounds)?),
            Some((start, end)) => {
                let start = match start {
                    "~" => f64::NEG_INFINITY,
                    "" => 0.0,
                    start => number(start)?,
                };
                let end = match end {
                    "" => f64::INFINITY,
                    end => number(end)?,
                };
                (start, end)
            }
        };
        if start > end {
            return Err(format!("{text:?} ends before it begins"));
        }
        Ok(Self {
            start,
            end,
            inside,
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn alerts(range: &str, value: f64) -> bool {
        range.parse::<Range>().unwrap().alerts(value)
    }

    /// The table of the plugins' guidelines.
    #[test]
    fn ranges_mean_what_nagios_says() {
        for (range, well, wrong) in [
            ("10", &[0.0, 5.0, 10.0][..], &[-1.0, 10.1][..]),
            ("10:", &[10.0, 1e9], &[9.9, -1.0]),
            ("~:10", &[-1e9, 10.0], &[10.1]),
            ("10:20", &[10.0, 20.0], &[9.9, 20.1]),
            ("@10:20", &[9.9, 20.1], &[10.0, 15.0, 20.0]),
            (":5", &[0.0, 5.0], &[-0.1, 5.1]),
            ("-5:-1", &[-5.0, -1.0], &[0.0, -6.0]),
        ] {
            for value in well {
                assert!(!alerts(range, *value), "{range} {value}");
            }
            for value in wrong {
                assert!(alerts(range, *value), "{range} {value}");
            }
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "x", "20:10", "1:x", "@", "nan", "inf", "10:~", "1:2:3"] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,12}") {
            let _ = text.parse::<Range>();
        }

        #[test]
        fn a_range_and_its_inverse_never_agree(a in -1e6..1e6f64, b in -1e6..1e6f64, value in -1e7..1e7f64) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert_ne!(alerts(&format!("{low}:{high}"), value), alerts(&format!("@{low}:{high}"), value));
        }

        #[test]
        fn what_is_shown_is_read_again(a in 0.0..1e6f64, inside: bool) {
            let text = format!("{}{a}:", if inside { "@" } else { "" });
            let range: Range = text.parse().unwrap();
            prop_assert_eq!(range.to_string().parse::<Range>().unwrap(), range);
        }
    }
}
