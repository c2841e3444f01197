//! What comes for a container on TCP connections to its server. None of it is for the hot path.

use anyhow::{Context, Result};
use netns::LocalArrivals;

use super::{Container, Listener};

impl Container {
    /// The port that its server listens on, if that is one of TCP.
    fn port(&self) -> Option<u16> {
        match &self.listener {
            Listener::Tcp(port) => Some(*port),
            Listener::Activated => self.record.activated_port,
            Listener::Unix(_) => None,
        }
    }

    /// Whether something has come that nobody has read.
    pub fn has_unread(&self) -> Result<bool> {
        let Some(port) = self.port() else {
            return Ok(false);
        };
        let unread = self.namespace.diag().tcp_unread(self.method, port);
        let unread =
            unread.with_context(|| format!("cannot see what has come for {}", self.vhost))?;
        Ok(unread > 0)
    }

    /// Connections over its own loopback, as those are that are handed over.
    pub(crate) fn local_connections(&self) -> Result<usize> {
        let Some(port) = self.port() else {
            return Ok(0);
        };
        let open = self.namespace.diag().tcp_open_local(self.method, port);
        open.with_context(|| format!("cannot count the connections of {}", self.vhost))
    }

    /// What tells of data on these from now on. It holds the network namespace.
    pub(crate) fn local_arrivals(&self) -> Result<Option<LocalArrivals>> {
        let arrivals = self.port().map(|port| self.namespace.local_arrivals(port));
        Ok(arrivals.transpose()?)
    }
}
