//! Looks at what the sites of one owner use, and lends among them. There is one only while there is somebody to lend to;
//! it looks seldom while the owner's sites are idle together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lend::{Demand, loans};
use super::model::WHOLE;
use super::{Owner, State};

/// While something is lent or wanted: what a site that wakes waits for at most, before the kernel's own period.
const BUSY: Duration = Duration::from_millis(40);
/// While all are idle.
const IDLE: Duration = Duration::from_millis(250);

/// Lends until there is nobody to lend to.
pub(super) async fn run(owner: Arc<Owner>) {
    let born = Instant::now();
    let mut last = None;
    let mut pause = BUSY;
    loop {
        tokio::time::sleep(pause).await;
        let mut state = owner.lock();
        if !state.lends() {
            state.tended = false;
            return;
        }
        let now = micros(born.elapsed());
        pause = match state.is_quiet(now, &mut last) {
            true => IDLE,
            false => state.lend(now, &owner.name),
        };
    }
}

impl State {
    /// Nothing is lent, and together they have used less lately than would bring the least of them near its part.
    fn is_quiet(&self, now: u64, last: &mut Option<(u64, u64)>) -> bool {
        let Some(used) = self.used() else {
            return false;
        };
        let before = last.replace((now, used));
        if self.live.values().any(|live| live.lent > 0) {
            return false;
        }
        let parts = self.live.keys().filter_map(|name| self.part(name));
        let least = parts.map(|part| part.guarantee).min().unwrap_or(0);
        before.is_some_and(|(at, before)| {
            used.saturating_sub(before) * WHOLE / now.saturating_sub(at).max(1) < least / 2
        })
    }

    /// Measures, lends, takes back; says when to look again.
    fn lend(&mut self, now: u64, owner: &str) -> Duration {
        let budget = self.account.cpu().unwrap_or(0);
        for live in self.live.values_mut() {
            // Gone since: its group's removal is about to be told.
            let Ok(usage) = live.group.cpu_usage() else {
                continue;
            };
            let quota = live.quota().unwrap_or(budget);
            let (used, throttled) = (usage.cpu_usec.unwrap_or(0), usage.nr_throttled.unwrap_or(0));
            live.meter.note(now, used, throttled, quota);
        }
        let demands: Vec<Demand> = self
            .live
            .iter()
            .filter_map(|(name, live)| {
                let part = self.part(name)?;
                Some(Demand {
                    guarantee: part.guarantee,
                    weight: part.weight,
                    most: live.own_quota().unwrap_or(budget).min(budget),
                    wants: live.meter.wants(now),
                })
            })
            .collect();
        let lent = loans(budget, &demands);
        // Less than half a percent of a core is not worth a write, unless it is all that was lent.
        for (live, lent) in self.live.values_mut().zip(lent) {
            if lent.abs_diff(live.lent) >= 50 || lent == 0 {
                live.lent = lent;
            }
        }
        if let Err(error) = self.rebalance(|_, _| true) {
            tracing::error!("owner {owner}: cannot lend: {error:#}");
        }
        BUSY
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
