//! `agent.toml`: the agent's own configuration. Every key has a default, so the file may be empty or absent.

mod check;
mod load;
mod net;
mod people;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::definition::{LimitKey, Limits};
use super::pattern::{HostPattern, PathPattern};
use super::units::{Bytes, Percent, Rate, Span, Unit as _};
use crate::owners::Budget;
pub use load::{DEFAULT_CONFIG, Overrides, shim_places};
pub use net::Subnet;
pub use people::Principal;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentConfig {
    /// The directory of the file, to which the definitions of patterns are relative.
    #[serde(skip)]
    pub(super) directory: PathBuf,
    /// The agent's socket; `agent.sock` in `run_dir` if not set.
    pub socket: Option<PathBuf>,
    /// The socket that hands over connections to sites; `connect.sock` in `run_dir` if not set.
    pub connect_socket: Option<PathBuf>,
    /// Both sockets' permissions, in octal: `0666`. What a caller may do is decided by who it is, not by these.
    pub socket_mode: SocketMode,
    /// Runtime state, gone after a boot: `/run/fastcontainer`.
    pub run_dir: PathBuf,
    /// Lasting state (what the operator wants, overrides, logs): `/var/lib/fastcontainer`.
    pub state_dir: PathBuf,
    /// The definitions: `/etc/fastcontainer/vhosts.d`.
    pub vhosts_dir: PathBuf,
    /// The cgroup above all owners, below the cgroup mount; if not set, the unit's delegated one, else `fastcontainer`.
    pub cgroup_parent: Option<PathBuf>,
    /// The program that sets containers up; if not set, it is sought beside the agent, then in `/usr/libexec`.
    pub shim: Option<PathBuf>,
    /// No site runs with a lesser uid: 1000.
    pub min_uid: u32,
    /// No site runs with a lesser gid: 1000.
    pub min_gid: u32,
    /// The first id of the containers' uid and gid ranges of 65,536 each: 0x20000000.
    pub uid_base: u32,
    /// The containers' addresses: `10.88.0.0/16`.
    pub subnet: Subnet,
    /// The nftables table (family inet) with all of the agent's rules: `fastcontainer`.
    pub nft_table: String,
    /// What the host's ends of containers' links are called, before their number: `fc`.
    pub interface_prefix: String,
    /// Who may dispatch, by name or uid: `www-data` and `fastcontainer-proxy`. Names that do not exist are passed over.
    pub dispatch_users: Vec<Principal>,
    /// The group that may do everything: `fastcontainer`.
    pub operator_group: Principal,
    /// The group of the web server in front, which may reach sites' Unix sockets: `www-data`.
    pub front_group: Principal,
    /// How it is found out whether a site listens: `sock_diag`.
    pub listen_check: ListenCheck,
    /// Limits of every site for what its definition leaves out: 512 processes, so that no fork bomb takes the host's
    /// process numbers; `max` in a definition lifts it.
    #[serde(deserialize_with = "over_default_limits")]
    pub limits: Limits,
    /// Bounds of the API.
    pub api: Api,
    /// Bounds of starting.
    pub starts: Starts,
    /// Bounds of each container's log.
    pub log: Log,
    /// What is kept ready.
    pub pool: Pool,
    /// Bounds of `/metrics`.
    pub metrics: Metrics,
    /// What is promised to no site.
    pub reserve: Reserve,
    /// CPUs that only sites with `class = "guaranteed"` use, and the only ones that these use: `0-1,4`. None; then all use all.
    #[serde(deserialize_with = "cpu_list")]
    pub guaranteed_cpus: Option<cgroup::CpuSet>,
    /// When memory is scarce.
    pub pressure: Pressure,
    /// What every owner may use whose own budget does not say otherwise: nothing is limited.
    pub budget: Budget,
    /// Owners, by name: who they are on this host, and what they may use.
    pub owner: BTreeMap<String, Owner>,
    /// Templates, by name; `host` is always there.
    pub template: BTreeMap<String, Template>,
    /// Patterns that make vhosts of directories.
    pub alias: Vec<AliasConfig>,
}

/// A file's permission bits; written as text in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketMode(pub u32);

/// How it is found out whether a site listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenCheck {
    /// By asking the kernel for the one socket.
    #[default]
    SockDiag,
    /// By reading `/proc/PID/net`; slow on large hosts.
    Proc,
}

/// Bounds of the API.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Connections at a time: 8192.
    pub max_connections: u32,
    /// The largest body: `1M`.
    pub max_body: Bytes,
    /// The largest head (request line and headers): `16K`.
    pub max_head: Bytes,
    /// How long a client may take to send a head: `5s`.
    pub head_timeout: Span,
    /// How long a client may take to send a body: `10s`.
    pub body_timeout: Span,
}

/// Bounds of starting.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Starts {
    /// Containers that may be starting at a time; 0 means four per core. Fewer while the host is short of processors or memory.
    pub parallel: u32,
    /// Requests that may wait for starts, over all vhosts: 10000. Beyond that the answer is 503.
    pub max_waiting: u32,
}

/// Bounds of each container's log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The size at which a file is put aside: `1M`.
    pub file_bytes: Bytes,
    /// How many files there are, with the current one: 4.
    pub files: u32,
    /// What a site may log on and on; above that, lines are dropped and counted: `1MB/s`.
    pub rate: Rate,
}

/// What is kept ready for the next starts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// Network namespaces with an address: 8. Up to eight times as many of each while so many are taken.
    pub address: u32,
    /// Network namespaces without: 8.
    pub private: u32,
    /// Inits with their process, mount, IPC and host name namespaces: 8. At most 1000.
    pub inits: u32,
}

