//! HTTP/1.1 + JSON on the agent's Unix socket, and connections to sites on another.
//!
//! [`server`] accepts and finds out who is there, [`route`] turns a request into a typed call and checks the
//! peer's rights; each file below `verbs` is one resource.

mod answer;
mod body;
mod connect;
mod dispatch;
mod exec;
mod exec_refused;
mod exec_streams;
mod host;
mod listen;
mod metrics;
mod owners;
mod places;
pub mod problem;
pub mod rights;
mod route;
mod seeing;
mod server;
mod sessions;
mod stream;
mod usage;
mod vhosts;
mod whatif;
mod wire;

pub use listen::{listen, listen_for_packets};
pub use server::Server;
