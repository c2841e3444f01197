//! Limits in TOML and JSON: the disk's in a table of their own, `io = { read = "2MB/s" }`.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::fmt;

use super::limit_key::LimitKey;
use super::limits::{LimitPatch, Limits};
use crate::config::units::MAX;

/// The keys at the top of the table of limits, in the order of the documentation.
pub const LIMITS: &[&str] = &[
    "cpu",
    "cpu_weight",
    "cpu_burst",
    "memory",
    "memory_high",
    "memory_min",
    "swap",
    "pids",
    "io",
    "egress",
    "ingress",
    "disk",
    "nofile",
    "class",
];
/// Those of its table `io`.
pub const IO_LIMITS: &[&str] = &["read", "write", "read_iops", "write_iops", "weight"];

/// One value: a bare number or text.
struct Value(LimitKey, u64);

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Value(key, raw) if key.bare() && *raw != MAX => s.serialize_u64(*raw),
            Value(key, raw) => s.serialize_str(&key.show(*raw)),
        }
    }
}

/// The limits of the table `io`.
struct Io<'a>(&'a Limits);

impl Io<'_> {
    fn entries(&self) -> impl Iterator<Item = (&'static str, Value)> {
        self.0
            .iter()
            .filter_map(|(key, raw)| Some((key.name().strip_prefix("io.")?, Value(key, raw))))
    }
}

impl Serialize for Io<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.entries())
    }
}

impl Serialize for Limits {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        for (key, raw) in self.iter().filter(|(key, _)| !key.name().contains('.')) {
            map.serialize_entry(key.name(), &Value(key, raw))?;
        }
        // Last, because in TOML a table must not stand before plain values.
        if Io(self).entries().next().is_some() {
            map.serialize_entry("io", &Io(self))?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut patch = LimitPatch::default();
        d.deserialize_map(Table {
            patch: &mut patch,
            io: false,
            unset: false,
        })?;
        Ok(Limits::default().patched(&patch))
    }
}

impl<'de> Deserialize<'de> for LimitPatch {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut patch = LimitPatch::default();
        d.deserialize_map(Table {
            patch: &mut patch,
            io: false,
            unset: true,
        })?;
        Ok(patch)
    }
}

impl Serialize for LimitPatch {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(
            self.0
                .iter()
                .map(|(key, raw)| (key.name(), raw.map(|raw| Value(*key, raw)))),
        )
    }
}

/// Reads a table of limits into a patch.
struct Table<'p> {
    patch: &'p mut LimitPatch,
    /// Whether this is the table `io`.
    io: bool,
    /// Whether `null` and `default` may stand for "as the definition says".
    unset: bool,
}

impl<'de> Visitor<'de> for Table<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.io {
            "a table of I/O limits"
        } else {
            "a table of limits"
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Table { patch, io, unset } = self;
        while let Some(key) = map.next_key_seed(Key { io, flat: unset })? {
            match key {
                None => map.next_value_seed(Table {
                    patch,
                    io: true,
                    unset,
                })?,
                Some(key) => map.next_value_seed(Entry { patch, key, unset })?,
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Table<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_map(self)
    }
}

/// Reads a key; nothing is the table `io`. A patch may also say `io.read`, as the command line does.
struct Key {
    io: bool,
    flat: bool,
}

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<LimitKey>;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<LimitKey>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a limit")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        if name == "io" && !self.io {
            return Ok(None);
        }
        LimitKey::ALL
            .into_iter()
            .find(|key| match key.name().strip_prefix("io.") {
                Some(short) => {
                    (self.io && short == name) || (self.flat && !self.io && key.name() == name)
                }
                None => !self.io && key.name() == name,
            })
            .map(Some)
            .ok_or_else(|| E::unknown_field(name, if self.io { IO_LIMITS } else { LIMITS }))
    }
}

/// Reads the value of a key into the patch.
struct Entry<'p> {
    patch: &'p mut LimitPatch,
    key: LimitKey,
    unset: bool,
}

impl<'de> DeserializeSeed<'de> for Entry<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl Visitor<'_> for Entry<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value for the limit {}, as text or number", self.key)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let key = self.key;
        if text.trim() == "default" && !self.unset {
            return Err(E::custom(format!(
                "{key}: leave the key out for its default"
            )));
        }
        self.patch
            .push(key, text)
            .map_err(|e| E::custom(format!("{key}: {e}")))
    }
    fn visit_u64<E: Error>(self, n: u64) -> Result<(), E> {
        self.visit_str(&n.to_string())
    }
    fn visit_i64<E: Error>(self, n: i64) -> Result<(), E> {
        self.visit_str(&n.to_string())
    }
    fn visit_f64<E: Error>(self, n: f64) -> Result<(), E> {
        self.visit_str(&n.to_string())
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.visit_str("default")
    }
}
