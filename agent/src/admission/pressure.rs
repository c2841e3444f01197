//! Fewer places while more starts at a time only slow each other down. The kernel tells of it (PSI); without notices nothing
//! here runs.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use procfs::CurrentSI;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::platform::Platform;
use crate::psi;
use crate::seeing::host::Memory;

/// Shares of time, in hundredths of percent, in which something waited for a processor, and for memory.
const CPU: u64 = 5000;
const MEMORY: u64 = 1000;
/// The shortest that the kernel allows to whoever has no CAP_SYS_RESOURCE.
const WINDOW: Duration = Duration::from_secs(2);
/// So long after the last notice that counted there are more places again.
const QUIET: Duration = Duration::from_millis(2500);
/// For how long is looked whether the processors are busy.
const LOOK: Duration = Duration::from_millis(200);
/// Processors that are idle for this part of the time are not busy.
const IDLE: f64 = 0.1;

/// Attends to the host's pressure from now on.
pub(crate) fn attend(platform: &Arc<Platform>) {
    let [cpu, memory] = [("cpu", CPU), ("memory", MEMORY)].map(|(resource, share)| {
        psi::trigger(resource, share, WINDOW)
            .inspect_err(|error| {
                tracing::info!("starts are not slowed down under pressure: {error:#}");
            })
            .ok()
    });
    if cpu.is_some() || memory.is_some() {
        tokio::spawn(run(Arc::downgrade(platform), cpu, memory));
    }
}

async fn run(
    platform: Weak<Platform>,
    cpu: Option<AsyncFd<OwnedFd>>,
    memory: Option<AsyncFd<OwnedFd>>,
) {
    let mut quiet = None;
    loop {
        // With fewer places than processors a start that waits for a disk would leave one idle.
        let least = tokio::select! {
            heard = told(cpu.as_ref()) => match heard {
                true if are_busy().await => std::thread::available_parallelism().map_or(2, usize::from),
                true => continue,
                false => return,
            },
            heard = told(memory.as_ref()) => match heard {
                true => 1,
                false => return,
            },
            () = until(quiet) => usize::MAX,
        };
        let Some(platform) = platform.upgrade() else {
            return;
        };
        let admission = &platform.admission;
        let now = admission.standing();
        let places = match least {
            usize::MAX => now.places * 2,
            // The kernel also tells when a site is short of memory under a limit of its own.
            1 if !is_short(&platform) => continue,
            least => (now.places / 2).max(least).min(now.places),
        };
        admission.set_places(places);
        quiet = (places < now.most).then(|| Instant::now() + QUIET);
    }
}

/// Waits for a notice; for ever if there can be none. False: the runtime is shutting down.
async fn told(trigger: Option<&AsyncFd<OwnedFd>>) -> bool {
    let Some(trigger) = trigger else {
        return std::future::pending().await;
    };
    match trigger.ready(Interest::PRIORITY).await {
        Ok(mut ready) => {
            ready.clear_ready();
            true
        }
        Err(_) => false,
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

fn is_short(platform: &Platform) -> bool {
    let enough = platform.config.pressure.available.permyriad() as f64 / 100.0;
    Memory::now().available_percent() <= enough
}

/// Whether the processors have next to nothing left: processes under a quota of their own wait as well, whoever else runs.
async fn are_busy() -> bool {
    let before = times();
    tokio::time::sleep(LOOK).await;
    match (before, times()) {
        (Some(before), Some(after)) => {
            let all = after.0.saturating_sub(before.0);
            let idle = after.1.saturating_sub(before.1);
            all > 0 && (idle as f64) < IDLE * all as f64
        }
        _ => false,
    }
}

/// What the processors have spent since the host's start, and of that, idle.
fn times() -> Option<(u64, u64)> {
    let total = procfs::KernelStats::current().ok()?.total;
    let idle = total.idle + total.iowait.unwrap_or_default();
    let busy = total.user + total.nice + total.system;
    let others = [total.irq, total.softirq, total.steal];
    let others: u64 = others.into_iter().flatten().sum();
    Some((busy + others + idle, idle))
}
