//! Lists of strings and environments in one allocation each.
//!
//! A host registers 100,000 sites of which most sleep. A `Vec<String>` of five words costs 300 bytes, the same words
//! packed cost 60; and words that end in a NUL are what execve wants anyway. Equal ones can share their memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// A list of strings without NUL.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Words(Arc<str>);

/// Environment variables, sorted by name.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Env(Words);

impl Words {
    /// Packs the words; an error if one of them holds a NUL.
    pub fn new<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> Result<Self, String> {
        let mut packed = String::new();
        for word in words {
            let word = word.as_ref();
            if word.contains('\0') {
                return Err(format!(
                    "\"{}\" contains a NUL character",
                    crate::config::units::shorten(word)
                ));
            }
            packed.push_str(word);
            packed.push('\0');
        }
        Ok(Words(packed.into()))
    }

    /// The words in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split_terminator('\0')
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.bytes().filter(|b| *b == 0).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes of all words, with one for the end of each.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

impl Env {
    /// Packs the variables; an error if a name holds `=` or anything holds a NUL.
    pub fn new(variables: &BTreeMap<String, String>) -> Result<Self, String> {
        if let Some(name) = variables.keys().find(|name| name.contains('=')) {
            return Err(format!(
                "\"{}\" is no variable name: it contains =",
                crate::config::units::shorten(name)
            ));
        }
        Words::new(
            variables
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        )
        .map(Env)
    }

    /// Name and value of each variable, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// Each variable as `NAME=value`.
    pub fn pairs(&self) -> &Words {
        &self.0
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.iter())
    }
}

impl Serialize for Env {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Words;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Words, A::Error> {
                let mut words: Vec<String> = Vec::new();
                while let Some(word) = seq.next_element()? {
                    words.push(word);
                }
                Words::new(words).map_err(A::Error::custom)
            }
        }
        d.deserialize_seq(List)
    }
}

impl<'de> Deserialize<'de> for Env {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = Env;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of variables and their values, as texts")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Env, A::Error> {
                let mut variables = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    variables.insert(name, value);
                }
                Env::new(&variables).map_err(A::Error::custom)
            }
        }
        d.deserialize_map(Table)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keeps_words(words in proptest::collection::vec("\\PC{0,8}", 0..6)) {
            let packed = Words::new(&words).unwrap();
            prop_assert_eq!(packed.iter().collect::<Vec<_>>(), words.iter().collect::<Vec<_>>());
            prop_assert_eq!(packed.len(), words.len());
            let json = serde_json::to_string(&packed).unwrap();
            prop_assert_eq!(serde_json::from_str::<Words>(&json).unwrap(), packed);
        }

        #[test]
        fn keeps_variables(variables in proptest::collection::btree_map("[A-Z_]{1,5}", "\\PC{0,8}", 0..6)) {
            let packed = Env::new(&variables).unwrap();
            let back: BTreeMap<String, String> = packed.iter().map(|(k, v)| (k.into(), v.into())).collect();
            prop_assert_eq!(&back, &variables);
            for (name, value) in &variables {
                prop_assert_eq!(packed.get(name), Some(value.as_str()));
            }
            let json = serde_json::to_string(&packed).unwrap();
            prop_assert_eq!(serde_json::from_str::<Env>(&json).unwrap(), packed);
        }
    }

    #[test]
    fn refuses_what_cannot_be_packed() {
        assert!(Words::new(["a\0b"]).unwrap_err().contains("NUL"));
        assert!(
            serde_json::from_str::<Env>(r#"{"A=B": "c"}"#)
                .unwrap_err()
                .to_string()
                .contains('=')
        );
        assert!(serde_json::from_str::<Env>(r#"{"A": "c\u0000"}"#).is_err());
    }
}
