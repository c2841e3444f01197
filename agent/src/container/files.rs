//! What init writes on the host: the exit file and the logs.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, Gid, Uid};
use shim::protocol::Ids;

use crate::platform::Platform;

/// Makes the vhost's own directory below the run directory.
pub(super) fn site_directory(platform: &Platform, vhost: &str) -> Result<()> {
    directory(&platform.site_dir(vhost), 0o755)
}

fn directory(path: &Path, mode: u32) -> Result<()> {
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot make {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The files on the host that init writes.
pub(super) struct Files {
    pub(super) exit: std::fs::File,
    pub(super) logs: OwnedFd,
}

impl Files {
    pub(super) fn make(platform: &Platform, vhost: &str, ids: Ids) -> Result<Self> {
        let path = platform.exit_path(vhost);
        crate::persist::remove(&path)?;
        let exit = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        let logs = platform.log_dir(vhost);
        directory(&logs, 0o700)?;
        // The directory and what is in it belong to the container's uid 0 while it runs: init rotates them. The
        // tenant has no way there, as it is not mounted inside.
        let owner = (Some(Uid::from_raw(ids.base)), Some(Gid::from_raw(ids.base)));
        let flags = rustix::fs::OFlags::DIRECTORY
            | rustix::fs::OFlags::NOFOLLOW
            | rustix::fs::OFlags::CLOEXEC;
        let opened = rustix::fs::open(&logs, flags, rustix::fs::Mode::empty())
            .with_context(|| format!("cannot open {}", logs.display()))?;
        let now = rustix::fs::fstat(&opened).context("cannot look at the log directory")?;
        if (now.st_uid, now.st_gid) != (ids.base, ids.base) {
            for entry in rustix::fs::Dir::read_from(&opened)? {
                let entry = entry?;
                if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    rustix::fs::chownat(
                        &opened,
                        entry.file_name(),
                        owner.0,
                        owner.1,
                        AtFlags::SYMLINK_NOFOLLOW,
                    )?;
                }
            }
            // Last: it says that all of it is init's.
            rustix::fs::fchown(&opened, owner.0, owner.1)
                .context("cannot give the log directory to init")?;
        }
        Ok(Self { exit, logs: opened })
    }
}
