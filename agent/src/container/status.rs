//! The socket on which a container's first processes tell how their set-up goes.

use std::io;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use shim::protocol::Report;
use tokio::io::unix::AsyncFd;

use crate::packet;
use crate::spawner::SpawnError;

/// Our end of a status socket, which translates the sender's pid, and the container's.
pub fn status_socket() -> Result<(AsyncFd<OwnedFd>, OwnedFd)> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .context("cannot make a status socket")?;
    rustix::net::sockopt::set_socket_passcred(&ours, true).context("cannot ask for credentials")?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((crate::sys::watch(ours)?, theirs))
}

/// Waits until the command has been executed; returns its pid.
pub async fn wait_for_exec(status: &AsyncFd<OwnedFd>) -> Result<i32> {
    let mut main_pid = None;
    let mut buffer = vec![0; 4096];
    loop {
        let received = match packet::receive(status, &mut buffer).await {
            // It ended with what followed its request unread. This is told once, before what it has said.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => continue,
            received => received.context("cannot read its status")?,
        };
        if received.length == 0 {
            return main_pid.context(
                "its init ended before it could say why; it may have run out of its memory limit",
            );
        }
        match postcard::from_bytes(&buffer[..received.length])
            .context("cannot decode its status")?
        {
            Report::Command => {
                main_pid = Some(received.sender.context("its status came without a pid")?)
            }
            Report::Failed(failure) => {
                return Err(SpawnError::Refused(failure).into());
            }
        }
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
