//! What each operation costs on this machine: `cost [ROUNDS]`, as root. Works in a network namespace
//! of its own and leaves nothing behind.
#![allow(clippy::unwrap_used)]

use netns::{Destination, Host, HostConfig, Kind, Method, Namespace, Policy, Pool, PoolSize};
use netns::{Protocol, SlotSet};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn measure<T>(what: &str, rounds: usize, mut step: impl FnMut(usize) -> T) -> Vec<T> {
    let mut times = Vec::with_capacity(rounds);
    let mut results = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let start = Instant::now();
        let result = step(round);
        times.push(start.elapsed());
        results.push(result);
    }
    times.sort();
    let at = |share: f64| times[((rounds as f64 * share) as usize).min(rounds - 1)];
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    println!(
        "{what:<44} p50 {:9.1} us   p99 {:9.1} us",
        us(at(0.5)),
        us(at(0.99))
    );
    results
}

fn main() {
    let rounds = std::env::args()
        .nth(1)
        .map_or(10_000, |text| text.parse().unwrap());
    let outside = Namespace::create().unwrap();
    rustix::thread::move_into_link_name_space(outside.fd(), None).unwrap();
    let host =
        Arc::new(Host::new(HostConfig::with_subnet("10.88.0.0/16".parse().unwrap())).unwrap());
    let few = (rounds / 50).clamp(10, 200);

    let mut namespaces = measure("create", few, |_| Namespace::create().unwrap());
    measure("sysfs mount", few, |round| {
        namespaces[round].sysfs_mount().unwrap()
    });
    measure("attach", few, |round| {
        host.attach(&namespaces[round], round as u32 + 1).unwrap()
    });
    let to = Destination {
        protocol: Protocol::Tcp,
        address: Ipv4Addr::new(192, 0, 2, 1),
        port: 3306,
    };
    let policy = Policy {
        outbound: true,
        allow: [to].into(),
    };
    let address = |round: usize| host.address((round % few) as u32 + 1).unwrap();
    measure("allow", few, |round| {
        host.allow(address(round), &policy).unwrap()
    });
    measure("revoke", few, |round| host.revoke(address(round)).unwrap());

    let own: IpAddr = address(0).into();
    let one = namespaces.swap_remove(0);
    let _listener: std::net::TcpListener = one
        .listen_tcp((Ipv4Addr::UNSPECIFIED, 8080).into())
        .unwrap()
        .into();
    let unix = one
        .run(|| {
            use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
            let made = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None);
            let fd = made.expect("socket");
            let name = SocketAddrUnix::new_abstract_name(b"cost").expect("name");
            rustix::net::bind(&fd, &name).expect("bind");
            rustix::net::listen(&fd, 16).expect("listen");
            Ok(fd)
        })
        .unwrap();
    let diag = one.diag();
    for method in [Method::SockDiag, Method::ProcNet] {
        let name = |what: &str| format!("{what}, {method:?}");
        measure(&name("tcp listening"), rounds, |_| {
            assert!(diag.tcp_listening(method, own, 8080).unwrap());
        });
        measure(&name("tcp not listening"), rounds, |_| {
            assert!(!diag.tcp_listening(method, own, 81).unwrap());
        });
        measure(&name("tcp open, none"), rounds, |_| {
            assert_eq!(diag.tcp_open(method, 8080).unwrap(), 0);
        });
        measure(&name("unix listening"), rounds, |_| {
            assert!(diag.unix_listening(method, b"\0cost").unwrap());
        });
        measure(&name("unix open, none"), rounds, |_| {
            assert_eq!(diag.unix_open(method, b"\0cost").unwrap(), 0);
        });
    }
    let clients: Vec<_> = (0..200)
        .map(|_| TcpStream::connect((own, 8080)).unwrap())
        .collect();
    for method in [Method::SockDiag, Method::ProcNet] {
        measure(&format!("tcp open, 200, {method:?}"), rounds / 10, |_| {
            assert_eq!(diag.tcp_open(method, 8080).unwrap(), clients.len());
        });
    }
    measure("connected socket over lo", few, |_| {
        one.connect_tcp((Ipv4Addr::LOCALHOST, 8080).into(), Duration::from_secs(1))
            .unwrap()
    });
    measure("connect from the host over the veth", few, |_| {
        TcpStream::connect((own, 8080))
    });
    drop((unix, clients));
    measure("drop", few - 1, |_| drop(namespaces.pop()));

    let slots = Arc::new(SlotSet::new(host.config().subnet.last_slot()));
    assert!((1..=few as u32).all(|slot| slots.reserve(slot)));
    let size = PoolSize {
        private: 0,
        address: few,
    };
    let pool = Pool::new(Some(Arc::clone(&host)), slots, size, size).unwrap();
    while pool.ready() != size && pool.failure().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    measure("take from the pool", few / 2, |_| {
        pool.take(Kind::Address).unwrap()
    });
}
