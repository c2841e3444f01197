//! The containers' addresses, and permission bits as people write them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::SocketMode;
use crate::config::definition::serde_text;
use crate::config::units::shorten;

/// An IPv4 network: `10.88.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    address: Ipv4Addr,
    prefix: u8,
}

serde_text!(Subnet: "an IPv4 network", SocketMode: "permissions in octal");

impl Default for Subnet {
    fn default() -> Self {
        Subnet {
            address: Ipv4Addr::new(10, 88, 0, 0),
            prefix: 16,
        }
    }
}

impl Subnet {
    /// The network's own address.
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// The number of leading bits that all its addresses share.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// How many addresses there are, with the network's own and the last.
    pub fn size(self) -> u32 {
        1 << (32 - u32::from(self.prefix))
    }

    /// The address at this place of the network, if it has that many.
    pub fn nth(self, at: u32) -> Option<Ipv4Addr> {
        (at < self.size()).then(|| Ipv4Addr::from(u32::from(self.address) + at))
    }

    /// Whether an address is in the network.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address).wrapping_sub(u32::from(self.address)) < self.size()
    }
}

impl FromStr for Subnet {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "\"{}\" is no network: {why}; write \"10.88.0.0/16\"",
                shorten(text)
            )
        };
        let (address, prefix) = text
            .split_once('/')
            .ok_or_else(|| wrong("the /prefix is missing"))?;
        let address: Ipv4Addr = address
            .parse()
            .map_err(|_| wrong("an IPv4 address is expected before the /"))?;
        let prefix: u8 = match prefix.parse() {
            Ok(prefix @ 8..=30) => prefix,
            _ => return Err(wrong("the prefix must be from 8 to 30")),
        };
        let subnet = Subnet { address, prefix };
        if !u32::from(address).is_multiple_of(subnet.size()) {
            return Err(wrong("the address has bits behind the prefix"));
        }
        Ok(subnet)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for SocketMode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let octal =
            !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        match u32::from_str_radix(text, 8) {
            Ok(mode) if octal && mode <= 0o777 => Ok(SocketMode(mode)),
            _ => Err(format!(
                "\"{}\" are no permissions; write them in octal: \"0660\"",
                shorten(text)
            )),
        }
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}
