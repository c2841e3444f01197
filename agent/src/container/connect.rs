//! Connections to a container's server, made inside its network namespace, for whoever is to have them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tokio::io::Interest;
use tokio::sync::oneshot;

use super::Container;

/// Between two attempts at a server that does not accept: there is nothing to wait for.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

impl Container {
    /// A new connection to its server (non-blocking, close-on-exec), None where nobody listens. Waits for as long as the
    /// server's queue is full: how long is up to the caller.
    pub(crate) async fn connect(&self) -> io::Result<Option<OwnedFd>> {
        self.handed.store(true, Ordering::Relaxed);
        loop {
            let connection = match self.upstream.strip_prefix("unix:") {
                Some(path) => connect_unix(path),
                None => self.connect_tcp().await,
            };
            match connection.as_ref().map_err(Errno::from_io_error) {
                Err(Some(Errno::AGAIN)) => tokio::time::sleep(PAUSE).await,
                Err(Some(Errno::CONNREFUSED | Errno::CONNRESET)) => return Ok(None),
                _ => return connection.map(Some),
            }
        }
    }

    /// Whether a connection was ever handed over, or may have been by an earlier agent.
    pub(crate) fn was_handed_over(&self) -> bool {
        self.handed.load(Ordering::Relaxed)
    }

    /// Has what the next [`Self::connect`] would wait for made ahead.
    pub(crate) fn prepare_connection(&self) {
        if !self.upstream.starts_with("unix:") {
            // Err: the next one tells it.
            let _ = self.namespace.prepare_tcp_socket();
        }
    }

    /// The address is one of the namespace's own, so all of the connection stays on its loopback device.
    async fn connect_tcp(&self) -> io::Result<OwnedFd> {
        let address: SocketAddr = self.upstream.parse().map_err(io::Error::other)?;
        let (tell, told) = oneshot::channel();
        let made = self.namespace.tcp_socket(move |socket| {
            // Err: the asker has gone.
            let _ = tell.send(socket);
        });
        made.map_err(io::Error::other)?;
        let socket = told.await.map_err(io::Error::other)?;
        let socket = socket.map_err(io::Error::other)?;
        match connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        // Over loopback it has been made by now, unless the queue is full.
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::ISCONN) => return Ok(socket),
            Err(Errno::ALREADY) => {}
            Err(error) => return Err(error.into()),
        }
        let socket = crate::sys::watch_for(socket, Interest::WRITABLE)?;
        socket.writable().await?.retain_ready();
        rustix::net::sockopt::socket_error(socket.get_ref())??;
        Ok(socket.into_inner())
    }
}

/// To a socket in a directory where only root can write; see [`super::upstream`] and [`super::activated`].
fn connect_unix(path: &str) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}
