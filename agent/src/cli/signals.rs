//! Names of signals as people write them.

/// Canonical name, number, other names.
const SIGNALS: [(&str, u8, &str); 11] = [
    ("HUP", 1, "RELOAD"),
    ("INT", 2, "INTERRUPT"),
    ("QUIT", 3, "QUIT"),
    ("KILL", 9, "KILL"),
    ("USR1", 10, "USR1"),
    ("USR2", 12, "USR2"),
    ("ALRM", 14, "ALARM"),
    ("TERM", 15, "TERMINATE"),
    ("CONT", 18, "CONTINUE"),
    ("STOP", 19, "PAUSE"),
    ("WINCH", 28, "WINCH"),
];

/// The canonical name (`HUP`) of a signal given as `hup`, `SIGHUP` or `1`.
pub(crate) fn canonical(text: &str) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = text.parse::<u8>().ok();
    SIGNALS
        .iter()
        .find(|(canonical, n, other)| match number {
            Some(number) => number == *n,
            None => name == *canonical || name == *other,
        })
        .map(|(canonical, ..)| (*canonical).to_owned())
        .ok_or_else(|| {
            let names: Vec<String> = SIGNALS.iter().map(|s| s.0.to_lowercase()).collect();
            format!("not a signal to send; one of {}", names.join(", "))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_prefixes() {
        for (given, want) in [
            ("hup", "HUP"),
            ("SIGHUP", "HUP"),
            ("sigterm", "TERM"),
            ("1", "HUP"),
            ("2", "INT"),
            ("9", "KILL"),
            ("alarm", "ALRM"),
            ("alrm", "ALRM"),
            ("usr1", "USR1"),
            ("10", "USR1"),
            ("cont", "CONT"),
        ] {
            assert_eq!(canonical(given).as_deref(), Ok(want), "{given}");
        }
        for bad in ["", "SIG", "nope", "0", "64", "-1"] {
            assert!(canonical(bad).is_err(), "{bad}");
        }
    }
}
