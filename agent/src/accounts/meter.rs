//! Reading the counters of one container.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use super::book::{Life, Record};
use super::exposed::Name;
use super::sums::Field;
use super::{Asked, blank, lock, more};
use crate::container::{Container, Phases, Rest};

/// A container that has used no CPU time since it was read has not done anything else either, but for what the kernel
/// writes out for it later: it is read in full this often only.
const FULL_EVERY: u32 = 12;
/// So is one that has used less CPU time than this, in µs, since it was read, but this often: to read all of it takes a
/// tenth of a millisecond, and is to be little of what it accounts.
const LITTLE: u64 = 5_000;
const LITTLE_EVERY: u32 = 6;
/// One that rests, and has stayed where it is on the idle ladder with the same memory from one full reading to the next: this
/// often. There may be thousands of them. What comes for it over its link and does not wake it is accounted that late.
const CALM_EVERY: u32 = 120;

/// What a full reading takes: so many files, or what takes as long.
const FILES: usize = 12;

/// When a container is read in full: always; if it is due (it has been asked for, for example); or also if it has used
/// CPU time since it was, for which one file is read: enough to be worth it, or any, as somebody wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Always,
    IfRan,
    IfRanAtAll,
    IfDue,
}

/// A living container.
pub(super) struct Meter {
    /// Not kept alive by being accounted.
    container: Weak<Container>,
    pub(super) life: Life,
    /// Whose it is.
    pub(super) owner: Arc<str>,
    asked: Asked,
    /// Bytes at the last reading.
    memory: AtomicU64,
    /// Bytes that its processes had for themselves when that was measured last.
    private: AtomicU64,
    /// When that was begun last, and what it had used then.
    measured: Mutex<Option<(Instant, Option<u64>)>>,
    watch: Watch,
    state: Mutex<State>,
}

/// Told whenever a container is read in full, with the µs for which it was held back at its CPU
/// limit. Whether it has to be the next time, too.
pub type Watch = Box<dyn Fn(&Container, Option<u64>) -> bool + Send + Sync>;

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").field("life", &self.life).finish()
    }
}

#[derive(Debug, Default)]
struct State {
    /// It has ended, and its last counters have been taken.
    closed: bool,
    /// CPU time at the last full reading.
    cpu: Option<u64>,
    /// Where it was on the idle ladder then, and its bytes of memory.
    stood: Option<(Rest, u64)>,
    /// It rested then, as it had the time before, and has not moved since.
    calm: bool,
    /// Looks since then.
    looks: u32,
    /// It is to be read in full the next time, for its watch or because there is news of it.
    wanted: bool,
    /// It has used CPU time since, a little.
    ran: bool,
}

impl State {
    /// Whether it is to be read in full, whether it has done anything or not.
    fn is_due(&self, asked: bool) -> bool {
        asked || self.wanted || self.cpu.is_none() || self.looks >= self.every()
    }

    fn every(&self) -> u32 {
        match (self.ran, self.calm) {
            (true, _) => LITTLE_EVERY,
            (false, false) => FULL_EVERY,
            (false, true) => CALM_EVERY,
        }
    }

    /// Where it is on the ladder now, and whether its memory is being given back or about to be, which it has no part in.
    fn stands(&mut self, rest: Rest, leaving: bool) {
        let moved = self.stood.is_none_or(|(stood, _)| stood != rest);
        self.calm &= !moved && !leaving;
    }

    /// Whether it is to be read in full, as its CPU time is `now`.
    fn is_to_be_read(&mut self, now: Option<u64>, asked: bool) -> bool {
        self.ran |= now != self.cpu;
        let used = now.zip(self.cpu).map(|(now, then)| now.abs_diff(then));
        self.is_due(asked) || used.is_none_or(|used| used >= LITTLE)
    }

    /// It has been read in full.
    fn read(&mut self, cpu: Option<u64>, wanted: bool, stands: (Rest, u64)) {
        *self = Self {
            cpu,
            wanted,
            calm: stands.0.rests() && self.stood == Some(stands),
            stood: Some(stands),
            ..Self::default()
        };
    }
}

impl Meter {
    pub(super) fn new(container: &Arc<Container>, life: Life, asked: Asked, watch: Watch) -> Self {
        Self {
            container: Arc::downgrade(container),
            life,
            owner: container.record.owner.as_str().into(),
            asked,
            memory: AtomicU64::new(0),
            private: AtomicU64::new(0),
            measured: Mutex::default(),
            watch,
            state: Mutex::default(),
        }
    }

    /// Whose it is and how much memory it had when it was read last; None if it has ended.
    pub(super) fn memory(&self) -> Option<(Name, u64)> {
        let container = self.container.upgrade()?;
        let name = (container.vhost.clone(), self.owner.clone());
        Some((name, self.memory.load(Ordering::Relaxed)))
    }

