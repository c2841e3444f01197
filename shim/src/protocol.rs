//! What agent and spawner say to each other.
//!
//! The agent starts one `fastcontainer-shim spawn` and keeps a `SOCK_SEQPACKET` pair to it (the spawner's end is
//! descriptor 3). Every request is one packet: a postcard-encoded [`Request`] with its descriptors as one
//! `SCM_RIGHTS` message, in the order of the `fds` list inside. Every request is answered by exactly one
//! [`Reply`] packet with the same `id`; for a success it carries the new process's pidfd.
//!
//! What happens after the clone is told over the request's own status socket ([`FdRole::Status`], also
//! `SOCK_SEQPACKET`): one [`Report`] packet, then end of file. End of file after [`Report::Exec`] with no
//! [`Report::Failed`] behind it means that execve succeeded.

use serde::{Deserialize, Serialize};

/// Longest packet either side accepts, in bytes. The agent refuses definitions that would not fit.
pub const MAX_PACKET: usize = 128 * 1024;

/// Most descriptors that go with one packet (the kernel's own limit is 253).
pub const MAX_FDS: usize = 64;

/// What the agent asks of the spawner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Make a container and start its command.
    Start(Box<Start>),
    /// Run one more command inside a running container.
    Exec(Box<Exec>),
}

/// What a descriptor that travels with a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FdRole {
    /// `SOCK_SEQPACKET` socket on which [`Report`]s go back; exactly one.
    Status,
    /// File open for writing: init puts one [`ExitRecord`] line there before it ends. Optional in an [`Exec`], where it
    /// may be a pipe: nobody but the spawner could wait for the command's parent.
    ExitFile,
    /// Directory that holds the container's log files, owned by the container's uid 0.
    LogDir,
    /// Network namespace to live in; exactly one.
    NetNs,
    /// cgroup v2 directory for CLONE_INTO_CGROUP; at most one.
    CgroupDir,
    /// A `cgroup.procs` file of a v1 controller, open for writing: init writes `0` to it before anything else.
    CgroupProcs,
    /// Detached mount, to be attached at `Start::mounts[i].target`.
    Mount(u16),
    /// A listening socket for the command (descriptor 3 and up, LISTEN_FDS), in order.
    Listen,
    /// pidfd of a container's init, whose namespaces an [`Exec`] joins.
    Target,
    /// Standard input, output and error of an [`Exec`].
    Stdin,
    /// See [`FdRole::Stdin`].
    Stdout,
    /// See [`FdRole::Stdin`].
    Stderr,
}

/// User and group ids of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// First id of the container's range on the host; container id `n` is `base + n` for `n < 65535`.
    pub base: u32,
    /// The site's uid inside, which is also the owner of its documents on disk. One of 65535 or more is mapped
    /// to `base + 65535` by an extra line.
    pub uid: u32,
    /// The site's gid inside, treated as `uid` is.
    pub gid: u32,
    /// The site's own uid and gid are the same on the host, for documents on a file system that cannot be mounted
    /// with mapped ids (NFS, most of FUSE). Everything else is in the range.
    pub direct: bool,
}

impl Ids {
    /// How many host ids a container's range spans.
    pub const RANGE: u32 = 65_536;

    /// The host's uid of the site's processes.
    pub fn host_uid(&self) -> u32 {
        self.host_of(self.uid)
    }

    /// The host's gid of the site's processes.
    pub fn host_gid(&self) -> u32 {
        self.host_of(self.gid)
    }

    fn host_of(&self, own: u32) -> u32 {
        if self.direct {
            own
        } else {
            self.base + own.min(Self::RANGE - 1)
        }
    }

    /// Text for `/proc/PID/uid_map`.
    pub fn uid_map(&self) -> String {
        self.map(self.uid)
    }

    /// Text for `/proc/PID/gid_map`.
    pub fn gid_map(&self) -> String {
        self.map(self.gid)
    }

