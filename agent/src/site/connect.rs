//! A dispatch that ends with a connection to the vhost's server.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::{Ready, Refused, Site};
use crate::machine::Event;

/// Why there is no connection.
#[derive(Debug)]
pub enum NoConnection {
    /// The dispatch was refused.
    Refused(Refused),
    /// The server listens, but did not accept within this time.
    TimedOut(Duration),
    /// The kernel has refused it.
    Failed(io::Error),
}

impl Site {
    /// Makes the vhost ready, as [`Self::dispatch`] does, and connects to it.
    pub async fn connect(self: &Arc<Self>) -> Result<(Ready, OwnedFd), NoConnection> {
        loop {
            let ready = self.dispatch().await.map_err(NoConnection::Refused)?;
            let container = &ready.container;
            // In use from here on: a connection that is still being made is not seen by whoever counts them.
            let _session = container.session();
            let limit = self.platform.start_limit(&self.definition());
            tokio::select! {
                biased;
                made = tokio::time::timeout(limit, container.connect()) => return match made {
                    Ok(Ok(connection)) => Ok((ready, connection)),
                    Ok(Err(error)) => Err(NoConnection::Failed(error)),
                    Err(_) => Err(NoConnection::TimedOut(limit)),
                },
                // The request is held for the next one, or told why there is none.
                () = container.ended() => {
                    self.feed_about(container, Event::Exited);
                }
            }
        }
    }
}
