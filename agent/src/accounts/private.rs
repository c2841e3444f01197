//! Measuring the private memory of living containers, a few at a time. It walks the page tables of tenants' processes and
//! takes a lock of theirs, so it is a thread's of its own, which nobody waits for: one that hangs is given up.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::meter::Meter;
use crate::seeing::private::of_group;

/// A container that does something is measured this often.
const EVERY: Duration = Duration::from_secs(60);
/// Processes that are looked at between two ticks, and of one container: well below a percent of one CPU.
const PROCESSES: usize = 128;
const OF_ONE: usize = 32;
/// Between two containers: a tick is long enough for all, and nobody who wants the processor waits for all of them.
const PAUSE: Duration = Duration::from_millis(25);
/// A thread that takes longer hangs, and another is begun; so many may hang.
const PATIENCE: Duration = Duration::from_secs(60);
const MOST_HANGING: usize = 4;

/// The threads.
#[derive(Debug, Default)]
pub(super) struct Measurer {
    under_way: Vec<(Instant, JoinHandle<()>)>,
}

impl Measurer {
    /// Begins to measure those that were not measured for longest; they tell with their next records.
    pub(super) fn look(&mut self, meters: Vec<Arc<Meter>>) {
        self.under_way.retain(|(_, thread)| !thread.is_finished());
        let busy = self.under_way.iter().any(|(at, _)| at.elapsed() < PATIENCE);
        if busy || self.under_way.len() >= MOST_HANGING {
            return;
        }
        let due = meters.into_iter().filter_map(|meter| {
            let age = meter.unmeasured(EVERY)?;
            Some((age, meter))
        });
        let mut due: Vec<(Duration, Arc<Meter>)> = due.collect();
        if due.is_empty() {
            return;
        }
        // No more than can be measured in a tick.
        due.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
        due.truncate(PROCESSES);
        let thread = std::thread::Builder::new()
            .name("private-memory".into())
            .spawn(move || measure(due.into_iter().map(|(_, meter)| meter)));
        match thread {
            Ok(thread) => self.under_way.push((Instant::now(), thread)),
            Err(error) => tracing::error!("private memory is not measured: {error}"),
        }
    }
}

fn measure(meters: impl Iterator<Item = Arc<Meter>>) {
    let mut left = PROCESSES;
    for meter in meters {
        let Some(group) = meter.begin_measuring() else {
            continue;
        };
        let (bytes, looked) = of_group(&group, OF_ONE);
        if let Some(bytes) = bytes {
            meter.set_private(bytes);
        }
        left = left.saturating_sub(looked.max(1));
        if left == 0 {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}
