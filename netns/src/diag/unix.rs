//! unix_diag: Unix sockets by name. Its exact lookup goes by inode only, so this is a dump of the
//! namespace's own table.

use crate::attributes::{Batch, NLM_F_DUMP, NLM_F_REQUEST, attributes};
use crate::netlink::Netlink;
use crate::{Error, Result};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_UNIX: u8 = 1;
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;
const UDIAG_SHOW_NAME: u32 = 1;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_MSG: usize = 16;

pub(super) fn listening(socket: &mut Netlink, name: &[u8]) -> Result<bool> {
    count(socket, LISTEN, name).map(|count| count > 0)
}

/// The server's ends carry the name, the clients' do not.
pub(super) fn open(socket: &mut Netlink, name: &[u8]) -> Result<usize> {
    count(socket, ESTABLISHED, name)
}

fn count(socket: &mut Netlink, state: u8, name: &[u8]) -> Result<usize> {
    // struct unix_diag_req: family, protocol, padding, states, inode, what to show, cookie.
    let mut body = [0; 24];
    body[0] = AF_UNIX;
    body[4..8].copy_from_slice(&(1u32 << state).to_ne_bytes());
    body[12..16].copy_from_slice(&UDIAG_SHOW_NAME.to_ne_bytes());
    let mut batch = Batch::default();
    batch.message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, &body);
    let mut count = 0;
    let done = socket.exchange(&mut batch, false, |message| {
        count +=
            usize::from(message.payload.get(2) == Some(&state) && named(message.payload, name));
    })?;
    match done {
        Ok(()) => Ok(count),
        Err(refused) => {
            let object = String::from_utf8_lossy(name).into_owned();
            Err(Error::os("look up Unix socket", object, refused.errno))
        }
    }
}

fn named(payload: &[u8], name: &[u8]) -> bool {
    let rest = payload.get(UNIX_DIAG_MSG..).unwrap_or_default();
    attributes(rest).any(|(kind, value)| {
        // The kernel keeps a path with its terminating NUL; an abstract name begins with one.
        kind == UNIX_DIAG_NAME
            && (value == name || name.first() != Some(&0) && value.strip_suffix(&[0]) == Some(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_payload_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!named(&bytes, b"/a name that random bytes do not contain"));
        }
    }
}
