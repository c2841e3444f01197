//! Network namespaces for containers: made, connected, inspected and fenced in, without any idea of
//! what runs in them.
//!
//! * [`Namespace`]: a network namespace held by a descriptor, with sockets made inside it and a
//!   cached sock_diag socket ([`Diag`]) that answers "is it listening" in microseconds.
//! * [`Host`]: a routed veth per container, its rates and byte counters, and one nftables table that
//!   denies by default.
//! * [`LocalArrivals`]: data over a namespace's own loopback is told.
//! * [`Pool`]: namespaces made ahead of need.
//!
//! Everything is synchronous. The `rtnetlink` crate is not used because it needs an async runtime
//! and a task for its connection; its message crate, `netlink-packet-route`, encodes the requests
//! here and one blocking socket carries them. nfnetlink and sock_diag messages are few and fixed,
//! and are encoded by hand.
//!
//! No function changes the network namespace of the calling thread: work that has to happen inside
//! a namespace is done on threads of this crate.
//!
//! Network namespaces made here get a TCP hash table of their own
//! (`net.ipv4.tcp_child_ehash_entries`, Linux 6.1), so that counting a container's connections and
//! reading its /proc/net/tcp cost microseconds, not a walk over the host's whole table.

mod attributes;
mod demand;
mod diag;
mod error;
mod host;
mod local;
mod namespace;
mod netlink;
mod nftables;
mod notices;
mod pool;
mod route;
mod settings;
mod shaper;
mod slots;
mod socket;
mod subnet;
mod trial;
mod worker;

pub use demand::Demand;
pub use diag::{
    Diag, Method, tcp_listening_proc, tcp_open_proc, unix_listening_proc, unix_open_proc,
};
pub use error::{Error, Result};
pub use host::{Arrivals, Destination, Host, HostConfig, Link, Policy, Protocol, Shape, Told};
pub use local::LocalArrivals;
pub use namespace::Namespace;
pub use pool::{Kind, Pool, PoolSize, Prepared};
pub use slots::{SlotSet, Slots};
pub use subnet::Subnet;
pub use trial::try_shaping;

/// Parsers for bytes that come from the kernel; public so that they can be fuzzed and benchmarked.
pub mod parse {
    pub use crate::diag::procnet::{TcpSocket, UnixSocket, tcp_table, unix_table};
}
