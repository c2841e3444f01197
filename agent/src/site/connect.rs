//! A dispatch that ends with a connection to the vhost's server.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Ready, Refused, Site};
use crate::container::{CONNECT_PAUSE, Container};
use crate::machine::{Event, State};

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
        let mut new = true;
        // Each container has the time of a start to accept.
        let mut patience: Option<(Arc<Container>, Instant)> = None;
        loop {
            let ready = self.dispatch_anew(std::mem::take(&mut new)).await;
            let ready = ready.map_err(NoConnection::Refused)?;
            let container = &ready.container;
            // In use from here on: a connection that is still being made is not seen by whoever counts them.
            let _session = container.session();
            let limit = self.platform.start_limit(&self.definition());
            let until = match &patience {
                Some((before, until)) if Arc::ptr_eq(before, container) => *until,
                _ => {
                    patience
                        .insert((container.clone(), Instant::now() + limit))
                        .1
                }
            };
            tokio::select! {
                biased;
                made = tokio::time::timeout_at(until, self.connect_to(container)) => match made {
                    Ok(Ok(Some(connection))) if self.runs(container) => return Ok((ready, connection)),
                    // Nobody listens: the dispatch waits for that. Or it does not run any more.
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return Err(NoConnection::Failed(error)),
                    Err(_) => return Err(NoConnection::TimedOut(limit)),
                },
                // The request is held for the next one, or told why there is none.
                () = container.ended() => {
                    self.feed_about(container, Event::Exited);
                }
                // Somebody has frozen or ended it: the machine knows what that means for a request.
                _ = self.until(|state| state != State::Running) => {}
            }
        }
    }

    /// A connection, or none after a moment.
    async fn connect_to(&self, container: &Container) -> io::Result<Option<OwnedFd>> {
        let connection = container.connect().await?;
        if connection.is_none() {
            tokio::time::sleep(CONNECT_PAUSE).await;
            // Err: its server has not made its socket yet.
            if let Err(error) = container.publish(&self.platform) {
                tracing::debug!("{}: {error:#}", self.name);
            }
        }
        Ok(connection)
    }

    fn runs(&self, container: &Arc<Container>) -> bool {
        let inner = self.lock();
        let same = inner.container.as_ref();
        inner.machine.state() == State::Running
            && same.is_some_and(|current| Arc::ptr_eq(current, container))
    }
}
