//! What remains of a command that has ended.

use serde::{Deserialize, Serialize};

/// How the command ended: one line of text in the exit file, `code N UNIX_SECONDS` or `signal N UNIX_SECONDS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// What happened.
    pub status: ExitStatus,
    /// When, seconds since 1970.
    pub at: u64,
}

/// Exit code or signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// It was ended by this signal.
    Signal(i32),
}

impl std::fmt::Display for ExitRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.status {
            ExitStatus::Code(n) => write!(f, "code {n} {}", self.at),
            ExitStatus::Signal(n) => write!(f, "signal {n} {}", self.at),
        }
    }
}

impl std::str::FromStr for ExitRecord {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("not an exit record: {s:?}");
        let mut words = s.split_ascii_whitespace();
        let kind = words.next().ok_or_else(bad)?;
        let number = words.next().and_then(|w| w.parse().ok()).ok_or_else(bad)?;
        let at = words.next().and_then(|w| w.parse().ok()).ok_or_else(bad)?;
        let status = match kind {
            "code" => ExitStatus::Code(number),
            "signal" => ExitStatus::Signal(number),
            _ => return Err(bad()),
        };
        Ok(Self { status, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for status in [
            ExitStatus::Code(0),
            ExitStatus::Code(255),
            ExitStatus::Signal(9),
        ] {
            let record = ExitRecord {
                status,
                at: 1_795_326_662,
            };
            assert_eq!(format!("{record}\n").parse(), Ok(record));
        }
        for bad in ["", "code", "code x 1", "signal 9", "exit 1 1"] {
            assert!(bad.parse::<ExitRecord>().is_err(), "{bad:?}");
        }
    }
}
