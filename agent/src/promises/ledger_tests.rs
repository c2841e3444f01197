#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::claim::*;
use super::ledger::*;

const GIB: u64 = 1 << 30;

fn host() -> Ledger {
    Ledger::new(Offer {
        cpu: 40_000,
        cpu_reserve: 4_000,
        memory: 8 * GIB,
        memory_reserve: GIB,
        guarantees_memory: true,
    })
}

fn cpu(percent: u64) -> Promise {
    Promise {
        cpu: percent * 100,
        memory: 0,
    }
}

fn memory(gib: u64) -> Promise {
    Promise {
        cpu: 0,
        memory: gib * GIB,
    }
}

#[test]
fn what_is_too_much_is_refused_with_the_arithmetic() {
    let mut ledger = host();
    ledger.admit("a", "acme", cpu(200)).unwrap();
    ledger.admit("b", "beta", cpu(150)).unwrap();
    let before = (ledger.sum(), ledger.sites());
    assert_eq!(
        ledger.admit("c", "acme", cpu(20)).unwrap_err(),
        "more CPU would be promised than this host has: 350% promised to others + 20% = 370%, and there are 400% - 40% \
         reserve = 360%, 10% too much; promise less, or lower [reserve]"
    );
    assert_eq!((ledger.sum(), ledger.sites()), before);
    // Its own old promise is not in the way of its new one.
    ledger.admit("a", "acme", cpu(210)).unwrap();
    let error = ledger.admit("m", "acme", memory(8)).unwrap_err();
    assert!(
        error.contains("8G - 1G reserve = 7G, 1G too much"),
        "{error}"
    );
}

#[test]
fn what_does_not_fit_at_the_start_is_kept_once_there_is_room() {
    let mut ledger = host();
    ledger.place("a", "acme", cpu(300));
    let change = ledger.place("b", "beta", cpu(100));
    assert!(change.unkept.is_some() && !change.all);
    assert!(ledger.kept("b").is_none());
    assert_eq!(ledger.unkept().len(), 1);
    let change = ledger.place("a", "acme", cpu(100));
    assert!(change.owners.contains("beta"));
    assert_eq!((ledger.kept("b"), ledger.unkept().len()), (cpu(100), 0));
}

#[test]
fn the_first_and_the_last_concern_everybody() {
    let mut ledger = host();
    assert!(!ledger.standing("acme").contended);
    assert!(!ledger.place("m", "acme", memory(1)).all);
    assert!(ledger.place("a", "acme", cpu(100)).all);
    assert!(!ledger.place("b", "beta", cpu(100)).all);
    assert_eq!(ledger.standing("acme").weight, 2_500);
    assert_eq!(ledger.standing("other").weight, 0);
    assert!(!ledger.place("a", "acme", Promise::default()).all);
    assert!(ledger.place("b", "beta", Promise::default()).all);
    assert!(!ledger.standing("acme").contended);
}

#[test]
fn where_the_kernel_cannot_keep_memory_none_is_promised() {
    let mut ledger = Ledger::new(Offer {
        guarantees_memory: false,
        ..host().offer()
    });
    let error = ledger.admit("a", "acme", memory(1)).unwrap_err();
    assert!(error.contains("cgroup v1"), "{error}");
    ledger.admit("a", "acme", cpu(10)).unwrap();
}

proptest! {
    /// Sums kept step by step are those of what is kept, never more than there is, and weights give everybody their due.
    #[test]
    fn no_sequence_promises_too_much(
        steps in proptest::collection::vec((0..8usize, 0..3usize, 0..30_000u64, 0..6 * GIB, any::<bool>()), 1..60),
    ) {
        let mut ledger = host();
        let offer = ledger.offer();
        for (site, owner, cpu, memory, strict) in steps {
            let (site, owner) = (format!("s{site}"), format!("o{owner}"));
            let promise = Promise { cpu: if cpu < 5_000 { 0 } else { cpu }, memory: if memory < GIB { 0 } else { memory } };
            let before = ledger.sum();
            if strict {
                if ledger.admit(&site, &owner, promise).is_err() {
                    prop_assert_eq!(ledger.sum(), before);
                }
            } else {
                ledger.place(&site, &owner, promise);
            }
            let kept = (0..8).map(|n| ledger.kept(&format!("s{n}")));
            let sums = kept.fold((0, 0), |sum, p| (sum.0 + p.cpu, sum.1 + p.memory));
            prop_assert_eq!((ledger.sum().cpu, ledger.sum().memory), sums);
            prop_assert!(sums.0 <= offer.cpu - offer.cpu_reserve && sums.1 <= offer.memory - offer.memory_reserve);
            let standings: Vec<Standing> = (0..3).map(|n| ledger.standing(&format!("o{n}"))).collect();
            prop_assert_eq!(standings.iter().map(|s| s.promise.cpu).sum::<u64>(), sums.0);
            let weights: u64 = standings.iter().map(|s| s.weight).sum();
            for s in standings {
                prop_assert!(s.weight * offer.cpu >= s.promise.cpu * weights.min(10_000));
            }
            // What is not kept has no room.
            for (_, why) in ledger.unkept() {
                prop_assert!(!why.is_empty());
            }
        }
    }
}
