//! The socket on which a container's first processes tell how their set-up goes.

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

/// A container whose command is about to be executed.
pub struct Executing {
    status: AsyncFd<OwnedFd>,
    main_pid: Option<i32>,
}

impl Executing {
    /// Listens on our end of a [`status_socket`].
    pub fn new(status: AsyncFd<OwnedFd>) -> Self {
        Self {
            status,
            main_pid: None,
        }
    }

    /// Waits until there is the process that becomes the command; its pid.
    pub async fn main_pid(&mut self) -> Result<i32> {
        while self.main_pid.is_none() && self.goes_on().await? {}
        self.main_pid.context(
            "its init ended before it could say why; it may have run out of its memory limit",
        )
    }

    /// Waits until the command has been executed.
    pub async fn wait(&mut self) -> Result<()> {
        while self.goes_on().await? {}
        self.main_pid().await.map(drop)
    }

    /// Reads what is told next; false at the end. May be dropped at any time.
    async fn goes_on(&mut self) -> Result<bool> {
        let mut buffer = vec![0; 4096];
        let received = packet::receive(&self.status, &mut buffer)
            .await
            .context("cannot read its status")?;
        if received.length == 0 {
            return Ok(false);
        }
        match postcard::from_bytes(&buffer[..received.length])
            .context("cannot decode its status")?
        {
            Report::Command => {
                self.main_pid = Some(received.sender.context("its status came without a pid")?);
                Ok(true)
            }
            Report::Failed(failure) => Err(SpawnError::Refused(failure).into()),
        }
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
