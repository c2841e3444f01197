//! The node agent and its command line.
//!
//! `config` and `machine` are pure; `site` drives one vhost with them, `container` makes and removes what it runs in,
//! `registry` knows all vhosts, `api` lets others in. ARCHITECTURE.md has the map.

pub mod accounts;
pub mod admission;
pub mod api;
pub mod cli;
pub mod config;
pub mod container;
pub mod daemon;
pub mod disk;
pub mod division;
pub mod doctor;
pub mod events;
mod fnv;
#[cfg(target_env = "gnu")]
mod heap;
pub mod ladder;
pub mod listening;
pub mod logs;
pub mod machine;
pub mod owner_groups;
pub mod owners;
mod packet;
pub mod persist;
pub mod platform;
pub mod promises;
pub(crate) mod psi;
pub mod ranges;
pub mod readiness;
pub mod registry;
pub mod reverts;
pub mod seeing;
pub mod site;
pub mod spawner;
mod sys;
pub mod time;
