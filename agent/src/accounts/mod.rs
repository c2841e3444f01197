//! What everyone used: counters of living containers every few seconds, the last ones exactly at their end, and their
//! history.
//!
//! `sums` and `book` are the arithmetic, without clock or files. Records of ends go to the `journal` before the
//! container's cgroup is removed; the `keeper`, a thread that sleeps while no container lives, reads living containers
//! and brings everything into the `store`. `report` is what the API tells of it.

pub mod book;
pub mod busiest;
mod codec;
pub mod exposed;
mod journal;
mod keeper;
mod meter;
pub mod more;
mod private;
pub mod report;
mod round;
mod store;
pub mod sums;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::container::{Container, Record as ContainerRecord, Remains, Rest};
use book::{Life, Record};
use exposed::{Exposed, Snapshot};
use journal::Journal;
pub use meter::Watch;
use meter::{Look, Meter, Source};
pub use store::Line;
use store::Store;
use sums::{Field, Gauges, Reading, Sums};

/// How long an asker waits for what is known to be in the database.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// While the database takes nothing, no more records than this are kept for it.
const MOST_PENDING: usize = 200_000;

/// Requests for a vhost that are not accounted yet.
pub type Asked = Arc<AtomicU64>;

/// The accounts of this host.
#[derive(Debug)]
pub struct Accounts {
    shared: Arc<Shared>,
    /// Tells boots of the host apart.
    boot: u64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    work: Mutex<Work>,
    /// There is something to do.
    wake: Condvar,
    /// Something has been done.
    done: Condvar,
    journal: Mutex<Journal>,
    /// None until it has been opened: that is tried with each tick.
    store: Mutex<Option<Store>>,
    /// What an earlier agent left in the journal, until the database says what it has of it.
    found: Mutex<Vec<(u64, Record)>>,
    exposed: Mutex<Exposed>,
    path: PathBuf,
}

#[derive(Debug, Default)]
struct Work {
    /// Living containers by vhost.
    live: HashMap<Arc<str>, Arc<Meter>>,
    pending: Vec<Record>,
    /// The last number of the journal among `pending`.
    journaled: Option<u64>,
    /// Somebody waits until `pending` is in the database.
    flush: bool,
    /// How often it was begun to bring `pending` there.
    begun: u64,
    /// How many of these rounds are over, whatever came of them.
    over: u64,
    stop: bool,
}

