//! Who is at the other end of a connection, and what they may do.

use std::os::fd::AsFd;

use anyhow::{Context, Result};

use crate::config::AgentConfig;

/// The uid that the kernel shows for ids that are not mapped.
const NOBODY: u32 = 65_534;

/// What a peer may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// root and the operators' group: everything.
    Operator,
    /// Owners by uid: only what belongs to these owners.
    Owner(Vec<String>),
    /// A proxy's user: dispatch and health only.
    Dispatcher,
    /// Nothing.
    Nobody,
}

/// The process at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its uid when it connected.
    pub uid: u32,
    /// What it may do.
    pub role: Role,
}

/// The rules by which roles are given, resolved to numbers once at start.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    operator_gid: Option<u32>,
    dispatch_uids: Vec<u32>,
    owners: Vec<(u32, String)>,
}

impl Rights {
    /// Resolves the names of the configuration; names that this host does not know are left out.
    pub fn new(config: &AgentConfig) -> Result<Self> {
        Ok(Self {
            operator_gid: config
                .operator_group
                .gid()
                .context("cannot look up the operators' group")?,
            dispatch_uids: config.dispatch_uids().into_iter().collect(),
            owners: config
                .owner
                .iter()
                .map(|(name, owner)| (owner.uid, name.clone()))
                .collect(),
        })
    }

    /// The peer of a connected Unix socket, from SO_PEERCRED and SO_PEERGROUPS: taken by the kernel at connect.
    pub fn peer(&self, socket: impl AsFd) -> Result<Peer> {
        let credentials = rustix::net::sockopt::socket_peercred(socket.as_fd())
            .context("cannot read SO_PEERCRED")?;
        let uid = credentials.uid.as_raw();
        let mut groups = crate::sys::peer_groups(socket.as_fd()).unwrap_or_default();
        groups.push(credentials.gid.as_raw());
        Ok(Peer {
            uid,
            role: self.role(uid, &groups),
        })
    }

    fn role(&self, uid: u32, groups: &[u32]) -> Role {
        if uid == 0 || self.operator_gid.is_some_and(|gid| groups.contains(&gid)) {
            return Role::Operator;
        }
        if self.dispatch_uids.contains(&uid) {
            return Role::Dispatcher;
        }
        let mut owners: Vec<String> = self
            .owners
            .iter()
            .filter(|(owner_uid, _)| *owner_uid == uid)
            .map(|(_, name)| name.clone())
            .collect();
        // A user of the same name as an owner is that owner, where nothing else is configured for the owner. Ids
        // below 1000 are the system's own users, who own no sites, and `nobody` is whoever has no id here.
        if uid >= 1000
            && uid != NOBODY
            && let Ok(Some(user)) = nix::unistd::User::from_uid(uid.into())
            && !self.owners.iter().any(|(_, name)| *name == user.name)
        {
            owners.push(user.name);
        }
        if owners.is_empty() {
            Role::Nobody
        } else {
            Role::Owner(owners)
        }
    }
}

impl Role {
    /// May see and change vhosts of this owner.
    pub fn owns(&self, owner: &str) -> bool {
        match self {
            Self::Operator => true,
            Self::Owner(owners) => owners.iter().any(|name| name == owner),
            Self::Dispatcher | Self::Nobody => false,
        }
    }

    /// May ask for a vhost of this owner to be made ready.
    pub fn dispatches(&self, owner: &str) -> bool {
        *self == Self::Dispatcher || self.owns(owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_come_from_ids_only() {
        let rights = Rights {
            operator_gid: Some(990),
            dispatch_uids: vec![33],
            owners: vec![(70_001, "acme".into())],
        };
        assert_eq!(rights.role(0, &[]), Role::Operator);
        assert_eq!(rights.role(70_001, &[5, 990]), Role::Operator);
        assert_eq!(rights.role(33, &[33]), Role::Dispatcher);
        assert_eq!(
            rights.role(70_001, &[70_001]),
            Role::Owner(vec!["acme".into()])
        );
        assert_eq!(rights.role(70_002, &[70_002]), Role::Nobody);
        assert!(!Role::Dispatcher.owns("acme") && Role::Dispatcher.dispatches("acme"));
        assert!(!Role::Owner(vec!["acme".into()]).dispatches("bolt"));
    }
}
