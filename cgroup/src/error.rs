//! What can go wrong, each with what was tried, on what, and what to do.

use crate::hierarchy::Controller;
use std::io;
use std::time::Duration;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("cannot {action} {path}: {source}{}", hint_suffix(.hint))]
    Sys {
        /// The verb, such as "write 100 to".
        action: String,
        /// The file or directory.
        path: String,
        /// What the kernel answered.
        source: io::Error,
        /// What to do about it; may be empty.
        hint: &'static str,
    },
    /// The host has no usable control groups.
    #[error("no cgroup file system is mounted; mount cgroup2 on /sys/fs/cgroup")]
    NoCgroups,
    /// A name that cannot be a control group.
    #[error("{name:?} cannot be the name of a cgroup: {why}")]
    InvalidName {
        /// The name as it was given.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// A limit needs a controller that this host does not offer here.
    #[error("cannot set {limit} of {group}: {why}")]
    Unsupported {
        /// The group.
        group: String,
        /// The limit, by its cgroup v2 name.
        limit: &'static str,
        /// The controller that would be needed.
        controller: Controller,
        /// What is missing and what to do.
        why: String,
    },
    /// A value that must not be set, found before anything was written.
    #[error("cannot set {limit} of {group} to {value}: {why}")]
    Refused {
        /// The group.
        group: String,
        /// The limit, by its cgroup v2 name.
        limit: &'static str,
        /// The value as text.
        value: String,
        /// Why, and what to do.
        why: String,
    },
    /// The kernel took a value and shows another one.
    #[error("{limit} of {group} was set to {wanted}, but {got} is in force")]
    NotInForce {
        /// The group.
        group: String,
        /// The limit, by its cgroup v2 name.
        limit: &'static str,
        /// What was written, after the rounding the kernel is known to do.
        wanted: String,
        /// What was read back.
        got: String,
    },
    /// A kernel file does not look as expected.
    #[error("cannot understand {path}: {text:?}")]
    Parse {
        /// The file.
        path: String,
        /// Its beginning.
        text: String,
    },
    /// Something did not happen in time.
    #[error("{group} is not {state} after {waited:?}{detail}")]
    Timeout {
        /// The group.
        group: String,
        /// What was waited for.
        state: &'static str,
        /// For how long.
        waited: Duration,
        /// More about it, beginning with a separator; may be empty.
        detail: String,
    },
    /// A path is not on a block device that can be limited.
    #[error("{path} has no block device to limit: {why}")]
    NoBlockDevice {
        /// What was asked about.
        path: String,
        /// Why.
        why: String,
    },
    /// The first failure, and what then failed while it was being undone; or all failures of a teardown.
    #[error("{}", join(.0))]
    Several(Vec<Error>),
}

impl Error {
    pub(crate) fn sys(
        action: impl Into<String>,
        path: impl Into<String>,
        errno: rustix::io::Errno,
    ) -> Self {
        Self::Sys {
            action: action.into(),
            path: path.into(),
            source: errno.into(),
            hint: "",
        }
    }

    pub(crate) fn with_hint(mut self, text: &'static str) -> Self {
        if let Self::Sys { hint, .. } = &mut self {
            *hint = text;
        }
        self
    }

    /// The kernel's error number, where one is behind this error.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Sys { source, .. } => source.raw_os_error(),
            Self::Several(all) => all.first().and_then(Error::raw_os_error),
            _ => None,
        }
    }

    /// Nothing, the one error, or all of them as one.
    pub(crate) fn from_all(mut all: Vec<Error>) -> Result<(), Error> {
        match all.len() {
            0 => Ok(()),
            1 => Err(all.remove(0)),
            _ => Err(Self::Several(all)),
        }
    }

    /// This error followed by those met while undoing.
    pub(crate) fn and(self, mut others: Vec<Error>) -> Error {
        if others.is_empty() {
            return self;
        }
        others.insert(0, self);
        Error::Several(others)
    }
}

fn hint_suffix(hint: &str) -> String {
    if hint.is_empty() {
        String::new()
    } else {
        format!("; {hint}")
    }
}

fn join(all: &[Error]) -> String {
    all.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; also: ")
}
