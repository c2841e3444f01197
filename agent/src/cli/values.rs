//! JSON values of the API as people read them.
use serde::Deserialize;
use serde_json::Value;

use super::screen::{Screen, Tint};
use super::{text, units};

/// What changes, or would.
#[derive(Debug, Deserialize)]
pub(crate) struct Change {
    key: String,
    #[serde(default)]
    old: Value,
    #[serde(default)]
    new: Value,
}

/// A value on one line: strings without quotes, nothing as a dash.
pub(crate) fn show(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(s) => text::clean(s).into_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(show).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let items: Vec<String> = map
                .iter()
                .map(|(k, v)| format!("{} {}", text::clean(k), show(v)))
                .collect();
            items.join(", ")
        }
        other => other.to_string(),
    }
}

/// A limit: as [`show`], but plain numbers that count bytes with a unit.
pub(crate) fn show_limit(key: &str, value: &Value) -> String {
    let key = key.strip_prefix("limits.").unwrap_or(key);
    let is_size = key.starts_with("memory") || matches!(key, "swap" | "disk");
    match value.as_u64() {
        Some(n) if is_size => units::bytes(n),
        _ => show(value),
    }
}

/// `key: old → new` lines, aligned.
pub(crate) fn changes(screen: &Screen, indent: &str, changes: &[Change]) -> Vec<String> {
    let shown: Vec<[String; 3]> = changes
        .iter()
        .map(|c| {
            [
                text::clean(&c.key).into_owned() + ":",
                show_limit(&c.key, &c.old),
                show_limit(&c.key, &c.new),
            ]
        })
        .collect();
    let width = |i: usize| {
        shown
            .iter()
            .map(|c| c[i].chars().count())
            .max()
            .unwrap_or(0)
    };
    let (keys, olds) = (width(0), width(1).min(32));
    shown
        .iter()
        .map(|[key, old, new]| {
            let old = format!("{old:olds$}");
            format!(
                "{indent}{key:keys$} {} → {}",
                screen.paint(Tint::Bad, &old),
                screen.paint(Tint::Good, new)
            )
        })
        .collect()
}

/// The steps of a start in the order of time; JSON objects come sorted by name.
const STEPS: [&str; 5] = ["documents", "resources", "clone", "setup", "listen"];

/// A start's steps as (name, milliseconds), in the order of time; in the order sent if there are unknown ones.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Phases(pub(crate) Vec<(String, f64)>);

impl<'de> Deserialize<'de> for Phases {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> serde::de::Visitor<'de> for InOrder {
            type Value = Phases;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("phases with their milliseconds")
            }
            fn visit_unit<E>(self) -> Result<Phases, E> {
                Ok(Phases::default())
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Phases, A::Error> {
                let mut phases = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if let Some(ms) = value.as_f64() {
                        phases.push(scaled(name, ms));
                    }
                }
                // Beside the time of the whole start already.
                phases.retain(|(name, _)| name != "total");
                let place = |name: &str| STEPS.iter().position(|step| *step == name);
                if phases.iter().all(|(name, _)| place(name).is_some()) {
                    phases.sort_by_key(|(name, _)| place(name));
                }
                Ok(Phases(phases))
            }
        }
        deserializer.deserialize_any(InOrder)
    }
}

/// Names may carry their unit.
fn scaled(name: String, value: f64) -> (String, f64) {
    if let Some(name) = name.strip_suffix("_us") {
        return (name.to_owned(), value / 1000.0);
    }
    if let Some(name) = name.strip_suffix("_ms") {
        return (name.to_owned(), value);
    }
    (name, value)
}

impl Phases {
    /// `namespaces 0.42 ms · exec 1.20 ms`.
    pub(crate) fn line(&self) -> String {
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|(name, ms)| format!("{} {}", text::clean(name), units::millis(*ms)))
            .collect();
        parts.join(" · ")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn phases_keep_their_order() {
        let phases: Phases = serde_json::from_str(
            r#"{"spawn":0.5,"listen":30,"cgroup_us":120,"z_ms":1,"note":"x"}"#,
        )
        .unwrap();
        assert_eq!(
            phases.line(),
            "spawn 0.50 ms · listen 30.0 ms · cgroup 0.12 ms · z 1.00 ms"
        );
        let phases: Phases = serde_json::from_str(
            r#"{"clone":2,"documents":0.1,"listen":30,"resources":1,"setup":3,"total":36.1}"#,
        )
        .unwrap();
        assert_eq!(
            phases.line(),
            "documents 0.10 ms · resources 1.00 ms · clone 2.00 ms · setup 3.00 ms · listen 30.0 ms"
        );
        assert_eq!(
            serde_json::from_str::<Phases>("null").unwrap(),
            Phases::default()
        );
    }

    #[test]
    fn changes_are_aligned() {
        let list: Vec<Change> = serde_json::from_value(json!([
            {"key": "cpu", "old": "20%", "new": "50%"},
            {"key": "limits.memory", "old": null, "new": 268435456},
            {"key": "io.write", "old": "2MB/s\u{1b}[2J"},
        ]))
        .unwrap();
        let screen = Screen::of(Box::new(std::io::sink()), Box::new(std::io::sink()), false);
        assert_eq!(
            changes(&screen, "  ", &list),
            [
                "  cpu:           20%          → 50%",
                "  limits.memory: -            → 256M",
                "  io.write:      2MB/s\\x1b[2J → -",
            ]
        );
    }

    #[test]
    fn values_are_one_line() {
        assert_eq!(show(&json!(["a\n", 1, null])), "[a\\n, 1, -]");
        assert_eq!(
            show(&json!({"read": "2MB/s", "weight": 100})),
            "read 2MB/s, weight 100"
        );
        assert_eq!(show_limit("pids", &json!(4096)), "4096");
        assert_eq!(show_limit("memory_high", &json!(4096)), "4K");
    }
}
