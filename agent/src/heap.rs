//! Gives back to the kernel what the allocator keeps after many requests or ends at once. Most of that is free, but lies in
//! pieces between what lives on, and glibc gives back by itself only what is at the end of a heap.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use procfs::process::Process;

use crate::platform::Platform;
use crate::sys;

/// How often is looked.
const LOOK: Duration = Duration::from_secs(30);
/// Bytes kept in vain that are worth it, beyond those that the last time could not give back.
const WORTH: u64 = 4 << 20;
/// Not while starts are under way, whose threads would have to wait for a millisecond.
const CALM: Duration = Duration::from_millis(100);

/// Looks from now on.
pub(crate) fn attend(platform: &Arc<Platform>) {
    tokio::spawn(run(Arc::downgrade(platform)));
}

async fn run(platform: Weak<Platform>) {
    let ended = async {
        let mut least = in_vain()?;
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(platform) = platform.upgrade() else {
                return Ok(());
            };
            // Not by a thread that requests need: the allocator goes through all that is free.
            let now = tokio::task::spawn_blocking(in_vain).await??;
            least = least.min(now);
            if now < least + WORTH {
                continue;
            }
            // Elapsed: starts without a pause; then beside them.
            let _ = tokio::time::timeout(LOOK, platform.admission.quiet(CALM)).await;
            let began = Instant::now();
            tokio::task::spawn_blocking(sys::trim_heap).await?;
            let took = began.elapsed();
            least = tokio::task::spawn_blocking(in_vain).await??;
            tracing::debug!("{now} bytes kept in vain, {least} after {took:?}");
        }
    };
    let ended: Result<()> = ended.await;
    if let Err(error) = ended {
        tracing::warn!("memory that the agent does not use is not given back: {error:#}");
    }
}

/// Bytes in memory that no file is behind and nothing is allocated in: free ones, and stacks.
fn in_vain() -> Result<u64> {
    let read = || -> procfs::ProcResult<u64> {
        let pages = Process::myself()?.statm()?;
        Ok(pages.resident.saturating_sub(pages.shared) * procfs::page_size())
    };
    let own = read().context("cannot read /proc/self/statm")?;
    Ok(own.saturating_sub(sys::allocated() as u64))
}
