//! `key=value` of `fastctl set`, and the merge patch made from it.
use serde_json::{Map, Value};

/// One limit: a dotted key and its new value (null lifts the limit).
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// `cpu`, or `io.read`.
    pub key: String,
    /// A string, a whole number, or null.
    pub value: Value,
}

/// Limits that count something are numbers in a definition; all others are strings with a unit.
const COUNTS: [&str; 6] = [
    "pids",
    "cpu_weight",
    "io.weight",
    "io.read_iops",
    "io.write_iops",
    "io_weight",
];

/// Reads `key=value`; what the keys and values mean is the agent's business.
pub(crate) fn parse(text: &str) -> Result<Assignment, String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("a limit is written key=value, such as cpu=20%")?;
    let (key, value) = (key.trim(), value.trim());
    let word = |w: &str| {
        !w.is_empty()
            && w.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    if !key.split('.').all(word) || key.split('.').count() > 2 {
        return Err(format!(
            "{key:?} is not the name of a limit, such as cpu or io.read"
        ));
    }
    let value = match value {
        "" | "none" => Value::Null,
        _ => match value.parse::<u64>() {
            Ok(number) if COUNTS.contains(&key) => Value::from(number),
            _ => Value::from(value),
        },
    };
    Ok(Assignment {
        key: key.to_owned(),
        value,
    })
}

/// All assignments as one JSON object; a key given twice or as value and table at once is an error.
pub(crate) fn patch(assignments: &[Assignment]) -> Result<Value, String> {
    let mut patch = Map::new();
    for Assignment { key, value } in assignments {
        let twice = || format!("{key} is given twice");
        let before = match key.split_once('.') {
            None => patch.insert(key.clone(), value.clone()),
            Some((table, inner)) => patch
                .entry(table)
                .or_insert_with(|| Value::Object(Map::new()))
                .as_object_mut()
                .ok_or_else(twice)?
                .insert(inner.to_owned(), value.clone()),
        };
        if before.is_some() {
            return Err(twice());
        }
    }
    Ok(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn of(words: &[&str]) -> Result<Value, String> {
        let all: Result<Vec<_>, _> = words.iter().map(|w| parse(w)).collect();
        patch(&all?)
    }

    #[test]
    fn values_keep_their_kind() {
        assert_eq!(
            of(&[
                "cpu=20%",
                "memory=256M",
                "pids=128",
                "io.write=2MB/s",
                "io.read_iops=200",
                "disk=",
                "swap=none"
            ])
            .unwrap(),
            json!({"cpu": "20%", "memory": "256M", "pids": 128, "io": {"write": "2MB/s", "read_iops": 200},
                   "disk": null, "swap": null})
        );
        assert_eq!(
            of(&["cpu=1.5", "memory=1048576"]).unwrap(),
            json!({"cpu": "1.5", "memory": "1048576"})
        );
        assert_eq!(of(&["pids=max"]).unwrap(), json!({"pids": "max"}));
    }

    #[test]
    fn nonsense_is_refused() {
        for words in [
            &["cpu"][..],
            &["=5"],
            &["a b=5"],
            &["io.=5"],
            &["a.b.c=5"],
            &["cpu=1", "cpu=2"],
            &["io.read=1", "io.read=2"],
            &["io=1", "io.read=2"],
            &["io.read=2", "io=1"],
        ] {
            assert!(of(words).is_err(), "{words:?}");
        }
    }
}
