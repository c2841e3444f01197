//! Parsers for /proc/net/tcp, tcp6 and unix. Lines that do not fit are skipped, never trusted.

use super::inet::{CLOSE, FIN_WAIT2, LISTEN, SYN_SENT, TIME_WAIT};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A line of /proc/net/tcp or tcp6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpSocket {
    /// The local address.
    pub address: IpAddr,
    /// The local port.
    pub port: u16,
    /// The address of the other end; unspecified where there is none.
    pub peer: IpAddr,
    /// The kernel's state number: 1 established, 10 listening.
    pub state: u8,
    /// Bytes that nobody has read yet.
    pub unread: u32,
    /// The socket's inode; 0 when no process holds it.
    pub inode: u64,
}

impl TcpSocket {
    /// Whether this socket would take a connection to `address` and `port`.
    #[must_use]
    pub fn takes(&self, address: IpAddr, port: u16) -> bool {
        self.state == LISTEN
            && self.port == port
            && match self.address {
                IpAddr::V4(own) => address.is_ipv4() && own.is_unspecified() || own == address,
                IpAddr::V6(own) => {
                    own.is_unspecified() || own.to_canonical() == address.to_canonical()
                }
            }
    }

    /// Whether this is an open connection on the local port.
    #[must_use]
    pub fn is_open_on(&self, port: u16) -> bool {
        let at_rest = [LISTEN, TIME_WAIT, CLOSE, SYN_SENT].contains(&self.state);
        self.port == port && !at_rest && (self.state != FIN_WAIT2 || self.inode != 0)
    }
}

/// The sockets in the text of /proc/net/tcp or tcp6.
pub fn tcp_table(text: &[u8]) -> impl Iterator<Item = TcpSocket> + '_ {
    text.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = fields(line);
        let local = fields.nth(1)?;
        let remote = fields.next()?;
        let state = u8::try_from(hex(fields.next()?)?).ok()?;
        let queues = fields.next()?;
        let inode = std::str::from_utf8(fields.nth(4)?).ok()?.parse().ok()?;
        let unread = queues.split(|&byte| byte == b':').nth(1).and_then(hex)?;
        let (address, port) = end(local)?;
        let (peer, _) = end(remote)?;
        Some(TcpSocket {
            address,
            port,
            peer,
            state,
            unread,
            inode,
        })
    })
}

/// A line of /proc/net/unix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixSocket<'a> {
    /// It listens.
    pub listening: bool,
    /// It is connected; this includes connections in a server's accept queue.
    pub open: bool,
    /// Its name as shown: a NUL is shown as `@`. Empty when it has none.
    pub name: &'a [u8],
}

impl UnixSocket<'_> {
    /// Whether the name given to bind(2) was `name`.
    #[must_use]
    pub fn is_named(&self, name: &[u8]) -> bool {
        let shown = |byte: &u8| if *byte == 0 { b'@' } else { *byte };
        !name.is_empty() && self.name.iter().copied().eq(name.iter().map(shown))
    }
}

/// The sockets in the text of /proc/net/unix.
pub fn unix_table(text: &[u8]) -> impl Iterator<Item = UnixSocket<'_>> {
    text.split(|&byte| byte == b'\n').filter_map(|line| {
        // Num: RefCount Protocol Flags Type St Inode Path; the path may hold spaces.
        const ACCEPTS: u32 = 0x10000;
        let mut fields = fields(line);
        let flags = hex(fields.nth(3)?)?;
        let kind = hex(fields.next()?)?;
        let state = hex(fields.next()?)?;
        let inode = fields.next()?;
        std::str::from_utf8(inode).ok()?.parse::<u64>().ok()?;
        let after = inode.as_ptr() as usize - line.as_ptr() as usize + inode.len();
        let name = line.get(after + 1..).unwrap_or_default();
        let stream = kind == 1 || kind == 5;
        let listening = flags & ACCEPTS != 0;
        // Connected (3); waiting in the accept queue, it has no `struct socket` and shows as 2.
        let open = stream && !listening && (state == 2 || state == 3);
        Some(UnixSocket {
            listening,
            open,
            name,
        })
    })
}

fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&byte| byte == b' ')
        .filter(|field| !field.is_empty())
}

fn hex(digits: &[u8]) -> Option<u32> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    u32::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| plain)?, 16).ok()
}

/// `ADDRESS:PORT`.
fn end(text: &[u8]) -> Option<(IpAddr, u16)> {
    let colon = text.iter().position(|&byte| byte == b':')?;
    let port = u16::try_from(hex(text.get(colon + 1..)?)?).ok()?;
    Some((address(text.get(..colon)?)?, port))
}

/// Addresses are shown as 32-bit words in the machine's byte order.
fn address(digits: &[u8]) -> Option<IpAddr> {
    let word = |index: usize| Some(hex(digits.get(index * 8..index * 8 + 8)?)?.to_ne_bytes());
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for index in 0..4 {
                octets[index * 4..index * 4 + 4].copy_from_slice(&word(index)?);
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "procnet_tests.rs"]
mod tests;
