//! The arithmetic against a model, and the database against crashes.
#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::book::{Book, Life, RINGS, Record};
use super::exposed::Exposed;
use super::store::Store;
use super::sums::{Bucket, Field, Gauges, Reading, Sums};
use super::{Accounts, lock};

/// A record of vhost `v` whose life is numbered by `group` and has used `cpu` µs so far.
pub(super) fn record(vhost: &str, group: u64, cpu: u64) -> Record {
    let mut reading = Reading::default();
    reading.set(Field::Cpu, Some(cpu));
    Record {
        vhost: vhost.into(),
        owner: "acme".into(),
        at: 1_800_000_000,
        life: Some(Life { boot: 1, group }),
        reading,
        more: Sums::default(),
        gauges: Gauges::default(),
        phases: None,
    }
}

fn cpu(bucket: &Bucket) -> u64 {
    bucket.sums.get(Field::Cpu)
}

#[test]
fn only_what_is_new_is_added() {
    let mut book = Book::default();
    for (group, used, total) in [
        (1, 10, 10),
        (1, 25, 25),
        (1, 25, 25),
        (1, 20, 25),
        (1, 30, 30),
        (2, 5, 35),
    ] {
        book.enter(&record("v", group, used));
        assert_eq!(cpu(&book.total), total, "life {group} at {used}");
    }
    // What is not known this time is not lost.
    book.enter(&Record {
        reading: Reading::default(),
        ..record("v", 2, 0)
    });
    book.enter(&record("v", 2, 9));
    assert_eq!(cpu(&book.total), 39);
}

#[test]
fn a_peak_belongs_to_the_stretch_in_which_it_was_reached() {
    let mut book = Book::default();
    let at = |at, memory, memory_peak| Record {
        at,
        gauges: Gauges {
            memory,
            memory_peak,
            pids: 1,
            private: 0,
        },
        ..record("v", 1, 0)
    };
    book.enter(&at(5_000, 10, 90));
    let closed = book.enter(&at(5_005, 20, 90)).closed;
    assert_eq!(
        closed
            .iter()
            .map(|c| (c.0, c.2.memory_peak))
            .collect::<Vec<_>>(),
        [(0, 90)]
    );
    assert_eq!(book.open(0).unwrap().1.memory_peak, 20);
    assert_eq!(book.open(1).unwrap().1.memory_peak, 90);
}

/// What happens to a host with one vhost.
#[derive(Debug, Clone)]
enum Step {
    /// The container uses so much and time passes, both seen by nobody.
    Use(u64, u64),
    /// It is sampled and that is stored.
    Sample,
    /// It is sampled and the agent dies before that is stored.
    LostSample,
    /// It ends; its last record is told so many times (an agent that dies in the middle is followed by one that reads
    /// the same cgroup again).
    End(u8),
    /// The clock goes back.
    Back(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..1_000_000u64, 0..5_000u64).prop_map(|(used, time)| Step::Use(used, time)),
        4 => Just(Step::Sample),
        1 => Just(Step::LostSample),
        2 => (1..4u8).prop_map(Step::End),
        1 => (0..7_000u64).prop_map(Step::Back),
    ]
}

proptest! {
    #[test]
    fn sums_are_what_was_used_whatever_happens(steps in proptest::collection::vec(step(), 1..80)) {
        let mut book = Book::default();
        let mut stored: [std::collections::BTreeMap<u32, Bucket>; RINGS.len()] = Default::default();
        let (mut group, mut used, mut sum, mut now) = (1, 0, 0, 1_800_000_000);
        let mut enter = |group, used, now| {
            let closed = book.enter(&Record { at: now, ..record("v", group, used) }).closed;
            for (ring, number, bucket) in closed {
                stored[ring].entry(number).or_default().merge(&bucket);
            }
        };
        for step in steps.iter().chain([&Step::End(1)]) {
            match step {
                Step::Use(more, time) => {
                    used += more;
                    now += time;
                }
                Step::Sample => enter(group, used, now),
                Step::LostSample => {}
                Step::End(told) => {
                    (0..*told).for_each(|_| enter(group, used, now));
                    sum += used;
                    (group, used) = (group + 1, 0);
                }
                Step::Back(time) => now -= time,
            }
        }
        prop_assert_eq!(cpu(&book.total), sum);
        for (ring, rows) in stored.iter().enumerate() {
            let open = book.open(ring).unwrap().1;
            let all: u64 = rows.values().map(cpu).sum::<u64>() + cpu(&open);
            prop_assert_eq!(all, sum, "ring {}", ring);
        }
    }
}

