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

fn at_most(percent: u64) -> Bound {
    Bound {
        cpu: Some(percent * 100),
        memory: None,
    }
}

#[test]
fn a_budget_bounds_whoever_asks_and_however() {
    let mut ledger = host();
    ledger.bind("acme", at_most(50));
    ledger.admit("a", "acme", cpu(40)).unwrap();
    let why = ledger.admit("b", "acme", cpu(20)).unwrap_err();
    assert_eq!(
        why,
        "the CPU budget of acme is 50%, and its sites would be promised 40% + 20% = 60%, 10% too much"
    );
    // A definition by file has no more, and has it once the budget does.
    assert_eq!(
        ledger.place("b", "acme", cpu(20)).unkept.as_ref(),
        Some(&why)
    );
    assert_eq!(ledger.standing("acme").promise, cpu(40));
    assert_eq!(ledger.unkept(), [("b".into(), why)]);
    let change = ledger.bind("acme", at_most(60));
    assert!(change.owners.contains("acme") && ledger.unkept().is_empty());
    assert_eq!(ledger.standing("acme").promise, cpu(60));
    // Less than is promised is refused, with the arithmetic.
    let why = ledger.check_bound("acme", at_most(50)).unwrap_err();
    assert_eq!(
        why,
        "its sites are promised 60% CPU, 10% more than 50%; promise them less first"
    );
    // What all have holds for who has none of their own.
    let mut ledger = host();
    ledger.bind_all(at_most(10));
    ledger.bind("acme", Bound::default());
    assert!(ledger.admit("x", "bolt", cpu(11)).is_err());
    ledger.admit("a", "acme", cpu(11)).unwrap();
}

#[test]
fn a_site_that_changes_its_owner_takes_nothing_out_of_the_new_ones_sum() {
    let mut ledger = host();
    ledger.bind("bolt", at_most(50));
    ledger.admit("a", "acme", cpu(40)).unwrap();
    ledger.admit("x", "bolt", cpu(40)).unwrap();
    let why = ledger.admit("a", "bolt", cpu(40)).unwrap_err();
    assert!(why.contains("40% + 40% = 80%"), "{why}");
    assert!(ledger.place("a", "bolt", cpu(40)).unkept.is_some());
    assert_eq!(
        (
            ledger.standing("acme").promise,
            ledger.standing("bolt").promise
        ),
        (cpu(0), cpu(40))
    );
}

#[test]
fn what_is_given_up_for_a_time_keeps_its_room() {
    let mut ledger = host();
    ledger.admit("a", "acme", cpu(300)).unwrap();
    let less = Claim::from(cpu(20)).and_later(cpu(300));
    ledger.admit("a", "acme", less).unwrap();
    // It counts as what it is now, and the room is nobody else's.
    assert_eq!((ledger.kept("a"), ledger.sum()), (cpu(20), cpu(20)));
    assert_eq!(ledger.room(), cpu(300));
    assert!(ledger.admit("b", "beta", cpu(100)).is_err());
    assert!(ledger.check_bound("acme", at_most(100)).is_err());
    ledger.admit("b", "beta", cpu(60)).unwrap();
    assert!(ledger.place("a", "acme", cpu(300)).unkept.is_none());
    // Nothing now, and yet something later.
    let none = Claim::from(cpu(0)).and_later(cpu(300));
    ledger.place("a", "acme", none);
    assert!(!none.is_none() && ledger.kept("a").is_none());
    assert!(ledger.admit("b", "beta", cpu(61)).is_err());
    ledger.place("a", "acme", cpu(0));
    ledger.admit("b", "beta", cpu(360)).unwrap();
}

#[test]
fn a_change_that_fails_costs_nothing_however_many_wait() {
    let mut ledger = host();
    ledger.place("a", "acme", cpu(300));
    ledger.place("b", "beta", cpu(100));
    let both = |percent, gib| Promise {
        memory: memory(gib).memory,
        ..cpu(percent)
    };
    // Less of one, more of the other: of both there is room for what was and for what may be.
    ledger.admit("a", "acme", both(200, 7)).unwrap();
    assert_eq!((ledger.sum(), ledger.room()), (both(200, 7), both(300, 7)));
    assert!(ledger.kept("b").is_none() && ledger.admit("b", "beta", cpu(100)).is_err());
    // It has failed: so nobody else has got anything.
    assert!(ledger.place("a", "acme", cpu(300)).unkept.is_none());
    assert_eq!((ledger.kept("a"), ledger.room()), (cpu(300), cpu(300)));
    // It is sure: so what was given up is there for who waits.
    ledger.admit("a", "acme", cpu(0)).unwrap();
    assert!(ledger.kept("b").is_none());
    ledger.place("a", "acme", cpu(0));
    assert_eq!(ledger.kept("b"), cpu(100));
    // What was never kept holds no room.
    ledger.place("a", "acme", cpu(300));
    ledger.admit("a", "acme", cpu(200)).unwrap();
    assert_eq!(ledger.room(), cpu(300));
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    /// By a file.
    Placed,
    /// By a change, which succeeds.
    Sure,
    /// By a change that fails afterwards.
    Failed,
}

/// One step: a site asks for something now and for something later, or an owner has another budget.
#[derive(Debug, Clone)]
enum Step {
    Claim {
        site: usize,
        owner: usize,
        now: Promise,
        later: Promise,
        how: How,
    },
    Bind(usize, Bound),
}

