//! Control groups whose limits are read back: cgroup v2, and v1/hybrid hosts behind the same types.
//!
//! The crate knows [`Hierarchy`] (what this host mounts), [`Tree`] (one parent below the mounts that the caller owns),
//! [`Group`] (one control group in every hierarchy it needs) and [`Limits`] (what is asked for or in force).
//! It is synchronous, starts no thread and holds no global state.
//!
//! Invariants:
//! - no limit is believed until it has been read back; one that the kernel cannot take is an error, never dropped;
//! - everything is validated before the first write, and a failure in the middle is undone in reverse;
//! - tearing down goes on after an error and reports all of them;
//! - files are reached relative to directory descriptors, never by walking a path again;
//! - no bytes from a kernel file can make a parser panic ([`stat`], [`convert`]: pure, no I/O).
//!
//! v1 files are written directly instead of through cgroups-rs 0.5, because that crate pulls a D-Bus stack (zbus) into
//! a root process and takes `/sys/fs/cgroup` for granted, so that a hybrid host's v2 mount is not found.
//! All that is v1 is in the module `v1`, chosen per controller, so that it can be deleted one day.

mod compare;
pub mod convert;
mod counters;
mod cpu_time;
mod cpus;
mod cpuset;
mod device;
mod dir;
mod drift;
mod dynmods;
mod error;
mod freeze;
mod group;
mod hierarchy;
mod kill;
mod limits;
mod make;
mod mountinfo;
mod name;
mod note;
mod oom;
mod plan;
mod reclaim;
mod remove;
pub mod stat;
mod tree;
mod usage;
mod v1;
mod v2;
mod validate;

pub use cpu_time::CpuClock;
pub use cpus::CpuSet;
pub use device::{block_device, block_device_of, block_device_of_path};
pub use dynmods::DynmodsGuard;
pub use error::Error;
pub use group::Group;
pub use hierarchy::{Controller, Hierarchy, Missing, Version};
pub use limits::{CpuLimit, DEFAULT_PERIOD_USEC, Device, IoLimit, Limits, Setting};
pub use name::validate_name;
pub use oom::OomEvents;
pub use tree::Tree;
pub use usage::{LimitHits, Usage};