    /// The whole range, with the site's own id leading elsewhere if it has to.
    fn map(&self, own: u32) -> String {
        let (base, last) = (self.base, Self::RANGE - 1);
        match (own < last, self.direct) {
            (true, false) => format!("0 {base} {}\n", Self::RANGE),
            (false, _) => format!("0 {base} {last}\n{own} {} 1\n", self.host_of(own)),
            (true, true) => {
                let below = if own > 0 {
                    format!("0 {base} {own}\n")
                } else {
                    String::new()
                };
                format!(
                    "{below}{own} {own} 1\n{} {} {}\n",
                    own + 1,
                    base + own + 1,
                    last - own
                )
            }
        }
    }
}

/// How the ids of a mount's files are shown inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdMap {
    /// As they are (device nodes, sysfs).
    None,
    /// Through the container's own user namespace: on-disk id n is seen as n. For read-only templates.
    Container,
    /// Only the site's own uid and gid are mapped, everything else is nobody: for documents, so that not even
    /// the container's uid 0 can create or touch a file of another owner.
    Site,
}

/// One detached mount and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Path below the new root, without leading slash, such as `usr` or `etc/passwd`.
    pub target: String,
    /// A directory (the target is created as one) or a single file.
    pub directory: bool,
    /// Not writable inside.
    pub read_only: bool,
    /// Device nodes on it work (only the shared /dev has this).
    pub devices: bool,
    /// Programs on it can be executed.
    pub exec: bool,
    /// How file ids are shown.
    pub idmap: IdMap,
}

/// A small file of the container's own root, written by init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Name in the container's private file area; `Start::generated` names where it is shown.
    pub target: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// A resource limit: the number of `RLIMIT_*`, soft and hard value (`u64::MAX` is unlimited).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_*` as the kernel numbers it.
    pub resource: u32,
    /// Soft value.
    pub soft: u64,
    /// Hard value.
    pub hard: u64,
}

/// How a container's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRule {
    /// A file is rotated when it would grow past this many bytes.
    pub file_bytes: u64,
    /// How many files are kept, the current one included; at least 1.
    pub files: u32,
    /// Bytes a second kept in the long run; what comes faster (beyond `burst_bytes`) is dropped and counted.
    pub rate_bytes: u64,
    /// Bytes that may come at once.
    pub burst_bytes: u64,
}

/// Everything init must know to set a container up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Chosen by the agent, repeated in the reply.
    pub id: u64,
    /// Name for log lines.
    pub vhost: String,
    /// Host name inside (UTS namespace), at most 64 bytes.
    pub hostname: String,
    /// User and group ids.
    pub ids: Ids,
    /// Mounts, in order; `FdRole::Mount(i)` belongs to `mounts[i]`.
    pub mounts: Vec<Mount>,
    /// Symbolic links of the root: (name, target), such as (`bin`, `usr/bin`).
    pub symlinks: Vec<(String, String)>,
    /// Empty directories of the root that the site's user owns and may write (`tmp`, `run`, `run/site`, `var/tmp`):
    /// (path, mode).
    pub writable: Vec<(String, u32)>,
    /// Generated files, each bound read-only over an existing file of a mounted template (`etc/passwd`).
    pub generated: Vec<File>,
    /// Limits of the container's private tmpfs: bytes, inodes.
    pub tmpfs_bytes: u64,
    /// See `tmpfs_bytes`.
    pub tmpfs_inodes: u64,
    /// The command, argv[0] first; looked up in PATH of `env` when it has no slash.
    pub command: Vec<String>,
    /// The whole environment; LISTEN_FDS and LISTEN_PID are added by init where listening sockets are passed.
    pub env: Vec<(String, String)>,
    /// Working directory inside.
    pub workdir: String,
    /// Resource limits of the command.
    pub rlimits: Vec<Rlimit>,
    /// Log keeping.
    pub log: LogRule,
    /// Roles of the descriptors of this packet, in their order.
    pub fds: Vec<FdRole>,
}

