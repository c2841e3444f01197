//! The addresses that containers get.

use crate::Error;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 network whose addresses are given to containers by slot number: slot *n* has the *n*-th
/// address. Slot 0 (the network) does not exist, the last address (broadcast) stays unused, and the
/// one before it is the host's, the gateway of all containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet {
    base: u32,
    length: u8,
}

impl Subnet {
    /// A network of `length` bits (8 to 29); the bits of `base` after them must be zero.
    pub fn new(base: Ipv4Addr, length: u8) -> Result<Self, Error> {
        let subnet = Self {
            base: base.to_bits(),
            length,
        };
        if !(8..=29).contains(&length) || subnet.base & (subnet.size() - 1) != 0 {
            return Err(Error::Invalid(format!(
                "{base}/{length} is not a network for containers: give the first address of a \
                 network and a length from 8 to 29, for example 10.88.0.0/16"
            )));
        }
        Ok(subnet)
    }

    const fn size(&self) -> u32 {
        // Only called with lengths of at most 32; a length of 0 is refused by `new` before use.
        match 1u32.checked_shl(32 - self.length as u32) {
            Some(size) => size,
            None => u32::MAX,
        }
    }

    /// The highest slot.
    #[must_use]
    pub const fn last_slot(&self) -> u32 {
        self.size() - 3
    }

    /// The address of a slot.
    #[must_use]
    pub fn address(&self, slot: u32) -> Option<Ipv4Addr> {
        (1..=self.last_slot())
            .contains(&slot)
            .then(|| Ipv4Addr::from_bits(self.base + slot))
    }

    /// The slot of an address.
    #[must_use]
    pub fn slot(&self, address: Ipv4Addr) -> Option<u32> {
        let slot = address.to_bits().checked_sub(self.base)?;
        (1..=self.last_slot()).contains(&slot).then_some(slot)
    }

    /// The host's own address towards the containers.
    #[must_use]
    pub const fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + (self.size() - 2))
    }

    /// The network address.
    #[must_use]
    pub const fn base(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base)
    }

    /// The number of network bits.
    #[must_use]
    pub const fn length(&self) -> u8 {
        self.length
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base(), self.length)
    }
}

impl FromStr for Subnet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Invalid(format!("`{text}` is not a network such as 10.88.0.0/16"));
        let (base, length) = text.split_once('/').ok_or_else(wrong)?;
        Self::new(
            base.parse().map_err(|_| wrong())?,
            length.parse().map_err(|_| wrong())?,
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_are_addresses() {
        let subnet: Subnet = "10.88.0.0/16".parse().unwrap();
        assert_eq!(subnet.address(6), Some(Ipv4Addr::new(10, 88, 0, 6)));
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 88, 255, 254));
        assert_eq!(subnet.address(0), None);
        assert_eq!(subnet.address(subnet.last_slot() + 1), None);
        assert_eq!(subnet.slot(subnet.gateway()), None);
        assert_eq!(subnet.to_string(), "10.88.0.0/16");
    }

    #[test]
    fn networks_that_cannot_work_are_refused() {
        for text in [
            "10.88.0.1/16",
            "10.88.0.0/30",
            "10.0.0.0/7",
            "0.0.0.0/0",
            "10.88.0.0/99",
            "x",
        ] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn address_and_slot_are_inverse(base: u32, length in 8u8..=29, slot: u32) {
            let base = base & (u32::MAX << (32 - length));
            let subnet = Subnet::new(Ipv4Addr::from_bits(base), length).unwrap();
            let slot = slot % (subnet.last_slot() + 2);
            if let Some(address) = subnet.address(slot) {
                prop_assert_eq!(subnet.slot(address), Some(slot));
                prop_assert_ne!(address, subnet.gateway());
            }
            prop_assert_eq!(subnet.to_string().parse::<Subnet>().unwrap(), subnet);
        }

        #[test]
        fn any_text_is_survived(text in ".{0,40}") {
            if let Ok(subnet) = text.parse::<Subnet>() {
                prop_assert!(subnet.last_slot() >= 5);
            }
        }
    }
}
