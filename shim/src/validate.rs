//! What a request may contain. The agent has checked its definitions already; this is the last look before
//! anything is done with the host's full power.

use std::os::fd::OwnedFd;

use shim::protocol::{Exec, Failure, Ids, LogRule, Program, Run, Start};

use crate::fds::Fds;
use crate::report::failure;

type Checked = Result<(), Failure>;

/// Longest path of a target or link.
const PATH: usize = 1024;

fn refuse(what: &str, value: &str) -> Failure {
    let shown: String = value.chars().take(200).collect();
    failure(&format!("accept {what}"), &shown, libc::EINVAL)
}

fn require(ok: bool, what: &str, value: &str) -> Checked {
    if ok { Ok(()) } else { Err(refuse(what, value)) }
}

/// Checks a start request with all that came with it. `later`: more is to come.
pub(crate) fn with_descriptors(
    request: &Start,
    fds: Vec<OwnedFd>,
    later: bool,
) -> Result<Fds, Failure> {
    start(request)?;
    let fds = Fds::sort(fds, &request.fds, request.mounts.len())?;
    fds.check_start(later)?;
    Ok(fds)
}

/// Checks what the process that becomes a command was given.
pub(crate) fn run(request: &Run, fds: Vec<OwnedFd>) -> Result<Fds, Failure> {
    require(
        is_name(&request.vhost, 255),
        "the vhost name",
        &request.vhost,
    )?;
    program(&request.program)?;
    Fds::check_run(&request.fds)?;
    Fds::sort(fds, &request.fds, 0)
}

/// Checks a start request.
fn start(s: &Start) -> Checked {
    require(is_name(&s.vhost, 255), "the vhost name", &s.vhost)?;
    require(is_name(&s.hostname, 64), "the host name", &s.hostname)?;
    program(&s.program)?;
    require(
        s.mounts.len() <= 48,
        "so many mounts",
        &s.mounts.len().to_string(),
    )?;
    require(
        s.symlinks.len() <= 128,
        "so many symbolic links",
        &s.symlinks.len().to_string(),
    )?;
    require(
        s.writable.len() <= 64,
        "so many writable directories",
        &s.writable.len().to_string(),
    )?;
    require(
        s.generated.len() <= 64,
        "so many generated files",
        &s.generated.len().to_string(),
    )?;
    // Whatever is there is covered by it in the end.
    let target = |what: &str, path: &str| {
        let first = path.split('/').next();
        require(!s.shared_sys || first != Some("sys"), what, path)?;
        target(what, path)
    };
    for m in &s.mounts {
        target("a mount target", &m.target)?;
    }
    for (path, mode) in &s.writable {
        target("a writable directory", path)?;
        require(mode & !0o1777 == 0, "a mode", &format!("{mode:o}"))?;
    }
    for f in &s.generated {
        target("a generated file", &f.target)?;
    }
    for (name, to) in &s.symlinks {
        target("a symbolic link", name)?;
        require(
            !to.is_empty() && to.len() <= PATH && no_nul(to),
            "a link's target",
            to,
        )?;
    }
    require(
        s.tmpfs_bytes >= 65_536,
        "a tmpfs size",
        &s.tmpfs_bytes.to_string(),
    )?;
    require(
        s.tmpfs_inodes >= 64,
        "a tmpfs inode count",
        &s.tmpfs_inodes.to_string(),
    )?;
    log_rule(&s.log)
}

/// Checks an exec request.
pub(crate) fn exec(e: &Exec) -> Checked {
    program(&e.program)
}

pub(crate) fn ids(i: &Ids) -> Checked {
    // Below one range lie the host's own users.
    let fits = i.base >= Ids::RANGE && i.base.checked_add(Ids::RANGE).is_some();
    require(fits, "an id range that begins at", &i.base.to_string())?;
    require(
        i.uid != 0 && i.uid != u32::MAX,
        "the uid",
        &i.uid.to_string(),
    )?;
    require(
        i.gid != 0 && i.gid != u32::MAX,
        "the gid",
        &i.gid.to_string(),
    )
}