/// One more command inside a running container, as the site's user, with the container's confinement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Chosen by the agent, repeated in the reply.
    pub id: u64,
    /// The container's ids.
    pub ids: Ids,
    /// See [`Start::command`].
    pub command: Vec<String>,
    /// See [`Start::env`].
    pub env: Vec<(String, String)>,
    /// Working directory inside.
    pub workdir: String,
    /// Resource limits of the command.
    pub rlimits: Vec<Rlimit>,
    /// Make standard input the controlling terminal.
    pub terminal: bool,
    /// Roles of the descriptors of this packet, in their order.
    pub fds: Vec<FdRole>,
}

/// The spawner's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Cloned; the packet carries the pidfd of the new process (init of the container, or the parent of the
    /// exec'd command, which exits with that command's status).
    Started {
        /// As in the request.
        id: u64,
        /// Pid of the new process in the spawner's pid namespace.
        pid: i32,
    },
    /// Nothing was started, nothing is left.
    Refused {
        /// As in the request (0 if it could not be read).
        id: u64,
        /// What failed.
        failure: Failure,
    },
}

/// A step that failed, on what, and the errno.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step, as a phrase that fits behind "cannot": `mount`, `pivot the root`, `execute`.
    pub step: String,
    /// Path or object; empty if there is none.
    pub object: String,
    /// errno, 0 if it was no system call.
    pub errno: i32,
}

/// What the new process tells over its status socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// Sent by the command's own process just before execve. The receiver has SO_PASSCRED set and reads its pid
    /// from SCM_CREDENTIALS, translated to the receiver's pid namespace.
    Exec,
    /// Set-up failed; the container is gone or about to be.
    Failed(Failure),
}

/// How the command ended: one line of text in the exit file, `code N UNIX_SECONDS` or `signal N UNIX_SECONDS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// What happened.
    pub status: ExitStatus,
    /// When, seconds since 1970.
    pub at: u64,
}

/// Exit code or signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// It was ended by this signal.
    Signal(i32),
}

impl std::fmt::Display for ExitRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.status {
            ExitStatus::Code(n) => write!(f, "code {n} {}", self.at),
            ExitStatus::Signal(n) => write!(f, "signal {n} {}", self.at),
        }
    }
}

impl std::str::FromStr for ExitRecord {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("not an exit record: {s:?}");
        let mut words = s.split_ascii_whitespace();
        let kind = words.next().ok_or_else(bad)?;
        let number = words.next().and_then(|w| w.parse().ok()).ok_or_else(bad)?;
        let at = words.next().and_then(|w| w.parse().ok()).ok_or_else(bad)?;
        let status = match kind {
            "code" => ExitStatus::Code(number),
            "signal" => ExitStatus::Signal(number),
            _ => return Err(bad()),
        };
        Ok(Self { status, at })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn maps_are_disjoint_and_lead_the_site_to_its_host_id(
            own in prop_oneof![0u32..70_000, any::<u32>()], direct: bool, slot in 1u32..1000,
        ) {
            let ids = Ids { base: 0x2000_0000 + slot * Ids::RANGE, uid: own, gid: own, direct };
            let mut lines: Vec<[u64; 3]> = ids
                .uid_map()
                .lines()
                .map(|line| line.split(' ').map(|w| w.parse().unwrap()).collect::<Vec<_>>().try_into().unwrap())
                .collect();
            let host = lines.iter().find(|[first, _, n]| (*first..first + n).contains(&u64::from(own)));
            let [first, to, _] = host.unwrap();
            prop_assert_eq!(to + u64::from(own) - first, u64::from(ids.host_uid()));
            lines.sort_unstable();
            for pair in lines.windows(2) {
                prop_assert!(pair[0][0] + pair[0][2] <= pair[1][0]);
            }
            prop_assert!(lines.iter().all(|line| line[2] > 0));
        }
    }
}
