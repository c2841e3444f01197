//! Who listens and what is connected inside a network namespace, by two independent ways.

mod inet;
pub(crate) mod procnet;
mod unix;

use crate::netlink::Netlink;
use crate::{Error, Result, worker};
use rustix::fd::OwnedFd;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

/// Where the answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// sock_diag over a cached netlink socket: a few microseconds.
    #[default]
    SockDiag,
    /// The tables in /proc/net: the fallback where the kernel has no sock_diag, and the cross-check.
    ProcNet,
}

/// Answers about one network namespace.
///
/// "Listening on (address, port)" means: a connection to that address and port made inside the
/// namespace would be taken by a listening socket, whether it is bound to the address itself, to
/// 0.0.0.0, or (for IPv4 addresses too, unless IPV6_V6ONLY) to `[::]`.
///
/// The two methods agree but in two cases that /proc/net cannot tell: an IPV6_V6ONLY listener on
/// `[::]` counts for IPv4 addresses there, and so does a listener bound to another device.
///
/// "Open" connections are those that a stop would cut: established (accepted or still in the
/// accept queue), being made, or being closed with data possibly on the way. TIME_WAIT and a
/// FIN_WAIT2 that no process holds any more do not count.
#[derive(Debug)]
pub struct Diag {
    namespace: Arc<OwnedFd>,
    socket: Mutex<Netlink>,
}

impl Diag {
    pub(crate) fn new(namespace: Arc<OwnedFd>, socket: Netlink) -> Self {
        Self {
            namespace,
            socket: Mutex::new(socket),
        }
    }

    /// Whether a TCP connection to `address` and `port` would be taken.
    pub fn tcp_listening(&self, method: Method, address: IpAddr, port: u16) -> Result<bool> {
        match method {
            Method::SockDiag => self.socket(|socket| inet::listening(socket, address, port)),
            Method::ProcNet => self.proc_net(move |file| tcp_listening_in(file, address, port)),
        }
    }

    /// The number of open TCP connections whose local port is `port`.
    pub fn tcp_open(&self, method: Method, port: u16) -> Result<usize> {
        match method {
            Method::SockDiag => self.socket(|socket| inet::open(socket, port)),
            Method::ProcNet => self.proc_net(move |file| tcp_open_in(file, port)),
        }
    }

    /// The number of those of them whose other end is in the namespace, too: over its own loopback, from one of its addresses to
    /// the same one, or to or from 127.0.0.0/8 or `::1`. Between two other addresses of its own they are not seen.
    pub fn tcp_open_local(&self, method: Method, port: u16) -> Result<usize> {
        match method {
            Method::SockDiag => self.socket(|socket| inet::open_local(socket, port)),
            Method::ProcNet => self.proc_net(move |file| tcp_open_local_in(file, port)),
        }
    }

    /// The number of open TCP connections whose local port is `port` with data that nobody has read yet.
    pub fn tcp_unread(&self, method: Method, port: u16) -> Result<usize> {
        match method {
            Method::SockDiag => self.socket(|socket| inet::unread(socket, port)),
            Method::ProcNet => self.proc_net(move |file| tcp_unread_in(file, port)),
        }
    }

    /// Whether a Unix stream or seqpacket socket listens under `name`: the bytes given to bind(2), so
    /// a path as the server sees it; an abstract name begins with a NUL.
    pub fn unix_listening(&self, method: Method, name: &[u8]) -> Result<bool> {
        match method {
            Method::SockDiag => self.socket(|socket| unix::listening(socket, name)),
            Method::ProcNet => {
                let name = name.to_vec();
                self.proc_net(move |file| unix_listening_in(file, &name))
            }
        }
    }

    /// The number of connections to the Unix socket `name`, accepted or in the accept queue.
    ///
    /// The kernel puts an accepted socket into the network namespace of the *client*, so clients elsewhere are only
    /// seen here while they wait in the accept queue; see [`Diag::unix_accepted`] for the rest.
    pub fn unix_open(&self, method: Method, name: &[u8]) -> Result<usize> {
        match method {
            Method::SockDiag => self.socket(|socket| unix::open(socket, name)),
            Method::ProcNet => {
                let name = name.to_vec();
                self.proc_net(move |file| unix_open_in(file, &name))
            }
        }
    }

