//! `listen = "activate"`: the agent listens, the command finds the socket as descriptor 3.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Gid};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::config::Definition;
use crate::config::definition::Listen;
use crate::platform::Platform;

/// Port of a container that has an address.
pub(super) const PORT: u16 = 8080;

/// A socket that the agent listens on for the container.
pub(super) struct Activated {
    pub(super) socket: Option<OwnedFd>,
    pub(super) path: Option<String>,
}

pub(super) fn activate(
    platform: &Platform,
    vhost: &str,
    definition: &Definition,
    namespace: &netns::Namespace,
    address: Option<Ipv4Addr>,
) -> Result<Activated> {
    if definition.listen != Listen::Activate {
        return Ok(Activated {
            socket: None,
            path: None,
        });
    }
    if let Some(address) = address {
        let socket = namespace.listen_tcp(SocketAddr::from((address, PORT)))?;
        return Ok(Activated {
            socket: Some(socket),
            path: None,
        });
    }
    let path = platform.site_dir(vhost).join("activated");
    crate::persist::remove(&path)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(&path)?)
        .with_context(|| format!("cannot listen on {}", path.display()))?;
    let front = platform.front_gid.map(Gid::from_raw);
    rustix::fs::chownat(CWD, &path, None, front, AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::chmodat(
        CWD,
        &path,
        rustix::fs::Mode::from_raw_mode(0o660),
        AtFlags::empty(),
    )?;
    rustix::net::listen(&socket, 4096)?;
    Ok(Activated {
        socket: Some(socket),
        path: Some(path.display().to_string()),
    })
}
