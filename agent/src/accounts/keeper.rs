//! The thread that reads living containers and keeps the database.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::meter::{Look, Meter};
use super::private::Measurer;
use super::round::Owners;
use super::{Shared, lock};

/// How often living containers are read.
const TICK: Duration = Duration::from_secs(5);
/// So many files are read without a pause: a fraction of a millisecond.
const BATCH: usize = 48;
/// How long that takes for all of them, with the pauses.
const SPREAD: Duration = Duration::from_secs(4);

/// Whoever else wants to run goes first.
const NICE: i32 = 10;

/// Runs until it is told to stop. While no container lives and nothing is to be stored it waits for ever.
pub(super) fn run(shared: &Shared) {
    let mut next = Instant::now();
    let mut private = Measurer::default();
    let mut owners = Owners::default();
    store(shared);
    // Of this thread alone, and those it begins. Where it cannot be had, all goes on as well.
    let _ = rustix::process::setpriority_process(None, NICE);
    loop {
        match wait(shared, next) {
            Todo::Stop => {
                for meter in living(shared) {
                    sample(shared, &meter, Look::Always);
                }
                store(shared);
                return;
            }
            Todo::Flush => store(shared),
            Todo::Tick => {
                // Not when it ought to have been: a host that was suspended has nothing to make up for.
                next = Instant::now() + TICK;
                read_all(shared, &mut owners);
                store(shared);
                private.look(living(shared));
            }
        }
        // There may be no further tick, in which who has gone would be forgotten.
        if shared.lock().live.is_empty() {
            owners = Owners::default();
        }
    }
}

enum Todo {
    Stop,
    Flush,
    Tick,
}

fn wait(shared: &Shared, next: Instant) -> Todo {
    let mut work = shared.lock();
    loop {
        if work.stop {
            return Todo::Stop;
        }
        if work.flush {
            return Todo::Flush;
        }
        let left = next.saturating_duration_since(Instant::now());
        work = if work.is_idle() {
            let woken = shared.wake.wait(work);
            woken.unwrap_or_else(std::sync::PoisonError::into_inner)
        } else if left.is_zero() {
            return Todo::Tick;
        } else {
            let woken = shared.wake.wait_timeout(work, left);
            woken.unwrap_or_else(std::sync::PoisonError::into_inner).0
        };
    }
}

fn living(shared: &Shared) -> Vec<Arc<Meter>> {
    shared.lock().live.values().cloned().collect()
}

fn sample(shared: &Shared, meter: &Meter, look: Look) -> usize {
    meter.sample(look, |record| shared.lock().push(record))
}

/// Reads all that live, spread over most of a tick, so that it is nowhere felt.
fn read_all(shared: &Shared, owners: &mut Owners) {
    let begun = Instant::now();
    let living = living(shared);
    let share = SPREAD / u32::try_from(living.len().max(1)).unwrap_or(u32::MAX);
    let (mut passed, mut files) = (0, 0);
    for (owner, meters) in owners.sort(living) {
        let look = owners.look(&owner, &meters);
        files += 1;
        for meter in &meters {
            if files >= BATCH {
                files = 0;
                if !rest(shared, begun + share * passed) {
                    return;
                }
            }
            passed += 1;
            files += sample(shared, meter, look);
        }
    }
}

/// Pauses until `end`; what is asked for meanwhile is done at once. False if it is to stop.
fn rest(shared: &Shared, end: Instant) -> bool {
    let mut work = shared.lock();
    loop {
        if work.stop {
            return false;
        }
        if work.flush {
            drop(work);
            store(shared);
            work = shared.lock();
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        let woken = shared.wake.wait_timeout(work, left);
        work = woken.unwrap_or_else(std::sync::PoisonError::into_inner).0;
    }
}

/// Brings what has been read into the database. What it does not take is tried again with the next tick.
fn store(shared: &Shared) {
    let (records, journaled) = {
        let mut work = shared.lock();
        work.flush = false;
        work.begun += 1;
        (std::mem::take(&mut work.pending), work.journaled.take())
    };
    match shared.enter(&records, journaled) {
        Ok(()) => {
            if let Some(number) = journaled
                && let Err(error) = lock(&shared.journal).taken(number)
            {
                tracing::error!("{error:#}");
            }
        }
        Err(error) => {
            tracing::error!("cannot store what was used, it is tried again: {error:#}");
            let mut work = shared.lock();
            let later = std::mem::replace(&mut work.pending, records);
            for record in later {
                work.push(record);
            }
            work.journaled = work.journaled.or(journaled);
        }
    }
    let mut work = shared.lock();
    work.over = work.begun;
    drop(work);
    shared.done.notify_all();
}
