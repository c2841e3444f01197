//! Memory pressure of the host: the kernel says when there is too much (PSI triggers), and then sites go down the ladder.
//!
//! Nothing here looks by itself: without pressure no event comes. While there is pressure, one comes per window; after each,
//! so much is given back that the next one need not come.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::order::{Candidate, Step, order};
use crate::config::agent::Pressure;
use crate::config::definition::IdleAction;
use crate::machine::Rung;
use crate::platform::Platform;
use crate::psi;
use crate::seeing::host::Memory;
use crate::site::Site;

/// The part of the host's memory that is to be given back after one event.
const PART: u64 = 50;
/// Whoever was used so recently is in use. Longer than a request takes from its dispatch to its connection.
pub(crate) const QUIET: Duration = Duration::from_secs(5);

/// After that time nobody else is asked: what the kernel says next is newer than the order they are asked in.
const PASS: Duration = Duration::from_secs(5);

/// How scarce memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Idle sites are frozen and give their memory back.
    Reclaim,
    /// Sites that have, or that cannot for want of swap, are stopped.
    Stop,
}

impl Level {
    /// Sites that go down after one event, at most. Who is stopped is missed by the next one who asks for it.
    fn most(self) -> usize {
        match self {
            Self::Reclaim => 64,
            Self::Stop => 8,
        }
    }
}

/// Attends to the host's memory pressure from now on, as configured.
pub(super) fn attend(platform: &Arc<Platform>) {
    let Pressure {
        reclaim,
        stop,
        window,
        available: _,
    } = platform.config.pressure;
    for (level, share) in [(Level::Reclaim, reclaim), (Level::Stop, stop)] {
        if share.permyriad() == 0 {
            continue;
        }
        let window = window.finite().unwrap_or_default();
        match psi::trigger("memory", share.permyriad(), window) {
            Ok(trigger) => {
                tokio::spawn(run(Arc::downgrade(platform), trigger, level));
            }
            Err(error) => {
                tracing::warn!("sites on the idle ladder go down by time only: {error:#}")
            }
        }
    }
}

async fn run(platform: Weak<Platform>, trigger: AsyncFd<OwnedFd>, level: Level) {
    loop {
        match trigger.ready(Interest::PRIORITY).await {
            Ok(mut ready) => ready.clear_ready(),
            // The runtime is shutting down.
            Err(_) => return,
        }
        let Some(platform) = platform.upgrade() else {
            return;
        };
        relieve(&platform, level).await;
    }
}

/// Takes as many sites one step down as it takes to give a part of the host's memory back.
async fn relieve(platform: &Arc<Platform>, level: Level) {
    let (began, memory) = (Instant::now(), Memory::now());
    let least = platform.config.pressure.available.permyriad() as f64 / 100.0;
    // The kernel also tells when a site is short of memory under a limit of its own. That is nobody else's concern.
    if memory.available_percent() > least {
        return;
    }
    let goal = memory.total_bytes / PART;
    let swap = super::has_swap();
    let sites = platform.live.sites();
    let (mut given, mut gone) = (0u64, 0);
    if swap {
        // Who has been asked already need not be joined by others.
        for site in &sites {
            given = given.saturating_add(site.leaving());
            if given >= goal {
                return;
            }
        }
    }
    let candidates: Vec<_> = sites
        .iter()
        .filter_map(|site| Some((site, candidate(site, level, swap)?)))
        .collect();
    let (sites, candidates): (Vec<_>, Vec<_>) = candidates.into_iter().unzip();
    for place in order(&candidates).into_iter().take(4 * level.most()) {
        if given >= goal || gone >= level.most() || began.elapsed() > PASS {
            break;
        }
        if let Some(bytes) = sites[place].relieve(level, swap).await {
            given = given.saturating_add(bytes);
            gone += 1;
        }
    }
    if gone > 0 {
        tracing::info!(
            "memory pressure: {gone} sites went down the ladder ({level:?}), of {given} bytes"
        );
    }
}

/// What a site is for this level; None if it is not on the ladder, or promised its memory whatever others need.
fn candidate(site: &Arc<Site>, level: Level, swap: bool) -> Option<Candidate<Arc<str>, Instant>> {
    let rung = site.state().rung()?;
    let promised = site.platform.promises.of(&site.name).memory > 0;
    if promised || site.definition().idle.action != IdleAction::Ladder {
        return None;
    }
    let used = site.last_request();
    let step = match (level, rung) {
        (Level::Reclaim, Rung::Running | Rung::Frozen)
        | (Level::Stop, Rung::Frozen | Rung::Reclaimed)
            if site.is_excused(level, swap) =>
        {
            Step::Cannot
        }
        (Level::Reclaim, Rung::Running) if used.elapsed() < QUIET => Step::Cannot,
        (Level::Reclaim, Rung::Running) => Step::Can,
        (Level::Reclaim, Rung::Frozen) if swap => Step::Can,
        (Level::Reclaim, Rung::Frozen | Rung::Reclaimed) => Step::Gone,
        (Level::Stop, Rung::Reclaimed) => Step::Can,
        (Level::Stop, Rung::Frozen) if !swap => Step::Can,
        (Level::Stop, _) => Step::Cannot,
    };
    Some(Candidate {
        owner: site.owner(),
        used,
        step,
    })
}
