//! What agent and spawner say to each other.
//!
//! The agent starts one `fastcontainer-shim spawn` and keeps a `SOCK_SEQPACKET` pair to it (the spawner's end is
//! descriptor 3; descriptor 4 is a network namespace with nothing but its loopback). Every request is one packet: a postcard-encoded [`Request`] with its descriptors as one
//! `SCM_RIGHTS` message, in the order of the `fds` list inside. Every request is answered by exactly one
//! [`Reply`] packet with the same `id`, which carries what was asked for; [`Request::Ahead`] only when there is time for it.
//!
//! A pair that was made ahead, an init and the process that becomes its command, is the agent's: each takes its part on a
//! socket of its own, the init a [`Request::Start`] as the spawner would, its child a [`Request::Run`], and answers nothing.
//! Both end when these sockets are closed. Their cgroups, exit file and logs follow there ([`Later`]): they set up what they can
//! while the agent makes these.
//!
//! What happens after the clone is told over the request's own status socket ([`FdRole::Status`], also
//! `SOCK_SEQPACKET`): [`Report::Command`], then end of file once the command has been executed, or [`Report::Failed`]. End
//! of file without a failure may also mean that all of it was killed, which its pidfd tells.

use serde::{Deserialize, Serialize};

pub use crate::exit_record::{ExitRecord, ExitStatus};
pub use crate::ids::Ids;

/// Longest packet either side accepts, in bytes. The agent refuses definitions that would not fit.
pub const MAX_PACKET: usize = 128 * 1024;

/// Most descriptors that go with one packet, those that every start has included (the kernel's own limit is 253).
pub const MAX_FDS: usize = 64;

/// [`Failure::step`] of a mount whose file system may be one without id-mapped mounts (the errno is EINVAL then).
pub const MAP_IDS: &str = "set the attributes and map the ids of";

/// What the agent asks of the spawner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Make a container and start its command. The only one that an init made ahead takes.
    Start(Box<Start>),
    /// Become the command of a container. For the child of an init made ahead, and nobody else.
    Run(Box<Run>),
    /// Make the user namespaces of these ids.
    Users {
        /// Chosen by the agent, repeated in the reply.
        id: u64,
        /// Whose.
        ids: Ids,
    },
    /// Make an init ahead, once nothing has been asked for a few milliseconds.
    Ahead {
        /// Chosen by the agent, repeated in the reply.
        id: u64,
    },
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
    /// User namespace to live in, of [`Reply::Users`]; exactly one.
    ContainerUsers,
    /// User namespace that maps the site's own ids and no other; exactly one.
    SiteUsers,
    /// cgroup v2 directory for CLONE_INTO_CGROUP; at most one.
    CgroupDir,
    /// A `cgroup.procs` file (v1: `tasks`), open for writing: who joins writes `0` to it, the v2 one first.
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
    /// Mounts, in order; `FdRole::Mount(i)` belongs to `mounts[i]`.
    pub mounts: Vec<Mount>,
    /// Show the sysfs that all containers without a link share; else it is among the mounts.
    pub shared_sys: bool,
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
    /// The command.
    pub program: Program,
    /// Log keeping.
    pub log: LogRule,
    /// Roles of the descriptors of this packet, in their order.
    pub fds: Vec<FdRole>,
}

/// What is executed, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The container's ids.
    pub ids: Ids,
    /// argv[0] first; looked up in PATH of `env` when it has no slash.
    pub command: Vec<String>,
    /// The whole environment; LISTEN_FDS and LISTEN_PID are added where listening sockets are passed.
    pub env: Vec<(String, String)>,
    /// Working directory inside.
    pub workdir: String,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
}

/// The other half of a [`Start`], for the process that becomes the command: it is confined while init builds the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Name in the host's process list until the command is executed.
    pub vhost: String,
    /// See [`Start::program`].
    pub program: Program,
    /// Roles of the descriptors of this packet, in their order: [`FdRole::Status`], [`FdRole::NetNs`],
    /// [`FdRole::ContainerUsers`] and [`FdRole::Listen`] only.
    pub fds: Vec<FdRole>,
}

/// One more command inside a running container, as the site's user, with the container's confinement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Chosen by the agent, repeated in the reply.
    pub id: u64,
    /// The command.
    pub program: Program,
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
    /// The packet carries the user namespaces: the one that containers with these ids live in, and the one that shows
    /// files of the site's own ids only.
    Users {
        /// As in the request.
        id: u64,
    },
    /// The packet carries the pidfd of an init that waits for its container, the socket on which it does, and the socket of
    /// its child.
    Ready {
        /// As in the request.
        id: u64,
        /// Its pid in the spawner's pid namespace.
        pid: i32,
    },
    /// Nothing was started or made, nothing is left.
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

/// What follows a [`Start`] or a [`Run`] that a pair made ahead was given, on the same socket. End of file instead: there will be
/// no container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Later {
    /// The packet carries descriptors of these roles, in their order: for the init [`FdRole::CgroupProcs`],
    /// [`FdRole::ExitFile`] and [`FdRole::LogDir`], once all limits are in force; for the command only
    /// [`FdRole::CgroupProcs`], as soon as they are there.
    Join(Vec<FdRole>),
    /// All limits are in force: the command may be executed.
    Go,
}

/// What the new process tells over its status socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// Sent by the command's own process as soon as there is one. The receiver has SO_PASSCRED set and reads its pid
    /// from SCM_CREDENTIALS, translated to the receiver's pid namespace.
    Command,
    /// Set-up failed; the container is gone or about to be.
    Failed(Failure),
}
