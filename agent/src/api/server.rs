//! Accepting connections: who is there decides before a byte is parsed, and their number is bounded.

use std::convert::Infallible;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::places::{Place, Places};
use super::rights::{Peer, Rights};
use super::route;
use super::sessions::Sessions;
use super::wire::Wire;
use crate::registry::Registry;

/// Connections of one uid that is neither an operator nor a proxy.
const OF_ONE_UID: usize = 256;

/// What every connection needs.
pub struct Server {
    /// The vhosts.
    pub registry: Arc<Registry>,
    /// Who may do what.
    pub rights: Arc<Rights>,
    places: Places,
    pub(super) sessions: Sessions,
    max_head: usize,
    pub(super) max_body: usize,
    pub(super) head_timeout: Duration,
    pub(super) body_timeout: Duration,
}

impl Server {
    /// A server over these vhosts.
    pub fn new(registry: Arc<Registry>, rights: Rights) -> Arc<Self> {
        let api = registry.platform().config.api.clone();
        Arc::new(Self {
            registry,
            rights: Arc::new(rights),
            places: Places::new(api.max_connections, OF_ONE_UID),
            sessions: Sessions::new(),
            max_head: usize::try_from(api.max_head.0).unwrap_or(usize::MAX),
            max_body: usize::try_from(api.max_body.0).unwrap_or(usize::MAX),
            head_timeout: api.head_timeout.finite().unwrap_or(Duration::MAX),
            body_timeout: api.body_timeout.finite().unwrap_or(Duration::MAX),
        })
    }

    /// Serves until `stop` turns true.
    pub async fn serve(self: Arc<Self>, listener: UnixListener, mut stop: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, _)) => self.admit(stream, stop.clone()),
                Err(error) => {
                    // Out of descriptors: those in use have to end first.
                    tracing::error!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Waits until every connection has ended.
    pub async fn answered(&self) {
        self.places.all_free().await;
    }

    /// Finds out who is there, then serves them if there is a place for their like.
    fn admit(self: &Arc<Self>, stream: UnixStream, stop: watch::Receiver<bool>) {
        let server = self.clone();
        tokio::spawn(async move {
            if let Some((peer, place)) = server.peer(&stream).await {
                server.connection(stream, peer, stop).await;
                drop(place);
            }
        });
    }

    /// Who is there, and a place for them. Without one the connection is dropped: its peer sees the end of it, and those
    /// who are served already go on undisturbed.
    pub(super) async fn peer(&self, socket: impl AsFd) -> Option<(Peer, Place)> {
        let peer = match self.rights.peer(socket).await {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!("refused a connection: {error:#}");
                return None;
            }
        };
        let place = self.places.take(&peer);
        if place.is_none() {
            tracing::warn!(
                "refused a connection of uid {}: too many are open",
                peer.uid
            );
        }
        Some((peer, place?))
    }

    async fn connection(
        self: Arc<Self>,
        stream: UnixStream,
        peer: Peer,
        mut stop: watch::Receiver<bool>,
    ) {
        let peer = Arc::new(peer);
        let wire = Wire::new(stream);
        let io = TokioIo::new(wire.clone());
        // The last that has the connection must be whoever serves it: this goes into it.
        let server = self.clone();
        let service = service_fn(move |request| {
            let (server, peer, wire) = (server.clone(), peer.clone(), wire.clone());
            async move { Ok::<_, Infallible>(route::handle(&server, &peer, &wire, request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_timeout)
            .max_buf_size(self.max_head)
            .max_headers(64)
            .half_close(true)
            .serve_connection(io, service)
            .with_upgrades();
        tokio::pin!(connection);
        let stopping = stop.wait_for(|stop| *stop);
        tokio::select! {
            // Errors are the peer's: bad syntax has been answered with 400, the rest is a connection that ended.
            _ = connection.as_mut() => return,
            _ = stopping => {}
        }
        // What has been accepted is answered, then the connection ends.
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}
