//! unix_diag: Unix sockets by name. Its exact lookup goes by inode only, so this is a dump of the
//! namespace's own table.

use crate::attributes::{Batch, NLM_F_DUMP, NLM_F_REQUEST, attributes, u32_at};
use crate::netlink::Netlink;
use crate::{Error, Result};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_UNIX: u8 = 1;
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;
const UDIAG_SHOW_NAME: u32 = 1;
const UDIAG_SHOW_VFS: u32 = 2;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_RQLEN: u16 = 4;
const UNIX_DIAG_MSG: usize = 16;

pub(super) fn listening(socket: &mut Netlink, name: &[u8]) -> Result<bool> {
    let mut listening = false;
    dump(socket, 1 << LISTEN, UDIAG_SHOW_NAME, name, |payload| {
        listening |= named(payload, name);
    })?;
    Ok(listening)
}

/// The server's ends carry the name, the clients' do not. A connection that has not been accepted is
/// not in the dump, but its listener says how many wait.
pub(super) fn open(socket: &mut Netlink, name: &[u8]) -> Result<usize> {
    let mut open = 0;
    let states = 1 << ESTABLISHED | 1 << LISTEN;
    dump(
        socket,
        states,
        UDIAG_SHOW_NAME | UDIAG_SHOW_RQLEN,
        name,
        |payload| {
            if named(payload, name) {
                let listens = payload.get(2) == Some(&LISTEN);
                open += if listens {
                    queue_length(payload) as usize
                } else {
                    1
                };
            }
        },
    )?;
    Ok(open)
}

/// Accepted connections to the socket with this device and inode, which its name may not tell from others.
pub(super) fn accepted(socket: &mut Netlink, device: u64, inode: u64) -> Result<usize> {
    // The kernel shows the low half of the inode, and the device as it keeps it itself.
    let device = rustix::fs::major(device) << 20 | rustix::fs::minor(device);
    let inode = inode as u32;
    let mut accepted = 0;
    dump(
        socket,
        1 << ESTABLISHED,
        UDIAG_SHOW_VFS,
        b"by inode",
        |payload| {
            let file =
                attribute(payload, UNIX_DIAG_VFS).map(|value| (u32_at(value, 0), u32_at(value, 4)));
            accepted += usize::from(file == Some((Some(inode), Some(device))));
        },
    )?;
    Ok(accepted)
}

/// Hands each socket in one of these states to `found`; `name` is for errors.
fn dump(
    socket: &mut Netlink,
    states: u32,
    show: u32,
    name: &[u8],
    mut found: impl FnMut(&[u8]),
) -> Result<()> {
    // struct unix_diag_req: family, protocol, padding, states, inode, what to show, cookie.
    let mut body = [0; 24];
    body[0] = AF_UNIX;
    body[4..8].copy_from_slice(&states.to_ne_bytes());
    body[12..16].copy_from_slice(&show.to_ne_bytes());
    let mut batch = Batch::default();
    batch.message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, &body);
    let done = socket.exchange(&mut batch, false, |message| {
        found(message.payload);
    })?;
    done.map_err(|refused| {
        let object = String::from_utf8_lossy(name).into_owned();
        Error::os("look up Unix socket", object, refused.errno)
    })
}

/// The value of an attribute in a unix_diag message.
fn attribute(payload: &[u8], wanted: u16) -> Option<&[u8]> {
    let rest = payload.get(UNIX_DIAG_MSG..)?;
    attributes(rest)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

fn queue_length(payload: &[u8]) -> u32 {
    attribute(payload, UNIX_DIAG_RQLEN)
        .and_then(|value| u32_at(value, 0))
        .unwrap_or(0)
}

fn named(payload: &[u8], name: &[u8]) -> bool {
    attribute(payload, UNIX_DIAG_NAME).is_some_and(|value| {
        // The kernel keeps a path with its terminating NUL; an abstract name begins with one.
        value == name || name.first() != Some(&0) && value.strip_suffix(&[0]) == Some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_payload_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = queue_length(&bytes);
            prop_assert!(!named(&bytes, b"/a name that random bytes do not contain"));
        }
    }
}
