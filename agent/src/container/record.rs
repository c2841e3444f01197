//! What is kept on disk about a container, so that the next agent can take it over.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use shim::protocol::{ExitRecord, ExitStatus, Ids};

use super::Phases;
use crate::config::{Definition, Limits};
use crate::owners::Disk;

/// `sites/VHOST/container.json`, written before the requester is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Name of the vhost.
    pub vhost: String,
    /// Its owner, which is the first level of its cgroup.
    pub owner: String,
    /// Host pid of init.
    pub pid: i32,
    /// When init began, clock ticks since boot: with the pid this names a process for good.
    pub start_time: u64,
    /// Host pid of the command.
    pub main_pid: i32,
    /// Slot: its address.
    pub slot: u32,
    /// Uid range, by which nothing is found again: the ids say which.
    #[serde(skip)]
    pub range: u32,
    /// Ids inside.
    pub ids: IdsRecord,
    /// Its address, where it has one.
    pub address: Option<Ipv4Addr>,
    /// Port that the agent listens on for it (`listen = "activate"`, mode `address`).
    pub activated_port: Option<u16>,
    /// Path that the agent listens on for it (`listen = "activate"`, mode `private`).
    pub activated_path: Option<String>,
    /// Where to connect.
    pub upstream: String,
    /// Seconds since 1970 when it began to listen.
    pub ready_at: f64,
    /// Likewise, in ms since boot. Of an agent that did not note it: as if it were now.
    #[serde(default = "crate::time::boot_millis")]
    pub ready_boot: u64,
    /// Times of its start.
    pub phases: Phases,
    /// Text of the definition's `listen`.
    pub listen: String,
    /// [`fingerprint`] of the definition that it was made from.
    #[serde(default)]
    pub definition: u64,
    /// Device number of its documents' file system, 0 without documents; nothing in records of agents that did not know it.
    #[serde(default)]
    pub device: Option<u64>,
    /// Hard limit of open files that its processes were told last; nothing while that changes, and in records of agents that
    /// did not note it: then the command is asked.
    #[serde(default)]
    pub open_files: Option<u64>,
}

impl Record {
    /// Where its documents are.
    pub fn disk(&self) -> Disk {
        match self.device {
            None => Disk::Unknown,
            Some(0) => Disk::None,
            Some(device) => Disk::Of(device),
        }
    }
}

/// [`Ids`] in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdsRecord {
    /// First host id of its range.
    pub base: u32,
    /// The site's uid inside.
    pub uid: u32,
    /// The site's gid inside.
    pub gid: u32,
    /// The site's uid and gid are the same on the host.
    pub direct: bool,
}

impl From<IdsRecord> for Ids {
    fn from(r: IdsRecord) -> Self {
        Self {
            base: r.base,
            uid: r.uid,
            gid: r.gid,
            direct: r.direct,
        }
    }
}

impl From<Ids> for IdsRecord {
    fn from(i: Ids) -> Self {
        Self {
            base: i.base,
            uid: i.uid,
            gid: i.gid,
            direct: i.direct,
        }
    }
}

/// How the last container of a vhost ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// Exit code, if the command exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Signal, if one ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why, in words: `stopped`, `exited`, `out of memory (limit 64M)` …
    pub cause: String,
    /// RFC 3339.
    pub at: String,
}

impl LastExit {
    /// From init's own record, if there is one, and what the agent knows: whether it ended the container itself and
    /// whether the kernel ran out of the container's memory.
    pub fn new(
        record: Option<ExitRecord>,
        stopped: bool,
        oom_kills: u64,
        limit: Option<String>,
    ) -> Self {
        let (code, signal) = match record.map(|r| r.status) {
            Some(ExitStatus::Code(code)) => (Some(code), None),
            Some(ExitStatus::Signal(signal)) => (None, Some(signal)),
            None => (None, Some(libc::SIGKILL)),
        };
        let killed = signal == Some(libc::SIGKILL);
        let cause = match (
            stopped,
            oom_kills > 0 && (killed || code.is_some_and(|c| c != 0)),
        ) {
            (false, true) => match limit {
                Some(limit) => format!("out of memory (limit {limit})"),
                None => "out of memory".into(),
            },
            (true, _) => "stopped".into(),
            (false, false) => match (code, signal) {
                (Some(code), _) => format!("exited with code {code}"),
                (_, Some(signal)) => format!("ended by signal {signal}"),
                _ => "ended".into(),
            },
        };
        let at = record.map_or_else(std::time::SystemTime::now, |r| {
            std::time::UNIX_EPOCH + std::time::Duration::from_secs(r.at)
        });
        Self {
            code,
            signal,
            cause,
            at: crate::time::rfc3339(at),
        }
    }
}

/// Tells definitions apart that need containers of their own: all of it but limits, which change live. A hash
/// of the definition's JSON.
pub fn fingerprint(definition: &Definition) -> u64 {
    let mut bare = definition.clone();
    bare.limits = Limits::default();
    let text = serde_json::to_vec(&bare).unwrap_or_default();
    let mut hash = crate::fnv::Fnv::default();
    hash.add(&text);
    hash.value()
}

/// When a process began, clock ticks since boot; None if there is no such process.
pub fn start_time(pid: i32) -> Option<u64> {
    procfs::process::Process::new(pid)
        .ok()?
        .stat()
        .ok()
        .map(|stat| stat.starttime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes() {
        let killed = ExitRecord {
            status: ExitStatus::Signal(9),
            at: 1,
        };
        let fine = ExitRecord {
            status: ExitStatus::Code(0),
            at: 1,
        };
        for (record, stopped, ooms, cause) in [
            (Some(killed), false, 1, "out of memory (limit 64M)"),
            (Some(killed), false, 0, "ended by signal 9"),
            (Some(killed), true, 1, "stopped"),
            (Some(fine), false, 3, "exited with code 0"),
            (None, false, 0, "ended by signal 9"),
        ] {
            assert_eq!(
                LastExit::new(record, stopped, ooms, Some("64M".into())).cause,
                cause
            );
        }
    }

    #[test]
    fn this_process_has_begun() {
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        assert!(start_time(pid).is_some_and(|ticks| ticks > 0));
        assert_eq!(start_time(-1), None);
    }
}
