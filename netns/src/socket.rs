//! TCP sockets whose namespace was settled when they were made, finished on the caller's thread.

use crate::{Error, Result};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::net::SocketAddr;
use std::time::Duration;

const BACKLOG: i32 = 4096;

/// A TCP socket in the calling thread's network namespace.
pub(crate) fn tcp(address: &SocketAddr) -> Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|source| Error::os("make socket for", address.to_string(), source))
}

/// A non-blocking one, for IPv4.
pub(crate) fn nonblocking() -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
        .map_err(|source| Error::os("make", "TCP socket", source))
}

pub(crate) fn listen(socket: OwnedFd, address: &SocketAddr) -> Result<OwnedFd> {
    let failed = |source: Errno| Error::os("listen on", address.to_string(), source);
    sockopt::set_socket_reuseaddr(&socket, true).map_err(failed)?;
    rustix::net::bind(&socket, address).map_err(failed)?;
    rustix::net::listen(&socket, BACKLOG).map_err(failed)?;
    Ok(socket)
}

pub(crate) fn connect(socket: OwnedFd, address: &SocketAddr, within: Duration) -> Result<OwnedFd> {
    let failed = |source: Errno| {
        // What connect(2) says when SO_SNDTIMEO has passed.
        let source = if source == Errno::INPROGRESS {
            Errno::TIMEDOUT
        } else {
            source
        };
        Error::os("connect to", address.to_string(), source)
    };
    sockopt::set_socket_timeout(&socket, Timeout::Send, Some(within)).map_err(failed)?;
    match rustix::net::connect(&socket, address) {
        // The connection goes on being made after a signal; a second call waits for its end.
        Err(Errno::INTR) => match rustix::net::connect(&socket, address) {
            Ok(()) | Err(Errno::ISCONN) => {}
            Err(source) => return Err(failed(source)),
        },
        other => other.map_err(failed)?,
    }
    sockopt::set_socket_timeout(&socket, Timeout::Send, None).map_err(failed)?;
    Ok(socket)
}
