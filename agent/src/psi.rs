//! Notices of the kernel that too much time is spent waiting for a resource (pressure stall information).

use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// Readable as "priority", once per `window`, while in more than `permyriad` of the time something waited for `resource`.
pub(crate) fn trigger(
    resource: &str,
    permyriad: u64,
    window: Duration,
) -> Result<AsyncFd<OwnedFd>> {
    let path = format!("/proc/pressure/{resource}");
    let window = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
    let stall = (window.saturating_mul(permyriad) / 10_000).max(1);
    let mut file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {path}"))?;
    // The kernel wants it with its end.
    let text = format!("some {stall} {window}\0");
    file.write_all(text.as_bytes())
        .with_context(|| format!("cannot write {:?} to {path}", text.trim_end_matches('\0')))?;
    sys::watch_for(file.into(), Interest::PRIORITY).with_context(|| format!("cannot watch {path}"))
}
