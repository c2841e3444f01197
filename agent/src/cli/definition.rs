//! Definition files: read as TOML or JSON, written as TOML in the order people write them.

use crate::config::definition::{IO_LIMITS, LIMITS};
use serde_json::{Map, Value};

/// Keys in the order of the documentation; others follow in alphabetical order.
const ORDER: [&[&str]; 4] = [BEFORE, LIMITS, IO_LIMITS, AFTER];
const BEFORE: &[&str] = &[
    "name",
    "aliases",
    "owner",
    "template",
    "documents",
    "command",
    "listen",
    "user",
    "env",
    "limits",
    "network",
    "idle",
    "start",
];
const AFTER: &[&str] = &[
    "mode",
    "outbound",
    "allow",
    "timeout",
    "action",
    "max_lifetime",
    "stop",
];

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `*.toml`
    Toml,
    /// `*.json`
    Json,
    /// Found out by trying.
    Unknown,
}

/// The definitions in a file: one in TOML, one or an array in JSON; an API answer counts by its `definition`.
pub(crate) fn read(text: &str, format: Format) -> Result<Vec<(String, Value)>, String> {
    let value = match format {
        Format::Toml => from_toml(text)?,
        Format::Json => from_json(text)?,
        // Anything that is JSON is no TOML, but for an empty file, and "[]".
        Format::Unknown => match serde_json::from_str(text) {
            Ok(value) => value,
            Err(_) if text.trim_start().starts_with('{') => from_json(text)?,
            Err(_) => from_toml(text)?,
        },
    };
    let all = match value {
        Value::Array(all) => all,
        one => vec![one],
    };
    all.into_iter().map(named).collect()
}

fn from_toml(text: &str) -> Result<Value, String> {
    toml::from_str(text).map_err(|e| format!("not TOML: {}", e.to_string().trim_end()))
}

fn from_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))
}

fn named(mut value: Value) -> Result<(String, Value), String> {
    if let Some(inner @ Value::Object(_)) = value.get_mut("definition") {
        value = inner.take();
    }
    if !value.is_object() {
        return Err("not a definition (a table with name, owner, …)".to_owned());
    }
    match value.get("name").and_then(Value::as_str) {
        Some("") | None => Err("no name: a definition needs name = \"host.example\"".to_owned()),
        Some(name) => Ok((name.to_owned(), value)),
    }
}

/// A definition as TOML; nulls (unset keys) are left out.
pub(crate) fn to_toml(definition: &Map<String, Value>) -> String {
    let mut out = String::new();
    let (tables, plain): (Vec<_>, Vec<_>) = sorted(definition)
        .into_iter()
        .filter(|(_, v)| !v.is_null())
        .partition(|(key, v)| v.is_object() && key.as_str() != "env");
    for (key, value) in plain {
        out += &format!("{} = {}\n", toml_key(key), inline(value));
    }
    for (key, value) in tables {
        let Value::Object(table) = value else {
            continue;
        };
        let lines: Vec<String> = sorted(table)
            .into_iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| format!("{} = {}\n", toml_key(k), inline(v)))
            .collect();
        if !lines.is_empty() {
            out += &format!("\n[{}]\n{}", toml_key(key), lines.concat());
        }
    }
    out
}

fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut all: Vec<_> = map.iter().collect();
    all.sort_by_key(|(key, _)| {
        ORDER
            .iter()
            .copied()
            .flatten()
            .position(|k| k == key)
            .unwrap_or(usize::MAX)
    });
    all
}

fn inline(value: &Value) -> String {
    match value {
        // Kept out by the callers where it matters; inside an array there is nothing better.
        Value::Null => "\"\"".to_owned(),
        Value::String(s) => string(s),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let items: Vec<String> = sorted(map)
                .into_iter()
                .filter(|(_, v)| !v.is_null())
                .map(|(k, v)| format!("{} = {}", toml_key(k), inline(v)))
                .collect();
            if items.is_empty() {
                "{}".to_owned()
            } else {
                format!("{{ {} }}", items.join(", "))
            }
        }
        other => other.to_string(),
    }
}

fn toml_key(key: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !key.is_empty() && key.bytes().all(bare) {
        key.to_owned()
    } else {
        string(key)
    }
}

/// A TOML basic string. Escaped is all that a terminal could take for a command.
fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            '\n' => out += "\\n",
            '\t' => out += "\\t",
            c if super::text::is_harmful(c) => out += &format!("\\U{:08x}", c as u32),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const SAMPLE: &str = r#"name = "example.com"
aliases = ["www.example.com"]
owner = "acme"
command = ["apache2", "-D", "FOREGROUND"]
env = { "A B" = "x\"y\\", KEY = "value" }

[limits]
cpu = "20%"
pids = 128
io = { read = "2MB/s", weight = 100 }

[network]
outbound = true
"#;

    #[test]
    fn a_definition_comes_out_as_it_went_in() {
        let [(name, value)] = &read(SAMPLE, Format::Toml).unwrap()[..] else {
            panic!()
        };
        assert_eq!(name, "example.com");
        assert_eq!(to_toml(value.as_object().unwrap()), SAMPLE);
    }

    #[test]
    fn every_form_is_understood() {
        let names = |text: &str, format| -> Vec<String> {
            read(text, format)
                .unwrap()
                .into_iter()
                .map(|d| d.0)
                .collect()
        };
        assert_eq!(names("name = 'a'", Format::Unknown), ["a"]);
        assert_eq!(
            names("# c\nname = 'a'\n[limits]\ncpu='1'", Format::Unknown),
            ["a"]
        );
        assert_eq!(names(r#"{"name":"a"}"#, Format::Unknown), ["a"]);
        assert_eq!(
            names(r#"[{"name":"a"},{"name":"b"}]"#, Format::Json),
            ["a", "b"]
        );
        assert_eq!(
            names(
                r#"{"vhost":"a","state":"running","definition":{"name":"a"}}"#,
                Format::Json
            ),
            ["a"]
        );
    }

    #[test]
    fn errors_name_the_place() {
        let error = |text, format| read(text, format).unwrap_err();
        assert!(error("name = \"a\nowner = 1", Format::Toml).contains("line 1"));
        assert!(error("{\"name\": }", Format::Unknown).contains("not JSON"));
        assert!(error("owner = 'x'", Format::Toml).contains("no name"));
        assert!(error("3", Format::Json).contains("not a definition"));
        assert!(error("", Format::Unknown).contains("no name"));
    }

    proptest! {
        #[test]
        fn strings_survive(text: String, key: String) {
            let value = json!({"name": "x", "env": {key: text.clone()}, "user": text});
            let back = read(&to_toml(value.as_object().unwrap()), Format::Toml).unwrap();
            prop_assert_eq!(&back[0].1, &value);
        }
    }
}
