//! How many commands may run over the API at a time, and in whose vhosts: each costs the agent eight descriptors and two
//! tasks, and goes on for as long as somebody wants.

use std::sync::Arc;
use std::time::Duration;

use super::places::{Place, Places, Tallied, Tally};
use super::problem::Problem;
use super::rights::{Peer, Role};

/// Commands on this host. A quarter of it is for owners.
const MOST: u32 = 256;
/// Commands of one owner's uid.
const OF_ONE_UID: usize = 32;
/// Commands of its owner in one vhost. Operators get in beside as many as their own.
const IN_ONE_VHOST: usize = 16;
/// When to try again: a command ends when it likes.
const RETRY: Duration = Duration::from_secs(5);

/// All places for commands.
#[derive(Debug)]
pub(super) struct Sessions {
    places: Places,
    by_vhost: Tally<Arc<str>>,
}

/// The place of one command; given back when dropped.
#[derive(Debug)]
pub(super) struct SessionPlace {
    _place: Place,
    _in_vhost: Tallied<Arc<str>>,
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self {
            places: Places::new(MOST, OF_ONE_UID),
            by_vhost: Tally::default(),
        }
    }

    /// A place for a command of `peer` in `vhost`; 503 if those are taken.
    pub(super) fn take(&self, peer: &Peer, vhost: &Arc<str>) -> Result<SessionPlace, Problem> {
        let refused = |detail: String| {
            Problem::unavailable("too-many-commands", "Too many commands", detail, RETRY)
                .about(vhost)
        };
        let most = match peer.role {
            Role::Operator => 2 * IN_ONE_VHOST,
            _ => IN_ONE_VHOST,
        };
        let in_vhost = self.by_vhost.take(vhost.clone(), most).ok_or_else(|| {
            refused(format!(
                "{most} commands or more run in {vhost} already; end one of them first"
            ))
        })?;
        let place = self.places.take(peer).ok_or_else(|| {
            refused(format!(
                "as many commands run on this host as you may run; end one of them before you run another in {vhost}"
            ))
        })?;
        Ok(SessionPlace {
            _place: place,
            _in_vhost: in_vhost,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn peer(uid: u32) -> Peer {
        let role = match uid {
            0 => Role::Operator,
            _ => Role::Owner(vec!["acme".into()]),
        };
        Peer { uid, role }
    }

    #[test]
    fn an_owner_fills_neither_a_vhost_nor_the_host_for_operators() {
        let sessions = Sessions::new();
        let vhost = |n: usize| -> Arc<str> { format!("{n}.example.com").into() };
        let mut taken: Vec<_> = Vec::new();
        let mut take = |uid, n| {
            let place = sessions.take(&peer(uid), &vhost(n));
            place.map(|place| taken.push(place)).map_err(|p| p.status)
        };
        for _ in 0..IN_ONE_VHOST {
            take(1001, 0).unwrap();
        }
        assert_eq!(take(1001, 0), Err(503), "of one vhost");
        for _ in 0..IN_ONE_VHOST {
            take(0, 0).unwrap();
        }
        assert_eq!(take(0, 0), Err(503), "of one vhost, for operators");
        for n in 0..OF_ONE_UID - IN_ONE_VHOST {
            take(1001, 1 + n).unwrap();
        }
        assert_eq!(take(1001, 100), Err(503), "of one uid");
        for n in 0..OF_ONE_UID {
            take(1002, 200 + n).unwrap();
        }
        assert_eq!(take(1003, 300), Err(503), "of all owners");
        take(0, 300).unwrap();
        taken.clear();
        sessions.take(&peer(1003), &vhost(0)).unwrap();
    }
}