    /// For how long its private memory has not been measured; None if that need not be done again: not yet, or not before
    /// it has done something. A container that has not been read yet is not old enough.
    pub(super) fn unmeasured(&self, every: Duration) -> Option<Duration> {
        let cpu = lock(&self.state).cpu?;
        match *lock(&self.measured) {
            None => Some(Duration::MAX),
            Some((_, then)) if then == Some(cpu) => None,
            Some((at, _)) => Some(at.elapsed()).filter(|age| *age >= every),
        }
    }

    /// The group of the container, whose private memory is measured from now on; None if it has ended.
    pub(super) fn begin_measuring(&self) -> Option<Arc<cgroup::Group>> {
        let state = lock(&self.state);
        let container = self.container.upgrade().filter(|_| !state.closed)?;
        *lock(&self.measured) = Some((Instant::now(), state.cpu));
        Some(container.group.clone())
    }

    /// What came of that.
    pub(super) fn set_private(&self, bytes: u64) {
        let before = self.private.swap(bytes, Ordering::Relaxed);
        let mut state = lock(&self.state);
        // Told with the next record, for which the others need not wait for long.
        state.wanted |= state.calm && before != bytes;
    }

    /// Private memory when it was measured last; 0 if it was not.
    pub(super) fn private(&self) -> u64 {
        self.private.load(Ordering::Relaxed)
    }

    /// From now on nothing is read any more; waits for a reading under way.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
    }

    /// The clock above its group; None where there is none, or it has ended.
    pub(super) fn clock_above(&self) -> Option<cgroup::CpuClock> {
        let container = self.container.upgrade()?;
        container.group.clock_above().ok().flatten()
    }

    /// Reads it and hands the record on, if it is to be read. Gives how many files that took, about.
    pub(super) fn sample(&self, look: Look, take: impl FnOnce(Record)) -> usize {
        let mut state = lock(&self.state);
        if state.closed {
            return 0;
        }
        if look != Look::IfRanAtAll {
            state.looks += 1;
        }
        let Some(container) = self.container.upgrade() else {
            return 0;
        };
        let rest = container.rest();
        state.stands(rest, container.is_giving_back());
        let asked = self.asked.load(Ordering::Relaxed) > 0;
        if look == Look::IfDue && !state.is_due(asked) {
            return 0;
        }
        if matches!(look, Look::IfRan | Look::IfRanAtAll) && !state.is_due(asked) {
            // An error: what there is to be read says more of it.
            let now = container.group.cpu_usec().unwrap_or_default();
            let older = now != state.cpu || state.looks >= FULL_EVERY;
            let at_all = look == Look::IfRanAtAll && older;
            if !at_all && !state.is_to_be_read(now, asked) {
                return 1;
            }
        }
        let mut record = read(&Source::of(&container), Some(self.life));
        record.gauges.private = self.private();
        let dispatches = self.asked.swap(0, Ordering::Relaxed);
        record.more.set(Field::Dispatches, dispatches);
        self.memory.store(record.gauges.memory, Ordering::Relaxed);
        let watched = (self.watch)(&container, record.reading.get(Field::Throttled));
        let stands = (rest, record.gauges.memory);
        state.read(record.reading.get(Field::Cpu), watched, stands);
        take(record);
        FILES
    }
}

/// What there is to be read.
pub(super) struct Source<'a> {
    vhost: &'a str,
    owner: &'a str,
    group: &'a cgroup::Group,
    network: Option<(u64, u64)>,
    /// For how long it has been listening, if it has been.
    pub(super) awake_ms: Option<u64>,
    starts: Option<u64>,
    phases: Option<more::Phases>,
}

impl<'a> Source<'a> {
    /// A cgroup of which nothing else is known.
    pub(super) fn new(vhost: &'a str, owner: &'a str, group: &'a cgroup::Group) -> Self {
        Self {
            vhost,
            owner,
            group,
            network: None,
            awake_ms: None,
            starts: None,
            phases: None,
        }
    }

    /// A container that listens or did.
    pub(super) fn of(container: &'a Container) -> Self {
        let record = &container.record;
        Self {
            network: container.network_bytes(),
            awake_ms: Some(awake(record.ready_at, container.rest())),
            starts: Some(1),
            phases: Some(micros(&record.phases)),
            ..Self::new(&container.vhost, &record.owner, &container.group)
        }
    }
}