fn promise() -> impl Strategy<Value = Promise> {
    (0..30_000u64, 0..6 * GIB).prop_map(|(cpu, memory)| Promise {
        cpu: if cpu < 5_000 { 0 } else { cpu },
        memory: if memory < GIB { 0 } else { memory },
    })
}

fn step() -> impl Strategy<Value = Step> {
    let later = prop_oneof![2 => Just(Promise::default()), 1 => promise()];
    let how = prop_oneof![Just(How::Placed), Just(How::Sure), Just(How::Failed)];
    let claim = (0..8usize, 0..3usize, promise(), later, how);
    let bound = (prop::option::of(0..30_000u64), prop::option::of(0..6 * GIB));
    prop_oneof![
        5 => claim.prop_map(|(site, owner, now, later, how)| Step::Claim { site, owner, now, later, how }),
        1 => (0..3usize, bound).prop_map(|(owner, (cpu, memory))| Step::Bind(owner, Bound { cpu, memory })),
    ]
}

fn sum(all: impl Iterator<Item = Promise>) -> Promise {
    all.fold(Promise::default(), |sum, one| Promise {
        cpu: sum.cpu + one.cpu,
        memory: sum.memory + one.memory,
    })
}

fn within(sum: Promise, bound: Bound) -> bool {
    bound.cpu.is_none_or(|most| sum.cpu <= most)
        && bound.memory.is_none_or(|most| sum.memory <= most)
}

proptest! {
    /// Sums kept step by step are those of what is kept, never more than there is or than an owner's budget, and weights give
    /// everybody their due.
    #[test]
    fn no_sequence_promises_too_much(steps in prop::collection::vec(step(), 1..60)) {
        let mut ledger = host();
        let offer = ledger.offer();
        let room = Bound { cpu: Some(offer.cpu - offer.cpu_reserve), memory: Some(offer.memory - offer.memory_reserve) };
        let mut asked = [(0, Claim::default()); 8];
        let mut bounds = [Bound::default(); 3];
        for step in steps {
            let before = (ledger.sum(), ledger.room());
            match step {
                Step::Claim { site, owner, now, later, how } => {
                    let claim = Claim::from(now).and_later(later);
                    let (name, of) = (format!("s{site}"), format!("o{owner}"));
                    let (old_owner, old) = asked[site];
                    let had = ledger.unkept().iter().all(|(site, _)| **site != name);
                    let refused = how != How::Placed && ledger.admit(&name, &of, claim).is_err();
                    if refused {
                        prop_assert_eq!((ledger.sum(), ledger.room()), before);
                    } else if how == How::Failed {
                        prop_assert!(within(ledger.room(), room));
                        let unkept = ledger.place(&name, &format!("o{old_owner}"), old).unkept;
                        prop_assert!(!had || owner != old_owner || unkept.is_none(), "{unkept:?}");
                    } else {
                        let unkept = ledger.place(&name, &of, claim).unkept;
                        prop_assert!(how == How::Placed || unkept.is_none(), "{unkept:?}");
                        asked[site] = (owner, claim);
                    }
                }
                Step::Bind(owner, bound) => {
                    let name = format!("o{owner}");
                    // As owners do it: a budget below what is promised is refused.
                    if ledger.check_bound(&name, bound).is_ok() {
                        ledger.bind(&name, bound);
                        bounds[owner] = bound;
                    }
                }
            }
            let unkept: Vec<String> = ledger.unkept().iter().map(|(site, _)| site.to_string()).collect();
            let kept = |owner: Option<usize>| {
                let all = asked.iter().enumerate().filter(|(n, _)| !unkept.contains(&format!("s{n}")));
                let all = all.filter(move |(_, (of, _))| owner.is_none_or(|owner| *of == owner));
                all.map(|(_, (_, claim))| *claim).collect::<Vec<_>>()
            };
            let now = |owner| sum(kept(owner).into_iter().map(|claim| claim.promise));
            let later = |owner| sum(kept(owner).into_iter().map(|claim| claim.room));
            prop_assert_eq!(ledger.sum(), now(None));
            prop_assert_eq!(ledger.room(), later(None));
            prop_assert_eq!(sum((0..8).map(|n| ledger.kept(&format!("s{n}")))), now(None));
            prop_assert!(within(later(None), room));
            let standings: Vec<Standing> = (0..3).map(|n| ledger.standing(&format!("o{n}"))).collect();
            let weights: u64 = standings.iter().map(|s| s.weight).sum();
            for (owner, s) in standings.into_iter().enumerate() {
                prop_assert_eq!(s.promise, now(Some(owner)));
                prop_assert!(within(later(Some(owner)), bounds[owner]), "o{} has {:?} of {:?}", owner, later(Some(owner)), bounds[owner]);
                prop_assert!(s.weight * offer.cpu >= s.promise.cpu * weights.min(10_000));
            }
            // What is not kept has no room.
            for (_, why) in ledger.unkept() {
                prop_assert!(!why.is_empty());
            }
            // What comes back from a time is never refused.
            for (n, (owner, claim)) in asked.iter().enumerate() {
                let name = format!("s{n}");
                if !unkept.contains(&name) {
                    prop_assert_eq!(ledger.check(&name, &format!("o{owner}"), claim.room.into()), Ok(()));
                }
            }
        }
    }
}
