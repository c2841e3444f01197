//! Users and groups of the host, by name or by number.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// A user or a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// By number.
    Id(u32),
    /// By name, looked up when it is needed.
    Name(Box<str>),
}

impl Principal {
    /// The uid, if there is such a user. Asks the host's user database, which may block.
    pub fn uid(&self) -> std::io::Result<Option<u32>> {
        match self {
            Principal::Id(id) => Ok(Some(*id)),
            Principal::Name(name) => {
                Ok(nix::unistd::User::from_name(name)?.map(|user| user.uid.as_raw()))
            }
        }
    }

    /// The gid, if there is such a group. Asks the host's group database, which may block.
    pub fn gid(&self) -> std::io::Result<Option<u32>> {
        match self {
            Principal::Id(id) => Ok(Some(*id)),
            Principal::Name(name) => {
                Ok(nix::unistd::Group::from_name(name)?.map(|group| group.gid.as_raw()))
            }
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::Id(id) => id.fmt(f),
            Principal::Name(name) => f.write_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for Principal {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct NameOrId;
        impl de::Visitor<'_> for NameOrId {
            type Value = Principal;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name or number of a user or group")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Principal, E> {
                if text.is_empty() || text.contains(['\0', ':', '/', '\n']) {
                    return Err(E::invalid_value(de::Unexpected::Str(text), &self));
                }
                Ok(text
                    .parse()
                    .map_or_else(|_| Principal::Name(text.into()), Principal::Id))
            }
            fn visit_i64<E: de::Error>(self, id: i64) -> Result<Principal, E> {
                let valid = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
                valid
                    .map(Principal::Id)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(id), &self))
            }
        }
        d.deserialize_any(NameOrId)
    }
}
