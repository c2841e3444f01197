//! What a host is made with.

use crate::{Error, Result, Subnet};

/// How containers are attached to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfig {
    /// The containers' addresses.
    pub subnet: Subnet,
    /// The name of the nftables table (family `inet`). It belongs to this crate alone.
    pub table: String,
    /// What the names of the host's ends begin with; the slot number in hexadecimal follows. Rules
    /// match all interfaces whose name begins so.
    pub prefix: String,
    /// The only interface that [`Policy::outbound`](crate::Policy::outbound) opens; none for any.
    pub uplink: Option<String>,
}

impl HostConfig {
    /// The usual names with a given subnet.
    #[must_use]
    pub fn with_subnet(subnet: Subnet) -> Self {
        Self {
            subnet,
            table: "fastcontainer".into(),
            prefix: "fc".into(),
            uplink: None,
        }
    }

    /// The name of a slot's interface on the host.
    #[must_use]
    pub fn link_name(&self, slot: u32) -> String {
        format!("{}{slot:x}", self.prefix)
    }

    /// The slot of an interface name; none if the name is not one that [`Self::link_name`] gives.
    #[must_use]
    pub fn slot_of(&self, name: &str) -> Option<u32> {
        let slot = u32::from_str_radix(name.strip_prefix(&self.prefix)?, 16).ok()?;
        (self.link_name(slot) == name && self.subnet.address(slot).is_some()).then_some(slot)
    }

    pub(super) fn check(&self) -> Result<()> {
        let word = |text: &str| {
            text.starts_with(|first: char| first.is_ascii_alphabetic())
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        };
        if !word(&self.table) || self.table.len() > 64 {
            return Err(Error::Invalid(format!(
                "`{}` is not usable as a table name: letters, digits, `_` and `-`",
                self.table
            )));
        }
        if !word(&self.prefix) || self.prefix.len() > 8 {
            return Err(Error::Invalid(format!(
                "`{}` is not usable as an interface prefix: 1 to 8 letters, digits, `_` and `-`",
                self.prefix
            )));
        }
        let device = |name: &String| {
            (1..16).contains(&name.len())
                && name
                    .chars()
                    .all(|c| c.is_ascii_graphic() && !"/\"\\*".contains(c))
        };
        match &self.uplink {
            Some(uplink) if !device(uplink) => Err(Error::Invalid(format!(
                "`{uplink}` is not an interface name"
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_could_break_the_rules_are_refused() {
        let good = HostConfig::with_subnet("10.88.0.0/16".parse().unwrap());
        good.check().unwrap();
        for bad in ["", "a b", "a;", "a\"", "1a", "a}"] {
            assert!(
                HostConfig {
                    table: bad.into(),
                    ..good.clone()
                }
                .check()
                .is_err(),
                "{bad}"
            );
            assert!(
                HostConfig {
                    prefix: bad.into(),
                    ..good.clone()
                }
                .check()
                .is_err(),
                "{bad}"
            );
        }
        for bad in ["", "eth0\"", "eth 0", "a*", "sixteencharacter"] {
            assert!(
                HostConfig {
                    uplink: Some(bad.into()),
                    ..good.clone()
                }
                .check()
                .is_err()
            );
        }
        HostConfig {
            uplink: Some("eth0.12".into()),
            ..good
        }
        .check()
        .unwrap();
    }

    proptest! {
        #[test]
        fn link_name_and_slot_are_inverse(slot in 1u32..65000) {
            let config = HostConfig::with_subnet("10.88.0.0/16".parse().unwrap());
            prop_assert_eq!(config.slot_of(&config.link_name(slot)), Some(slot));
        }

        #[test]
        fn foreign_names_have_no_slot(name in "fc[0-9a-zA-Z+]{0,12}") {
            let config = HostConfig::with_subnet("10.88.0.0/16".parse().unwrap());
            if let Some(slot) = config.slot_of(&name) {
                prop_assert_eq!(config.link_name(slot), name);
            }
        }
    }
}