/// Bounds of `/metrics`: who is busiest has lines of their own, the rest is added up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Vhosts with lines of their own: 50. At most 1000.
    pub vhosts: u32,
    /// Owners with lines of their own: 50. At most 1000.
    pub owners: u32,
}

/// What is promised to no site, so that the system and the agent have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reserve {
    /// Of all processors together: `10%`.
    pub cpu: Percent,
    /// Of the memory: `512M`.
    pub memory: Bytes,
}

/// When memory is scarce, so that sites with `action = "ladder"` go down before their time. `reclaim` and `stop` are shares of
/// the time in which at least one process waits for memory (`some` of /proc/pressure/memory); `0%` means never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pressure {
    /// Above it idle sites are frozen and give their memory back: `10%`.
    pub reclaim: Percent,
    /// Above it those that have done so are stopped: `30%`.
    pub stop: Percent,
    /// The time over which the share is taken: `2s`. From 500ms to 10s.
    pub window: Span,
    /// Only while less of the host's memory is available: `20%`. A site at its own limit also waits for memory, and it alone.
    pub available: Percent,
}

/// An owner on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Owner {
    /// The uid that may manage the owner's vhosts; without it, that of the user of the owner's name.
    pub uid: Option<u32>,
    /// What they may use, as long as operators have not set it with `fastctl owner budget`.
    pub budget: Budget,
}

/// A root that sites share.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Template {
    /// Its directory; not for `host`.
    pub path: Option<PathBuf>,
    /// For `host`: the entries of the host's `/etc` that sites see, beside what the agent makes.
    pub etc: Option<Vec<String>>,
}

/// A pattern that makes vhosts of directories.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AliasConfig {
    /// The host names: `*.example.net`.
    pub pattern: HostPattern,
    /// Their documents: `/srv/www/%h`.
    pub documents: PathPattern,
    /// The definition of them all, without name, aliases and documents; relative to the directory of agent.toml.
    pub definition: PathBuf,
}

/// What of the host's `/etc` sites see if `[template.host]` does not say: what programs need to run, and no secrets.
/// The configuration of the host's own web server is not among it.
pub const DEFAULT_ETC: [&str; 13] = [
    "alternatives",
    "ca-certificates.conf",
    "debian_version",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "mime.types",
    "php",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
];

impl Default for AgentConfig {
    fn default() -> Self {
        let name = |name: &str| Principal::Name(name.into());
        AgentConfig {
            directory: "/etc/fastcontainer".into(),
            socket: None,
            connect_socket: None,
            socket_mode: SocketMode(0o666),
            run_dir: "/run/fastcontainer".into(),
            state_dir: "/var/lib/fastcontainer".into(),
            vhosts_dir: "/etc/fastcontainer/vhosts.d".into(),
            cgroup_parent: None,
            shim: None,
            min_uid: 1000,
            min_gid: 1000,
            uid_base: 0x2000_0000,
            subnet: Subnet::default(),
            nft_table: "fastcontainer".into(),
            interface_prefix: "fc".into(),
            dispatch_users: vec![name("www-data"), name("fastcontainer-proxy")],
            operator_group: name("fastcontainer"),
            front_group: name("www-data"),
            listen_check: ListenCheck::SockDiag,
            limits: default_limits(),
            api: Api::default(),
            starts: Starts::default(),
            log: Log::default(),
            pool: Pool::default(),
            metrics: Metrics::default(),
            reserve: Reserve::default(),
            guaranteed_cpus: None,
            pressure: Pressure::default(),
            budget: Budget::default(),
            owner: BTreeMap::new(),
            template: BTreeMap::new(),
            alias: Vec::new(),
        }
    }
}

/// A list of CPUs as the kernel writes it; there is at least one.
fn cpu_list<'de, D: serde::Deserializer<'de>>(list: D) -> Result<Option<cgroup::CpuSet>, D::Error> {
    let text = String::deserialize(list)?;
    let set = cgroup::CpuSet::parse(&text).filter(|set| !set.is_empty());
    let wrong = || format!("\"{text}\": a list of CPUs is expected, such as \"0-1,4\"");
    set.map(Some)
        .ok_or_else(|| serde::de::Error::custom(wrong()))
}

/// A `[limits]` without `pids` leaves that default in force.
fn over_default_limits<'de, D: serde::Deserializer<'de>>(limits: D) -> Result<Limits, D::Error> {
    Ok(default_limits().merge(&Limits::deserialize(limits)?))
}

fn default_limits() -> Limits {
    let mut limits = Limits::default();
    limits.set(LimitKey::Pids, Some(512));
    limits
}

impl Default for Api {
    fn default() -> Self {
        Api {
            max_connections: 8192,
            max_body: Bytes(1 << 20),
            max_head: Bytes(16 << 10),
            head_timeout: Span::seconds(5),
            body_timeout: Span::seconds(10),
        }
    }
}

impl Default for Starts {
    fn default() -> Self {
        Starts {
            parallel: 0,
            max_waiting: 10_000,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log {
            file_bytes: Bytes(1 << 20),
            files: 4,
            rate: Rate::per_second(1_000_000),
        }
    }
}

impl Default for Reserve {
    fn default() -> Self {
        Reserve {
            cpu: Percent::from_raw(1_000),
            memory: Bytes(512 << 20),
        }
    }
}

impl Default for Pressure {
    fn default() -> Self {
        Pressure {
            reclaim: Percent::from_raw(1_000),
            stop: Percent::from_raw(3_000),
            window: Span::seconds(2),
            available: Percent::from_raw(2_000),
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Pool {
            address: 8,
            private: 8,
            inits: 8,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            vhosts: 50,
            owners: 50,
        }
    }
}