#[test]
fn the_database_keeps_what_it_took_and_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("usage.redb");
    let all = |store: &Store, ring| {
        let lines = store.read(ring, 0, &|_, owner| owner == "acme").unwrap();
        lines.into_iter().find(|line| line.vhost == "v").unwrap()
    };
    let mut used = 0;
    let mut now = 1_800_000_000;
    for _ in 0..4 {
        let mut store = Store::open(&path).unwrap();
        let records: Vec<Record> = (0..400)
            .map(|_| {
                (used, now) = (used + 7, now + 5);
                Record {
                    at: now,
                    ..record("v", 1, used)
                }
            })
            .collect();
        store.enter(&records, Some(now)).unwrap();
        assert_eq!(store.journaled().unwrap(), now);
        assert_eq!(cpu(&all(&store, 0).total), used);
        for ring in [1, 2] {
            let line = all(&store, ring);
            assert_eq!(line.series.iter().map(|(_, b)| cpu(b)).sum::<u64>(), used);
        }
    }
    // 1600 stretches of 5 s have been, of which an hour is kept, and the one that is being filled.
    let mut store = Store::open(&path).unwrap();
    assert_eq!(all(&store, 0).series.len(), 720 + 1);
    // Others' records are what drops those of a vhost that sleeps.
    for _ in 0..2 {
        now += 401 * 86_400;
        store
            .enter(
                &[Record {
                    at: now,
                    ..record("w", 1, 1)
                }],
                None,
            )
            .unwrap();
    }
    store
        .enter(
            &[Record {
                at: now,
                ..record("w", 1, 1)
            }],
            None,
        )
        .unwrap();
    let names: Vec<String> = store
        .read(2, 0, &|_, _| true)
        .unwrap()
        .into_iter()
        .map(|l| l.vhost)
        .collect();
    assert_eq!(names, ["w"]);
}

#[test]
fn a_database_that_cannot_be_read_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("usage.redb");
    for content in [&b"not a database, but longer than a head"[..], &[0; 8192]] {
        std::fs::write(&path, content).unwrap();
        let mut store = Store::open(&path).unwrap();
        store.enter(&[record("v", 1, 5)], Some(1)).unwrap();
        assert_eq!(cpu(&store.read(0, 0, &|_, _| true).unwrap()[0].total), 5);
        drop(store);
        std::fs::remove_file(&path).unwrap();
    }
    let kept = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(kept, 2, "both are still there for whoever wants to look");
}

#[test]
fn who_asks_is_told_what_was_noted_while_the_database_was_busy() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = Accounts::open(dir.path(), dir.path(), Exposed::new(1, 1)).unwrap();
    accounts.flush();
    let round = |of: &dyn Fn(&super::Work) -> bool| {
        while !of(&accounts.shared.lock()) {
            std::thread::yield_now();
        }
    };
    // The database is held: the round that takes the first record does not get on.
    let held = lock(&accounts.shared.store);
    let before = accounts.shared.lock().over;
    accounts.note(record("v", 1, 10));
    accounts.shared.lock().flush = true;
    accounts.shared.wake.notify_all();
    round(&|work| work.begun > before && work.pending.is_empty());
    std::thread::scope(|scope| {
        let read = |cpu_at_least: u64| {
            let lines = accounts.read(0, 0, &|_, _| true).unwrap();
            assert!(lines[0].total.sums.get(Field::Cpu) >= cpu_at_least);
        };
        // Nothing is queued, and yet it is not there.
        let first = scope.spawn(move || read(10));
        // And what is queued now is not in the round under way.
        accounts.note(record("v", 1, 30));
        let second = scope.spawn(move || read(30));
        round(&|work| work.flush);
        drop(held);
        first.join().unwrap();
        second.join().unwrap();
    });
}