impl Accounts {
    /// Opens the journal and starts the thread, which opens the database: that waits for a disk, and sites are served
    /// without accounts too.
    pub fn open(state_dir: &Path, run_dir: &Path, exposed: Exposed) -> Result<Self> {
        // Numbers that no earlier agent has given, whatever the clock does meanwhile.
        let first = (crate::time::unix_now() * 1e6) as u64;
        let (journal, found) = Journal::open(&run_dir.join("usage.journal"), first)?;
        let boot =
            std::fs::read("/proc/sys/kernel/random/boot_id").context("cannot tell boots apart")?;
        let shared = Arc::new(Shared {
            work: Mutex::default(),
            wake: Condvar::new(),
            done: Condvar::new(),
            journal: Mutex::new(journal),
            store: Mutex::default(),
            found: Mutex::new(found),
            exposed: Mutex::new(exposed),
            path: state_dir.join("usage.redb"),
        });
        let keeping = shared.clone();
        let thread = std::thread::Builder::new()
            .name("accounts".into())
            .spawn(move || keeper::run(&keeping))
            .context("cannot start the accounts' thread")?;
        Ok(Self {
            shared,
            boot: journal::checksum(&boot),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// From now on a container is looked at every few seconds, until [`Self::ended`]. `asked` counts the requests for it.
    pub fn begun(&self, container: &Arc<Container>, asked: Asked, watch: Watch) {
        let Some(life) = self.life(&container.group) else {
            return;
        };
        let meter = Meter::new(container, life, asked, watch);
        let mut work = self.shared.lock();
        let idle = work.is_idle();
        work.live.insert(container.vhost.clone(), Arc::new(meter));
        drop(work);
        if idle {
            self.shared.wake.notify_all();
        }
    }

    /// Takes the last counters of a container that has ended; its cgroup is still there. Written down when this returns.
    pub fn ended(&self, container: &Container, asked: &Asked) {
        let meter = self.shared.lock().live.remove(&container.vhost);
        let life = match &meter {
            // Not while it is being read: what was read before must not come after.
            Some(meter) => {
                meter.close();
                Some(meter.life)
            }
            None => self.life(&container.group),
        };
        let mut record = meter::read(&Source::of(container), life);
        record.gauges.private = meter.map_or(0, |meter| meter.private());
        record
            .more
            .set(Field::Dispatches, asked.swap(0, Ordering::Relaxed));
        self.note(record);
    }

    /// Accounts a start of which no container came; what it left is still there.
    pub fn failed(&self, vhost: &str, owner: &str, group: Option<&cgroup::Group>, asked: &Asked) {
        let mut record = match group {
            Some(group) => {
                let source = Source::new(vhost, owner, group);
                meter::read(&source, self.life(group))
            }
            None => blank(vhost, owner),
        };
        if record.life.is_some() {
            // With the life's other counters: told twice, it still counts once.
            record.reading.set(Field::Starts, Some(1));
            record.reading.set(Field::FailedStarts, Some(1));
        } else {
            record.more.set(Field::Starts, 1);
            record.more.set(Field::FailedStarts, 1);
        }
        record
            .more
            .set(Field::Dispatches, asked.swap(0, Ordering::Relaxed));
        self.note(record);
    }

    /// Accounts what an earlier agent left: its cgroup still has the counters. `ended` is when it ended (seconds since
    /// 1970), where that is known. Without a cgroup there is nothing that was not accounted before that was removed.
    pub fn left(
        &self,
        vhost: &str,
        remains: &Remains,
        known: Option<&ContainerRecord>,
        ended: Option<u64>,
    ) {
        let Some(group) = &remains.group else { return };
        let owner = group.path().first().map_or("", String::as_str);
        let mut source = Source::new(vhost, owner, group);
        let ready_at = known.map_or(0.0, |record| record.ready_at);
        source.awake_ms = (ready_at > 0.0).then(|| {
            let until = ended.map_or_else(crate::time::unix_now, |at| at as f64);
            let ago = meter::millis(crate::time::unix_now() - until);
            let rested = Rest::noted(group).until(crate::time::boot_millis().saturating_sub(ago));
            meter::millis(until - ready_at).saturating_sub(rested)
        });
        let mut record = meter::read(&source, self.life(group));
        record.reading.set(Field::Starts, Some(1));
        if source.awake_ms.is_none() {
            record.reading.set(Field::FailedStarts, Some(1));
        } else {
            record.phases = known.map(|record| meter::micros(&record.phases));
        }
        self.note(record);
    }

    fn life(&self, group: &cgroup::Group) -> Option<Life> {
        match group.id() {
            Ok(group) => Some(Life {
                boot: self.boot,
                group,
            }),
            Err(error) => {
                tracing::error!("its use is not accounted: {error}");
                None
            }
        }
    }

    /// Into the journal, and to the thread.
    fn note(&self, record: Record) {
        // Held until the record is queued: the queue has them in the order of their numbers.
        let mut journal = lock(&self.shared.journal);
        let number = journal.append(&record);
        let mut work = self.shared.lock();
        match number {
            Ok(number) => work.journaled = Some(number),
            Err(error) => tracing::error!("{}: {error:#}", record.vhost),
        }
        let idle = work.is_idle();
        work.push(record);
        drop(work);
        // Else it has a time at which it wakes: a stop does not pay for that.
        if idle {
            self.shared.wake.notify_all();
        }
    }

    /// The history of those that `wanted` says yes to, with all that has ended until now, and what those that live have done
    /// that would be read later otherwise. Blocks.
    pub fn read(
        &self,
        ring: usize,
        from: u32,
        wanted: &dyn Fn(&str, &str) -> bool,
    ) -> Result<Vec<Line>> {
        let living: Vec<Arc<Meter>> = {
            let work = self.shared.lock();
            let wanted = work
                .live
                .iter()
                .filter(|(vhost, meter)| wanted(vhost, &meter.owner));
            wanted.map(|(_, meter)| meter.clone()).collect()
        };
        for meter in living {
            meter.sample(Look::IfRanAtAll, |record| self.shared.lock().push(record));
        }
        self.flush();
        let store = lock(&self.shared.store);
        let store = store.as_ref().context("the database is not open")?;
        store.read(ring, from, wanted)
    }

    /// What monitoring is shown. As of the last round: nothing is read, and nobody waits for a disk.
    pub fn exposed(&self) -> Snapshot {
        let meters: Vec<Arc<Meter>> = self.shared.lock().live.values().cloned().collect();
        let living: Vec<_> = meters.iter().filter_map(|meter| meter.memory()).collect();
        lock(&self.shared.exposed).snapshot(&living)
    }

    fn flush(&self) {
        let mut work = self.shared.lock();
        let round = work.last_needed();
        if work.over >= round {
            return;
        }
        if work.begun < round {
            work.flush = true;
            self.shared.wake.notify_all();
        }
        let waited = self
            .shared
            .done
            .wait_timeout_while(work, FLUSH_LIMIT, |work| work.over < round && !work.stop);
        drop(waited);
    }

    /// Reads the living once more and brings everything into the database; there is nothing to account after that.
    pub fn close(&self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            // Err: it has panicked, and said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Accounts {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Work> {
        lock(&self.work)
    }

    /// Accounts records. A database that turns out to be damaged is put aside; the next one takes them.
    fn enter(&self, records: &[Record], journaled: Option<u64>) -> Result<()> {
        let mut slot = lock(&self.store);
        let result = self.enter_into(&mut slot, records, journaled);
        if let Err(error) = &result
            && slot.is_some()
            && store::is_damaged(error)
        {
            *slot = None;
            store::put_aside(&self.path, error)?;
        }
        result
    }

    fn enter_into(
        &self,
        slot: &mut Option<Store>,
        records: &[Record],
        journaled: Option<u64>,
    ) -> Result<()> {
        let store = match slot.as_mut() {
            Some(store) => store,
            None => slot.insert(Store::open(&self.path)?),
        };
        let mut found = lock(&self.found);
        if !found.is_empty() {
            let fresh = journal::after(found.clone(), store.journaled()?);
            let last = fresh.last().map(|(number, _)| *number);
            let fresh: Vec<Record> = fresh.into_iter().map(|(_, record)| record).collect();
            if last.is_some() {
                let new = store.enter(&fresh, last)?;
                self.count(&fresh, &new);
            }
            found.clear();
        }
        match records {
            [] => Ok(()),
            records => {
                let new = store.enter(records, journaled)?;
                self.count(records, &new);
                Ok(())
            }
        }
    }

    fn count(&self, records: &[Record], new: &[Sums]) {
        let now = crate::time::unix_now() as u64;
        lock(&self.exposed).count(records, new, now);
    }
}

impl Work {
    /// Whether the thread waits for ever.
    fn is_idle(&self) -> bool {
        self.live.is_empty() && self.pending.is_empty()
    }

    /// The round after which all that is known now has been brought to the database, or was tried to be. What is queued
    /// comes with the next round to begin: one under way has taken its records already. The first one opens the database.
    fn last_needed(&self) -> u64 {
        (self.begun + u64::from(!self.pending.is_empty())).max(1)
    }

    fn push(&mut self, record: Record) {
        if self.pending.len() < MOST_PENDING {
            self.pending.push(record);
        }
    }
}

fn blank(vhost: &str, owner: &str) -> Record {
    Record {
        vhost: vhost.to_owned(),
        owner: owner.to_owned(),
        at: crate::time::unix_now() as u64,
        life: None,
        reading: Reading::default(),
        more: Sums::default(),
        gauges: Gauges::default(),
        phases: None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
