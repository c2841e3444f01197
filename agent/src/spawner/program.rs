//! The spawner's program as it was when the agent began, so that both are of one version and understand each other: an upgrade
//! puts another file in its place before the agent is restarted.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};

/// The first descriptor that the spawner is not given.
const FREE: i32 = 5;

/// See the module.
pub(super) struct Program {
    path: PathBuf,
    file: OwnedFd,
}

impl Program {
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::empty())
            .and_then(|file| rustix::io::fcntl_dupfd_cloexec(file, FREE))
            .with_context(|| cannot_start(&path))?;
        Ok(Self { path, file })
    }

    /// Executes it.
    pub(super) fn command(&self) -> Command {
        Command::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// What to say where that fails.
    pub(super) fn cannot_start(&self) -> String {
        cannot_start(&self.path)
    }
}

fn cannot_start(path: &Path) -> String {
    let path = path.display();
    format!("cannot start the spawner {path}; is fastcontainer-shim installed there?")
}
