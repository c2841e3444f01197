//! The book of one vhost of one owner: what was accounted last, the totals, and the stretches of time that are not over
//! yet. Pure: no clock, no files.
//!
//! All that comes in is absolute (the kernel's counters since the container's cgroup was made), and the book remembers
//! how far it has accounted them. So a sample may be lost, come twice, or be followed by another agent's: what is added
//! is always exactly what has not been added yet.

use serde::{Deserialize, Serialize};

use super::more::{More, Phases, Starts};
use super::sums::{Bucket, Gauges, Reading, Sums};

/// One history: stretches of `step` seconds, of which the last `keep` are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ring {
    /// Seconds of a stretch.
    pub step: u64,
    /// How many are kept.
    pub keep: u64,
}

/// 5 s for an hour, 1 min for two days, 1 h for 400 days.
pub const RINGS: [Ring; 3] = [
    Ring { step: 5, keep: 720 },
    Ring {
        step: 60,
        keep: 2 * 1440,
    },
    Ring {
        step: 3600,
        keep: 400 * 24,
    },
];

impl Ring {
    /// Number of the stretch that a time (seconds since 1970) lies in.
    pub fn number(self, seconds: u64) -> u32 {
        u32::try_from(seconds / self.step).unwrap_or(u32::MAX)
    }

    /// The oldest stretch that is still kept at a time.
    pub fn oldest(self, seconds: u64) -> u32 {
        self.number(seconds)
            .saturating_sub(u32::try_from(self.keep).unwrap_or(u32::MAX))
    }
}

/// Names a container's counters for good: the host's boot and the inode of its cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Life {
    /// Tells boots of the host apart.
    pub boot: u64,
    /// Tells cgroups of one boot apart.
    pub group: u64,
}

/// What is known at one moment about a container, or about a start that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The vhost.
    pub vhost: String,
    /// Its owner when the container started.
    pub owner: String,
    /// Seconds since 1970.
    pub at: u64,
    /// Whose counters `reading` are; without it there are none.
    pub life: Option<Life>,
    /// Counters since that life began.
    pub reading: Reading,
    /// What has happened since the last record, where nobody keeps an absolute count.
    pub more: Sums,
    /// Sizes at that moment.
    pub gauges: Gauges,
    /// How long its start took, if it came to listen.
    #[serde(skip)]
    pub phases: Option<Phases>,
}

/// How far a life has been accounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Accounted {
    life: Life,
    sums: Sums,
    memory_peak: u64,
    /// How long its start took is accounted.
    #[serde(skip)]
    timed: bool,
}

/// What a book has beside its first fields: whether the life's start is timed; of the total and of the open stretches.
pub type Later = (bool, More, [More; RINGS.len()]);

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// Kept when the container has ended: what is told twice about it adds nothing.
    accounted: Option<Accounted>,
    /// All there ever was.
    pub total: Bucket,
    /// Per ring, the stretch that is being filled.
    open: [Option<(u32, Bucket)>; RINGS.len()],
    /// When the last record came.
    pub last: u64,
}

/// A stretch that is over: number of its ring, number of the stretch, content.
pub type Closed = (usize, u32, Bucket);

/// What came of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// What it added.
    pub new: Sums,
    /// Stretches that are over by it.
    pub closed: Vec<Closed>,
}

impl Book {
    /// Accounts a record. The stretches that are over by it have to be merged into what is stored of the same stretch: a
    /// clock that goes back opens one again.
    pub fn enter(&mut self, record: &Record) -> Entered {
        let mut new = Bucket {
            sums: record.more,
            memory_peak: record.gauges.memory,
            pids: record.gauges.pids,
            more: More {
                memory: record.gauges.memory,
                private: record.gauges.private,
                starts: Starts::default(),
            },
        };
        if let Some(life) = record.life {
            let mut base = match self.accounted {
                Some(known) if known.life == life => known,
                _ => Accounted {
                    life,
                    sums: Sums::default(),
                    memory_peak: 0,
                    timed: false,
                },
            };
            new.sums.add(&record.reading.advance(&mut base.sums));
            // The kernel's peak is that of the whole life: it belongs here only if it has risen since.
            if record.gauges.memory_peak > base.memory_peak {
                base.memory_peak = record.gauges.memory_peak;
                new.memory_peak = new.memory_peak.max(record.gauges.memory_peak);
            }
            if let Some(phases) = record.phases.filter(|_| !base.timed) {
                new.more.starts = Starts::one(phases);
                base.timed = true;
            }
            self.accounted = Some(base);
        }
        self.total.merge(&new);
        self.last = record.at;
        let mut closed = Vec::new();
        for (index, ring) in RINGS.iter().enumerate() {
            let number = ring.number(record.at);
            match &mut self.open[index] {
                Some((open, bucket)) if *open == number => bucket.merge(&new),
                slot => closed.extend(
                    slot.replace((number, new))
                        .map(|(number, bucket)| (index, number, bucket)),
                ),
            }
        }
        Entered {
            new: new.sums,
            closed,
        }
    }

    pub(super) fn parts_of_later(&self) -> Later {
        let timed = self.accounted.is_some_and(|life| life.timed);
        let open = self
            .open
            .map(|open| open.map_or_else(More::default, |(_, bucket)| bucket.more));
        (timed, self.total.more, open)
    }

    pub(super) fn set_parts_of_later(&mut self, (timed, total, open): Later) {
        if let Some(life) = &mut self.accounted {
            life.timed = timed;
        }
        self.total.more = total;
        for (slot, more) in self.open.iter_mut().zip(open) {
            if let Some((_, bucket)) = slot {
                bucket.more = more;
            }
        }
    }

    /// The stretch of a ring that is being filled.
    pub fn open(&self, ring: usize) -> Option<(u32, Bucket)> {
        self.open.get(ring).copied().flatten()
    }
}
