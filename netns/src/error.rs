//! One error type: what was tried, on what, the errno, and what to do.

use std::io;

/// The result of every fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call or a netlink request was refused.
    #[error("{action} {object}: {source}{hint}", hint = hint(source))]
    Os {
        /// What was tried, for example `create veth`.
        action: &'static str,
        /// On what, for example `fc1a`.
        object: String,
        /// The errno.
        source: io::Error,
    },
    /// `nft` could not be run or did not accept the rules.
    #[error("load nftables table {table}: {reason}")]
    Nft {
        /// The table.
        table: String,
        /// What `nft` said.
        reason: String,
    },
    /// The kernel answered with something that is not what its interface promises.
    #[error("{action}: the kernel's answer was not understood: {detail}")]
    Answer {
        /// What was asked.
        action: &'static str,
        /// What is wrong with the answer.
        detail: String,
    },
    /// The kernel has no token bucket filter.
    #[error(
        "limit traffic {0}: this kernel has no token bucket filter; load the module sch_tbf, or use no limit"
    )]
    NoShaper(String),
    /// A value given by the caller cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// No free slot: as many containers as the subnet or the pool's owner allows.
    #[error("no free network slot: raise the number of slots or use a larger subnet")]
    NoSlot,
    /// A thread of this crate ended in the middle of a job.
    #[error("{action}: the namespace thread ended unexpectedly")]
    Thread {
        /// What was being done.
        action: &'static str,
    },
}

impl Error {
    pub(crate) fn os(
        action: &'static str,
        object: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Os {
            action,
            object: object.into(),
            source: source.into(),
        }
    }

    /// The errno, where there is one.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Os { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    pub(crate) fn is(&self, errno: rustix::io::Errno) -> bool {
        self.raw_os_error() == Some(errno.raw_os_error())
    }
}

fn hint(source: &io::Error) -> &'static str {
    match source
        .raw_os_error()
        .map(rustix::io::Errno::from_raw_os_error)
    {
        Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
            " (needs root with CAP_NET_ADMIN and CAP_SYS_ADMIN)"
        }
        Some(rustix::io::Errno::MFILE) => " (raise LimitNOFILE)",
        _ => "",
    }
}
