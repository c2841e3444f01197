//! inet_diag: exact lookup of a listener, count of connections on a port.

use crate::attributes::{Batch, NLM_F_DUMP, NLM_F_REQUEST, u32_at};
use crate::netlink::Netlink;
use crate::{Error, Result};
use rustix::io::Errno;
use std::net::IpAddr;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

pub(super) const SYN_SENT: u8 = 2;
pub(super) const FIN_WAIT2: u8 = 5;
pub(super) const TIME_WAIT: u8 = 6;
pub(super) const CLOSE: u8 = 7;
pub(super) const CLOSE_WAIT: u8 = 8;
pub(super) const LISTEN: u8 = 10;

/// All states from ESTABLISHED (1) to NEW_SYN_RECV (12) but these.
const OPEN: u32 = 0x1ffe & !(1 << TIME_WAIT | 1 << CLOSE | 1 << LISTEN | 1 << SYN_SENT);

/// struct inet_diag_req_v2, 56 bytes; `address` and `port` are the local end.
fn request(family: u8, states: u32, address: Option<IpAddr>, port: u16) -> [u8; 56] {
    let mut bytes = [0; 56];
    bytes[0] = family;
    bytes[1] = IPPROTO_TCP;
    bytes[4..8].copy_from_slice(&states.to_ne_bytes());
    bytes[8..10].copy_from_slice(&port.to_be_bytes());
    match address {
        Some(IpAddr::V4(address)) => bytes[12..16].copy_from_slice(&address.octets()),
        Some(IpAddr::V6(address)) => bytes[12..28].copy_from_slice(&address.octets()),
        None => {}
    }
    // INET_DIAG_NOCOOKIE: whichever socket it is.
    bytes[48..56].fill(0xff);
    bytes
}

/// Looks the listener up as an arriving SYN would.
pub(super) fn listening(socket: &mut Netlink, address: IpAddr, port: u16) -> Result<bool> {
    let family = if address.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut batch = Batch::default();
    let body = request(family, 1 << LISTEN, Some(address), port);
    batch.message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, &body);
    match socket.ask(&mut batch, |message| message.payload.get(1).copied())? {
        Ok(state) => Ok(state == Some(LISTEN)),
        Err(Errno::NOENT) => Ok(false),
        Err(source) => Err(Error::os(
            "look up listener",
            format!("{address} port {port}"),
            source,
        )),
    }
}

/// Counts the open connections whose local port is `port`.
pub(super) fn open(socket: &mut Netlink, port: u16) -> Result<usize> {
    count_open(socket, port, |_| true)
}

/// Counts those of them that are [local](is_local).
pub(super) fn open_local(socket: &mut Netlink, port: u16) -> Result<usize> {
    count_open(socket, port, |message| {
        ends(message).is_some_and(|(own, peer)| is_local(own, peer))
    })
}

fn count_open(socket: &mut Netlink, port: u16, wanted: impl Fn(&[u8]) -> bool) -> Result<usize> {
    let mut open = 0;
    each_open(socket, port, |state, message| {
        let inode = u32_at(message, 68).unwrap_or(0);
        open += usize::from((state != FIN_WAIT2 || inode != 0) && wanted(message));
    })?;
    Ok(open)
}

/// Own and peer's address in a struct inet_diag_msg.
fn ends(message: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let address = |at: usize| -> Option<IpAddr> {
        match *message.first()? {
            AF_INET => Some(<[u8; 4]>::try_from(message.get(at..at + 4)?).ok()?.into()),
            _ => Some(<[u8; 16]>::try_from(message.get(at..at + 16)?).ok()?.into()),
        }
    };
    Some((address(8)?, address(24)?))
}

/// Whether both ends of a connection are in the same namespace, as far as their addresses say so.
pub(super) fn is_local(own: IpAddr, peer: IpAddr) -> bool {
    let (own, peer) = (own.to_canonical(), peer.to_canonical());
    own == peer || own.is_loopback() || peer.is_loopback()
}

/// Counts those of them with data that has not been read.
pub(super) fn unread(socket: &mut Netlink, port: u16) -> Result<usize> {
    let mut unread = 0;
    each_open(socket, port, |state, message| {
        unread += usize::from(has_data(state, u32_at(message, 56).unwrap_or(0)));
    })?;
    Ok(unread)
}

/// The kernel counts the end of a connection as a byte.
pub(super) fn has_data(state: u8, queued: u32) -> bool {
    queued > u32::from(state == CLOSE_WAIT)
}

/// Each open connection on the port: its state and its struct inet_diag_msg.
fn each_open(socket: &mut Netlink, port: u16, mut on: impl FnMut(u8, &[u8])) -> Result<()> {
    for family in [AF_INET, AF_INET6] {
        let mut batch = Batch::default();
        let body = request(family, OPEN, None, port);
        batch.message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, &body);
        let done = socket.exchange(&mut batch, false, |message| {
            let state = message.payload.get(1).copied().unwrap_or(CLOSE);
            on(state, message.payload);
        })?;
        match done {
            Ok(()) => {}
            Err(refused) if family == AF_INET6 && refused.errno == Errno::NOENT => {}
            Err(refused) => {
                return Err(Error::os(
                    "count connections on",
                    format!("port {port}"),
                    refused.errno,
                ));
            }
        }
    }
    Ok(())
}
