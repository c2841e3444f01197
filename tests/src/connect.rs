//! A client of the agent's socket that hands over connections.

use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use serde_json::{Value, json};

use crate::http::{self, Answer};

/// A kept connection to the agent.
#[derive(Debug)]
pub struct Connector(OwnedFd);

/// An answer with the connection that came with it.
#[derive(Debug)]
pub struct Handed {
    /// What the agent says.
    pub json: Value,
    /// The connection, if it is one.
    pub connection: Option<OwnedFd>,
}

impl Connector {
    /// Connects.
    pub fn new(socket: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&fd, &SocketAddrUnix::new(socket)?)?;
        set_socket_timeout(&fd, Timeout::Recv, Some(crate::seconds(60)))?;
        Ok(Self(fd))
    }

    /// Sends one packet.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.0, packet, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives one answer; an error at the end.
    pub fn receive(&self) -> io::Result<Handed> {
        let mut bytes = [0; 16 * 1024];
        // For more than there may be.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let parts = &mut [IoSliceMut::new(&mut bytes)];
        let received = rustix::net::recvmsg(&self.0, parts, &mut control, flags)?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut fds: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                fds.extend(more);
            }
        }
        let json: Value = serde_json::from_slice(&bytes[..received.bytes])?;
        let expected = usize::from(json["status"] == 200);
        assert_eq!(fds.len(), expected, "connections with {json}");
        Ok(Handed {
            json,
            connection: fds.pop(),
        })
    }

    /// Asks for a connection.
    pub fn ask(&self, vhost: &str) -> io::Result<Handed> {
        self.send(json!({ "vhost": vhost }).to_string().as_bytes())?;
        self.receive()
    }
}

impl Handed {
    /// The connection.
    pub fn connection(self) -> OwnedFd {
        self.connection
            .unwrap_or_else(|| panic!("no connection: {}", self.json))
    }

    /// Fetches a path over the connection, to its end.
    pub fn get(self, path: &str) -> io::Result<Answer> {
        get(self.connection(), path)
    }
}

/// Fetches a path over a connection of any kind, to its end.
pub fn get(connection: OwnedFd, path: &str) -> io::Result<Answer> {
    rustix::io::ioctl_fionbio(connection.as_fd(), false)?;
    set_socket_timeout(&connection, Timeout::Recv, Some(crate::seconds(30)))?;
    // To read and write is the same for Unix sockets.
    let mut stream = TcpStream::from(connection);
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n").as_bytes())?;
    http::read_answer(Read::by_ref(&mut stream))
}