fn program(program: &Program) -> Checked {
    let Program {
        ids: own,
        command,
        env,
        workdir,
        rlimits,
    } = program;
    ids(own)?;
    require(
        !command.is_empty() && command.len() <= 1024,
        "a command of so many words",
        &command.len().to_string(),
    )?;
    require(
        command.first().is_some_and(|c| !c.is_empty()),
        "an empty command",
        "",
    )?;
    for word in command {
        require(no_nul(word), "a NUL byte in the command", word)?;
    }
    require(
        env.len() <= 1024,
        "so many environment variables",
        &env.len().to_string(),
    )?;
    for (k, v) in env {
        require(
            !k.is_empty() && !k.contains('=') && no_nul(k) && no_nul(v),
            "an environment variable",
            k,
        )?;
    }
    require(
        workdir.starts_with('/') && workdir.len() <= PATH && no_nul(workdir),
        "the working directory",
        workdir,
    )?;
    require(
        rlimits.len() <= 32,
        "so many resource limits",
        &rlimits.len().to_string(),
    )?;
    for r in rlimits {
        let known = r.resource < 16 && r.soft <= r.hard;
        require(
            known,
            "a resource limit",
            &format!("{} = {}:{}", r.resource, r.soft, r.hard),
        )?;
    }
    Ok(())
}

fn log_rule(l: &LogRule) -> Checked {
    // The longest line must fit into one file.
    require(
        l.file_bytes >= 16_384,
        "a log file size",
        &l.file_bytes.to_string(),
    )?;
    require(
        (1..=1000).contains(&l.files),
        "a number of log files",
        &l.files.to_string(),
    )?;
    require(l.rate_bytes >= 1, "a log rate", &l.rate_bytes.to_string())?;
    require(
        l.burst_bytes >= 16_384,
        "a log burst",
        &l.burst_bytes.to_string(),
    )
}

fn no_nul(s: &str) -> bool {
    !s.contains('\0')
}

/// A name that can stand in a log line: no white space, no control characters.
fn is_name(s: &str, longest: usize) -> bool {
    !s.is_empty() && s.len() <= longest && s.chars().all(|c| !c.is_control() && !c.is_whitespace())
}

/// A path below the new root, each component an ordinary name, and none of those that init makes itself.
fn target(what: &str, path: &str) -> Checked {
    let ordinary = path.len() <= PATH
        && no_nul(path)
        && path
            .split('/')
            .all(|c| !c.is_empty() && c != "." && c != ".." && c.len() <= 255);
    let own = matches!(path.split('/').next(), Some("proc" | "dev"));
    require(ordinary && !own, what, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn targets() {
        for good in ["usr", "etc/passwd", "var/tmp", "...", "a b"] {
            assert!(target("t", good).is_ok(), "{good:?}");
        }
        for bad in [
            "", "/", "/usr", "usr/", "a//b", ".", "..", "a/../b", "a/.", "proc", "proc/1",
            "dev/null", "a\0b",
        ] {
            assert!(target("t", bad).is_err(), "{bad:?}");
        }
        assert!(target("t", &"a/".repeat(600)).is_err());
        assert!(target("t", &"a".repeat(256)).is_err());
    }

    #[test]
    fn ids_never_reach_the_host() {
        let try_ids = |base, uid, gid| {
            ids(&Ids {
                base,
                uid,
                gid,
                direct: false,
            })
            .is_ok()
        };
        assert!(try_ids(65_536, 1000, 1000));
        assert!(try_ids(1 << 20, 100_000, 33));
        assert!(!try_ids(0, 1000, 1000), "the host's own ids");
        assert!(!try_ids(65_535, 1000, 1000));
        assert!(!try_ids(u32::MAX - 65_535, 1000, 1000), "beyond the end");
        assert!(!try_ids(65_536, 0, 1000));
        assert!(!try_ids(65_536, 1000, 0));
        assert!(!try_ids(65_536, u32::MAX, 1000));
    }

    #[test]
    fn names_cannot_break_log_lines() {
        assert!(is_name("example.com", 255));
        for bad in ["", "a b", "a\nb", "a\u{7f}b", "a\u{a0}b"] {
            assert!(!is_name(bad, 255), "{bad:?}");
        }
        assert!(!is_name(&"a".repeat(65), 64));
    }
}
