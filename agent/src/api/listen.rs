//! The agent's sockets in the file system.

use std::fs::Permissions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;

/// Connections that may wait to be accepted; the kernel's own bound (somaxconn) is lower.
const BACKLOG: i32 = 4096;

/// Listens on the socket of the API.
pub fn listen(path: &Path, mode: u32) -> Result<UnixListener> {
    let listener: std::os::unix::net::UnixListener = bound(path, mode, SocketType::STREAM)?.into();
    UnixListener::from_std(listener).context("cannot watch the agent's socket")
}

/// Listens on the socket of packets that hands over connections.
pub fn listen_for_packets(path: &Path, mode: u32) -> Result<AsyncFd<OwnedFd>> {
    let listener = bound(path, mode, SocketType::SEQPACKET)?;
    crate::sys::watch(listener).context("cannot watch the agent's socket")
}

/// A socket that a dead agent left behind is replaced; a living agent is an error.
fn bound(path: &Path, mode: u32, kind: SocketType) -> Result<OwnedFd> {
    let socket = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)
    };
    let address = SocketAddrUnix::new(path)
        .with_context(|| format!("cannot listen on {}", path.display()))?;
    if let Ok(there) = path.symlink_metadata() {
        match rustix::net::connect(socket()?, &address) {
            // What is no socket refuses, too.
            Err(Errno::CONNREFUSED) if there.file_type().is_socket() => {}
            // AGAIN: so many want to connect that its queue is full.
            Ok(()) | Err(Errno::AGAIN) => bail!(
                "another agent listens on {} already; stop it or choose another place with --socket and --connect-socket",
                path.display()
            ),
            Err(error) => bail!(
                "{} is there and not a socket that a dead agent has left ({error}); remove it or choose another place \
                 with --socket and --connect-socket",
                path.display()
            ),
        }
        std::fs::remove_file(path)
            .with_context(|| format!("cannot remove the old socket {}", path.display()))?;
    }
    let listener = socket()?;
    rustix::net::bind(&listener, &address)
        .with_context(|| format!("cannot listen on {}", path.display()))?;
    std::fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    rustix::net::listen(&listener, BACKLOG)
        .with_context(|| format!("cannot listen on {}", path.display()))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_dead_agents_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let bind = |kind| bound(&path, 0o600, kind);
        let alive = bind(SocketType::SEQPACKET).unwrap();
        let told = |kind| bind(kind).unwrap_err().to_string();
        assert!(told(SocketType::SEQPACKET).contains("another agent"));
        // A socket of another kind, with somebody behind it.
        assert!(told(SocketType::STREAM).contains("not a socket that a dead agent"));
        drop(alive);
        drop(bind(SocketType::SEQPACKET).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert!(told(SocketType::STREAM).contains("not a socket that a dead agent"));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }
}