    /// The number of accepted connections that clients in this namespace have to the Unix socket with this file,
    /// wherever it listens.
    ///
    /// /proc/net cannot tell it from others of the same name, `name`, and counts those as well.
    pub fn unix_accepted(
        &self,
        method: Method,
        file: &std::fs::Metadata,
        name: &[u8],
    ) -> Result<usize> {
        match method {
            Method::SockDiag => {
                self.socket(|socket| unix::accepted(socket, file.dev(), file.ino()))
            }
            Method::ProcNet => self.unix_open(method, name),
        }
    }

    fn socket<T>(&self, ask: impl FnOnce(&mut Netlink) -> Result<T>) -> Result<T> {
        ask(&mut self.socket.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn proc_net<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Fn(&str) -> Result<Vec<u8>>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        worker::visit("read /proc/net", Arc::clone(&self.namespace), move || {
            read(&|table| read_table("thread-self", table))
        })
    }
}

/// [`Diag::tcp_listening`] from /proc/PID/net, for a process known only by its number.
pub fn tcp_listening_proc(pid: u32, address: IpAddr, port: u16) -> Result<bool> {
    tcp_listening_in(&|table| read_table(&pid.to_string(), table), address, port)
}

/// [`Diag::tcp_open`] from /proc/PID/net.
pub fn tcp_open_proc(pid: u32, port: u16) -> Result<usize> {
    tcp_open_in(&|table| read_table(&pid.to_string(), table), port)
}

/// [`Diag::unix_listening`] from /proc/PID/net.
pub fn unix_listening_proc(pid: u32, name: &[u8]) -> Result<bool> {
    unix_listening_in(&|table| read_table(&pid.to_string(), table), name)
}

/// [`Diag::unix_open`] from /proc/PID/net.
pub fn unix_open_proc(pid: u32, name: &[u8]) -> Result<usize> {
    unix_open_in(&|table| read_table(&pid.to_string(), table), name)
}

type ReadTable<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>>;

fn tcp_listening_in(read: ReadTable<'_>, address: IpAddr, port: u16) -> Result<bool> {
    for table in ["tcp", "tcp6"] {
        let bytes = read(table)?;
        if procnet::tcp_table(&bytes).any(|socket| socket.takes(address, port)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn tcp_open_in(read: ReadTable<'_>, port: u16) -> Result<usize> {
    count_tcp(read, |socket| socket.is_open_on(port))
}

fn tcp_open_local_in(read: ReadTable<'_>, port: u16) -> Result<usize> {
    count_tcp(read, |socket| {
        socket.is_open_on(port) && inet::is_local(socket.address, socket.peer)
    })
}

fn tcp_unread_in(read: ReadTable<'_>, port: u16) -> Result<usize> {
    count_tcp(read, |socket| {
        socket.is_open_on(port) && inet::has_data(socket.state, socket.unread)
    })
}

fn count_tcp(read: ReadTable<'_>, wanted: impl Fn(&procnet::TcpSocket) -> bool) -> Result<usize> {
    let mut count = 0;
    for table in ["tcp", "tcp6"] {
        count += procnet::tcp_table(&read(table)?).filter(&wanted).count();
    }
    Ok(count)
}

fn unix_listening_in(read: ReadTable<'_>, name: &[u8]) -> Result<bool> {
    Ok(procnet::unix_table(&read("unix")?).any(|socket| socket.listening && socket.is_named(name)))
}

fn unix_open_in(read: ReadTable<'_>, name: &[u8]) -> Result<usize> {
    let bytes = read("unix")?;
    Ok(procnet::unix_table(&bytes)
        .filter(|socket| socket.open && socket.is_named(name))
        .count())
}

/// The bytes of /proc/WHO/net/TABLE; empty for IPv6 tables of a kernel without IPv6.
fn read_table(who: &str, table: &str) -> Result<Vec<u8>> {
    let path = format!("/proc/{who}/net/{table}");
    match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && table.ends_with('6') => {
            Ok(Vec::new())
        }
        other => other.map_err(|source| Error::os("read", path, source)),
    }
}
