//! Limits that are in force for a time, as `set`, `status` and `get` tell of them.
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{text, units};

/// One of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Temporary {
    value: String,
    until: String,
    left_s: f64,
    then: String,
}

/// What the agent tells, by key.
pub(crate) fn of(told: &Value) -> BTreeMap<String, Temporary> {
    Deserialize::deserialize(told).unwrap_or_default()
}

impl Temporary {
    /// `50% until 2026-11-22T12:00:00Z (10m00s left), then 20%`.
    pub(crate) fn phrase(&self) -> String {
        format!(
            "{} until {} ({} left), then {}",
            text::clean(&self.value),
            text::clean(&self.until),
            units::uptime(self.left_s),
            text::clean(&self.then)
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_is_a_phrase() {
        let told = json!({"cpu": {"value": "50%", "until": "2026-11-22T12:00:00Z", "left_s": 599.6, "then": "20%"}});
        let phrases: Vec<String> = of(&told).values().map(Temporary::phrase).collect();
        assert_eq!(
            phrases,
            ["50% until 2026-11-22T12:00:00Z (10m00s left), then 20%"]
        );
        assert!(of(&Value::Null).is_empty());
    }
}
