//! Who is at the other end of a connection, and what they may do.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

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
    /// A user of this name, who is the owner of that name as long as a vhost is theirs and nobody otherwise:
    /// [`Peer::now`] tells which, with each request.
    User(String),
    /// A proxy's user: dispatch and health only.
    Dispatcher,
    /// Nothing.
    Nobody,
}

/// How long the user database may take to name a peer.
const NAME_LIMIT: Duration = Duration::from_secs(1);

/// The process at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its uid when it connected.
    pub uid: u32,
    /// What it may do.
    pub role: Role,
}

impl Peer {
    /// The peer with what it may do now; `has_vhosts` says whether an owner has any.
    pub fn now(&self, has_vhosts: impl FnOnce(&str) -> bool) -> Self {
        let role = match &self.role {
            Role::User(name) if has_vhosts(name) => Role::Owner(vec![name.clone()]),
            Role::User(_) => Role::Nobody,
            other => other.clone(),
        };
        Self { role, ..*self }
    }
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
                .filter_map(|(name, owner)| Some((owner.uid?, name.clone())))
                .collect(),
        })
    }

    /// The peer of a connected Unix socket, from SO_PEERCRED and SO_PEERGROUPS: taken by the kernel at connect.
    ///
    /// Never blocks for those on whom the service depends; others' names have to be looked up, which may.
    pub async fn peer(self: &Arc<Self>, socket: impl AsFd) -> Result<Peer> {
        let credentials = rustix::net::sockopt::socket_peercred(socket.as_fd())
            .context("cannot read SO_PEERCRED")?;
        let uid = credentials.uid.as_raw();
        let mut groups = crate::sys::peer_groups(socket.as_fd()).unwrap_or_default();
        groups.push(credentials.gid.as_raw());
        if let Some(role) = self.known_role(uid, &groups) {
            return Ok(Peer { uid, role });
        }
        let rights = self.clone();
        let named = tokio::task::spawn_blocking(move || rights.named_role(uid));
        // A user database that does not answer makes nobody anything.
        let role = match tokio::time::timeout(NAME_LIMIT, named).await {
            Ok(Ok(role)) => role,
            Ok(Err(_)) | Err(_) => Role::Nobody,
        };
        Ok(Peer { uid, role })
    }

    /// The role of those whom the configuration names.
    fn known_role(&self, uid: u32, groups: &[u32]) -> Option<Role> {
        if uid == 0 || self.operator_gid.is_some_and(|gid| groups.contains(&gid)) {
            return Some(Role::Operator);
        }
        if self.dispatch_uids.contains(&uid) {
            return Some(Role::Dispatcher);
        }
        // Ids below 1000 are the system's own users, who own no sites, and `nobody` is whoever has no id here.
        let owners = self.configured_owners(uid);
        if !owners.is_empty() {
            return Some(Role::Owner(owners));
        }
        (uid < 1000 || uid == NOBODY).then_some(Role::Nobody)
    }

    fn configured_owners(&self, uid: u32) -> Vec<String> {
        let theirs = self.owners.iter().filter(|(owner, _)| *owner == uid);
        theirs.map(|(_, name)| name.clone()).collect()
    }

    /// A user of the same name as an owner is that owner, where nothing else is configured for the owner. Blocks.
    fn named_role(&self, uid: u32) -> Role {
        match nix::unistd::User::from_uid(uid.into()) {
            Ok(Some(user)) if !self.owners.iter().any(|(_, name)| *name == user.name) => {
                Role::User(user.name)
            }
            _ => Role::Nobody,
        }
    }
}

impl Role {
    /// May see and change vhosts of this owner.
    pub fn owns(&self, owner: &str) -> bool {
        match self {
            Self::Operator => true,
            Self::Owner(owners) => owners.iter().any(|name| name == owner),
            Self::User(_) | Self::Dispatcher | Self::Nobody => false,
        }
    }

    /// May ask for a vhost of this owner to be made ready.
    pub fn dispatches(&self, owner: &str) -> bool {
        *self == Self::Dispatcher || self.owns(owner)
    }

    /// May be handed connections. Each keeps its container's network namespace for as long as somebody holds it, whatever
    /// has become of the container: an owner could keep any number of namespaces so.
    pub fn holds_connections(&self) -> bool {
        matches!(self, Self::Operator | Self::Dispatcher)
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
        assert_eq!(rights.known_role(0, &[]), Some(Role::Operator));
        assert_eq!(rights.known_role(70_001, &[5, 990]), Some(Role::Operator));
        assert_eq!(rights.known_role(33, &[33]), Some(Role::Dispatcher));
        assert_eq!(
            rights.known_role(70_001, &[70_001]),
            Some(Role::Owner(vec!["acme".into()]))
        );
        assert_eq!(rights.known_role(7, &[7]), Some(Role::Nobody));
        assert_eq!(
            rights.known_role(70_002, &[70_002]),
            None,
            "its name decides"
        );
        let peer = Peer {
            uid: 70_002,
            role: Role::User("bolt".into()),
        };
        let role = |has: bool| peer.now(|name| has && name == "bolt").role;
        assert_eq!(role(true), Role::Owner(vec!["bolt".into()]));
        assert_eq!(role(false), Role::Nobody, "without a vhost it is nobody");
        assert!(!peer.role.owns("bolt"), "its name alone is worth nothing");
        assert!(!Role::Dispatcher.owns("acme") && Role::Dispatcher.dispatches("acme"));
        let acme = Role::Owner(vec!["acme".into()]);
        assert!(acme.dispatches("acme") && !acme.dispatches("bolt"));
        assert!(Role::Operator.holds_connections() && Role::Dispatcher.holds_connections());
        assert!(!acme.holds_connections() && !peer.role.holds_connections());
    }
}
