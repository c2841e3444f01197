//! What is left behind: nothing.
#![allow(clippy::unwrap_used)]

mod common;

use common::{as_host, eventually, host, ip, open_files, run};
use netns::{Host, Kind, Method, Namespace, Policy, Pool, PoolSize, SlotSet, Slots};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// These tests count what the whole process holds, so they take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The namespaces that the kernel still knows beside the host: each attached one has a number there
/// until it is really gone.
fn namespaces() -> usize {
    run("ip netns list-id").lines().count()
}

fn one_round(host: &Host, slot: u32) {
    let namespace = Namespace::create().unwrap();
    let link = host.attach(&namespace, slot).unwrap();
    let policy = Policy {
        outbound: true,
        ..Policy::default()
    };
    host.allow(link.address, &policy).unwrap();
    let server = namespace.listen_tcp((link.address, 80).into()).unwrap();
    let sysfs = namespace.sysfs_mount().unwrap();
    let diag = namespace.diag();
    assert!(
        diag.tcp_listening(Method::SockDiag, link.address.into(), 80)
            .unwrap()
    );
    host.revoke(link.address).unwrap();
    drop((server, sysfs));
}

#[test]
fn a_thousand_namespaces_leave_nothing_behind() {
    let _turn = alone();
    as_host(|| {
        let host = host();
        one_round(&host, 1);
        eventually("the first is gone", || namespaces() == 0);
        let (files, threads) = (open_files(), threads());
        let (rules, routes) = (run("nft list ruleset"), run("ip route"));
        for round in 0..1000 / common::time_scale() {
            one_round(&host, 2 + round % 60_000);
        }
        eventually("all links are gone", || host.links().unwrap().is_empty());
        eventually("all namespaces are gone", || namespaces() == 0);
        assert_eq!((open_files(), self::threads()), (files, threads));
        assert_eq!((run("nft list ruleset"), run("ip route")), (rules, routes));
        assert!(host.policies().unwrap().is_empty());
    });
}

#[test]
fn to_be_told_of_data_holds_a_namespace_no_longer_than_that() {
    let _turn = alone();
    as_host(|| {
        let host = host();
        one_round(&host, 1);
        eventually("the first is gone", || namespaces() == 0);
        let files = open_files();
        for slot in 2..12 {
            let namespace = Namespace::create().unwrap();
            host.attach(&namespace, slot).unwrap();
            let arrivals = namespace.local_arrivals(80).unwrap();
            assert!(!arrivals.read().unwrap());
            drop(namespace);
            assert_eq!(namespaces(), 1, "it is held");
            drop(arrivals);
            eventually("it is gone", || namespaces() == 0);
        }
        assert_eq!(open_files(), files);
    });
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn a_failed_attach_leaves_nothing_behind() {
    let _turn = alone();
    as_host(|| {
        let host = host();
        let namespace = Namespace::create().unwrap();
        common::inside(&namespace, || {
            run("ip link add eth0 type veth peer name other")
        });
        let files = open_files();
        let error = host.attach(&namespace, 1).unwrap_err();
        assert!(error.to_string().contains("fc1"), "{error}");
        assert_eq!(host.links().unwrap(), []);
        assert!(!run("ip route").contains("fc1"));
        assert!(open_files() <= files);
    });
}

#[test]
fn a_pool_fills_gives_and_ends_cleanly() {
    let _turn = alone();
    as_host(|| {
        let host = Arc::new(host());
        drop(Namespace::create().unwrap().sysfs_mount().unwrap());
        let files = open_files();
        let slots = Arc::new(SlotSet::new(20));
        let size = PoolSize {
            private: 3,
            address: 4,
        };
        let pool = Pool::new(Some(Arc::clone(&host)), Arc::clone(&slots) as _, size, size).unwrap();
        eventually("full", || pool.ready() == size);
        assert_eq!(host.links().unwrap().len(), 4);
        let mut taken: Vec<_> = (0..5).map(|_| pool.take(Kind::Address).unwrap()).collect();
        taken.extend((0..5).map(|_| pool.take(Kind::Private).unwrap()));
        let mut numbers: Vec<_> = taken.iter().map(|taken| taken.slot).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 10);
        for taken in &taken[..5] {
            let link = taken.link.as_ref().unwrap();
            assert_eq!(
                (link.slot, link.address),
                (taken.slot, host.address(taken.slot).unwrap())
            );
            let server = taken
                .namespace
                .listen_tcp((link.address, 80).into())
                .unwrap();
            std::net::TcpStream::connect((link.address, 80)).unwrap();
            drop(server);
        }
        assert!(taken[5..].iter().all(|taken| taken.link.is_none()));
        eventually("full again", || pool.ready() == size);
        // 14 taken and 6 ready are all 20: the pool says so instead of failing in a loop.
        taken.extend((0..4).map(|_| pool.take(Kind::Private).unwrap()));
        eventually("no slot is left", || pool.failure().is_some());
        assert!(pool.failure().unwrap().contains("no free network slot"));
        for taken in taken {
            let slot = taken.slot;
            drop(taken);
            slots.give_back(slot);
        }
        drop(pool.take(Kind::Private));
        eventually("full once more", || pool.ready() == size);
        drop(pool);
        eventually("the links are gone", || host.links().unwrap().is_empty());
        assert_eq!(open_files(), files);
        // All but the one that was dropped above without giving its slot back.
        assert_eq!(std::iter::from_fn(|| slots.take()).count(), 19);
    });
}

#[test]
fn a_pool_grows_with_what_is_taken_and_shrinks_again() {
    let _turn = alone();
    as_host(|| {
        let slots = Arc::new(SlotSet::new(40));
        let [least, most] = [2, 6].map(|private| PoolSize {
            private,
            address: 0,
        });
        let pool = Pool::new(None, Arc::clone(&slots) as _, least, most).unwrap();
        eventually("full", || pool.ready() == least);
        let take = |count| {
            for _ in 0..count {
                let taken = pool.take(Kind::Private).unwrap();
                let slot = taken.slot;
                drop(taken);
                slots.give_back(slot);
            }
        };
        take(2);
        eventually("as many as were taken", || pool.ready().private == 2);
        take(9);
        eventually("no more than the most", || pool.ready() == most);
        eventually("nobody takes any", || pool.ready() == least);
        drop(pool);
        assert_eq!(std::iter::from_fn(|| slots.take()).count(), 40);
    });
}

#[test]
fn an_address_needs_a_host() {
    let slots: Arc<dyn Slots> = Arc::new(SlotSet::new(9));
    let size = PoolSize {
        private: 0,
        address: 1,
    };
    assert!(Pool::new(None, Arc::clone(&slots), size, size).is_err());
    let pool = Pool::new(None, slots, PoolSize::default(), PoolSize::default()).unwrap();
    assert!(pool.take(Kind::Address).is_err());
    assert!(pool.take(Kind::Private).unwrap().link.is_none());
}

#[test]
fn a_dropped_namespace_frees_its_address_for_the_next() {
    let _turn = alone();
    as_host(|| {
        let host = host();
        // The same slot at once, while the kernel still clears the last one away.
        for _ in 0..20 {
            let namespace = Namespace::create().unwrap();
            host.attach(&namespace, 7).unwrap();
            let server = namespace
                .listen_tcp("10.88.0.7:80".parse().unwrap())
                .unwrap();
            std::net::TcpStream::connect((ip("10.88.0.7"), 80)).unwrap();
            drop(server);
        }
    });
}