/// Reads everything; what cannot be read stays unknown.
pub(super) fn read(source: &Source<'_>, life: Option<Life>) -> Record {
    let mut record = blank(source.vhost, source.owner);
    record.life = life;
    record.phases = source.phases;
    let (usage, error) = source.group.counters();
    if let Some(error) = error {
        tracing::debug!("{}: {error}", source.vhost);
    }
    for (field, value) in [
        (Field::Cpu, usage.cpu_usec),
        (Field::Throttled, usage.throttled_usec),
        (Field::IoRead, usage.io_read_bytes),
        (Field::IoWrite, usage.io_write_bytes),
        (Field::IoReads, usage.io_read_ops),
        (Field::IoWrites, usage.io_write_ops),
        (Field::NetRx, source.network.map(|(received, _)| received)),
        (Field::NetTx, source.network.map(|(_, sent)| sent)),
        (Field::OomKills, usage.oom_kills),
        (Field::Awake, source.awake_ms),
        (Field::Starts, source.starts),
    ] {
        record.reading.set(field, value);
    }
    record.gauges.memory = usage.memory_current.unwrap_or(0);
    record.gauges.memory_peak = usage.memory_peak.unwrap_or(0);
    record.gauges.pids = usage.pids_current.unwrap_or(0);
    record
}

/// Milliseconds since it began to listen, but for those in which it rested on the idle ladder.
fn awake(ready_at: f64, rest: Rest) -> u64 {
    let since = millis(crate::time::unix_now() - ready_at);
    since.saturating_sub(rest.until(crate::time::boot_millis()))
}

/// Seconds as whole milliseconds; a clock that went back makes it zero.
pub(super) fn millis(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e3) as u64
}

/// The parts of a start, in the order of [`more::PHASES`].
pub(super) fn micros(phases: &Phases) -> more::Phases {
    [
        phases.documents,
        phases.resources,
        phases.clone,
        phases.setup,
        phases.listen,
        phases.total,
    ]
    .map(|ms| (ms.max(0.0) * 1e3) as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::machine::Rung;

    /// What a container's CPU time is in each look, and whether it is read in full then.
    fn readings(looks: &[u64]) -> Vec<bool> {
        let looks: Vec<_> = looks.iter().map(|cpu| (*cpu, Rung::Running)).collect();
        readings_on(&looks)
    }

    /// The same of one that goes up and down the ladder.
    fn readings_on(looks: &[(u64, Rung)]) -> Vec<bool> {
        let mut state = State::default();
        let mut all = Vec::new();
        for (cpu, rung) in looks {
            let rest = Rest::on(*rung);
            state.looks += 1;
            state.stands(rest, false);
            let read = state.is_to_be_read(Some(*cpu), false);
            if read {
                state.read(Some(*cpu), false, (rest, 4096));
            }
            all.push(read);
        }
        all
    }

    #[test]
    fn whoever_does_much_is_read_at_once_and_the_others_in_time() {
        assert_eq!(readings(&[1, LITTLE, LITTLE + 1]), [true, false, true]);
        let read = |all: &[bool]| -> Vec<usize> {
            let all = all.iter().enumerate();
            all.filter_map(|(n, read)| read.then_some(n)).collect()
        };
        assert_eq!(read(&readings(&[7; 25])), [0, 12, 24]);
        let frozen = [(7, Rung::Frozen); 260];
        assert_eq!(read(&readings_on(&frozen)), [0, 12, 132, 252]);
        // Its memory is given back: read at once, and again when that is over.
        let mut reclaimed = frozen;
        reclaimed[60..].fill((7, Rung::Reclaimed));
        assert_eq!(read(&readings_on(&reclaimed)), [0, 12, 60, 72, 192]);
        let little: Vec<u64> = (0..14).collect();
        assert_eq!(read(&readings(&little)), [0, 6, 12]);
        // Once, and nothing after that; after a long rest it is read at once.
        assert_eq!(read(&readings(&[0, 1, 1, 1, 1, 1, 1, 1])), [0, 6]);
        assert_eq!(read(&readings(&[0, 0, 0, 0, 0, 0, 0, 1])), [0, 7]);
    }

    proptest! {
        /// Nothing is left unread for longer than `LITTLE_EVERY` looks, nor is more than a little of it.
        #[test]
        fn what_is_not_read_yet_is_little_and_new(
            used in proptest::collection::vec(prop_oneof![Just(0), 0..2 * LITTLE], 1..100),
            rung in prop_oneof![Just(Rung::Running), Just(Rung::Reclaimed)],
        ) {
            let mut sum = 0;
            let looks: Vec<u64> = used.iter().map(|used| { sum += used; sum }).collect();
            let (mut unread, mut since) = (0, 0);
            let looks: Vec<_> = looks.iter().map(|cpu| (*cpu, rung)).collect();
            for (used, read) in used.iter().zip(readings_on(&looks)) {
                unread = if read { 0 } else { unread + used };
                since = if unread == 0 { 0 } else { since + 1 };
                prop_assert!(unread < LITTLE && since < LITTLE_EVERY);
            }
        }
    }
}
