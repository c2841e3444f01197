//! Data for a container is told while it is watched; nothing but data is.
#![allow(clippy::unwrap_used)]

mod common;

use common::{PATIENCE, as_host, eventually, host, ip};
use netns::{Host, Method, Namespace};
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;

/// A namespace with a server that reads nothing, and a connection to it.
fn connected(host: &Host, slot: u32) -> (Namespace, OwnedFd, TcpStream) {
    let namespace = Namespace::create().unwrap();
    let link = host.attach(&namespace, slot).unwrap();
    let server = namespace
        .listen_tcp("0.0.0.0:8080".parse().unwrap())
        .unwrap();
    let stream = TcpStream::connect((link.address, 8080)).unwrap();
    stream.set_nodelay(true).unwrap();
    (namespace, server, stream)
}

#[test]
fn data_is_told_while_it_is_watched_and_a_connection_alone_is_not() {
    as_host(|| {
        let host = host();
        let arrivals = host.arrivals().unwrap();
        let (namespace, _server, mut stream) = connected(&host, 1);
        let address = ip("10.88.0.1");
        let unread = || {
            [Method::SockDiag, Method::ProcNet]
                .map(|m| namespace.diag().tcp_unread(m, 8080).unwrap())
        };
        let told = || -> Vec<Ipv4Addr> { arrivals.read().unwrap().addresses };
        stream.write_all(b"not watched yet").unwrap();
        eventually("it is there", || unread() == [1, 1]);
        assert!(told().is_empty());
        for _ in 0..100 {
            host.watch(address).unwrap();
            // Being watched already is no error.
            host.watch(address).unwrap();
            // A connection, and the end of one.
            drop(TcpStream::connect((address, 8080)).unwrap());
            assert!(told().is_empty());
            // Sent when what was sent before has been acknowledged, which takes a moment.
            stream.write_all(b"x").unwrap();
            eventually("it is told", || told() == [address]);
            host.unwatch(address).unwrap();
            host.unwatch(address).unwrap();
        }
        stream.write_all(b"x").unwrap();
        // The end of a connection is nothing to read.
        assert_eq!(unread(), [1, 1]);
        std::thread::sleep(PATIENCE);
        assert!(told().is_empty());
    });
}

#[test]
fn the_next_agent_is_told() {
    as_host(|| {
        let first = host();
        let (_namespace, _server, mut stream) = connected(&first, 1);
        let address = ip("10.88.0.1");
        first.watch(address).unwrap();
        drop(first);
        let second = host();
        second.watch(address).unwrap();
        stream.write_all(b"x").unwrap();
        assert_eq!(
            second.arrivals().unwrap().read().unwrap().addresses,
            [address]
        );
    });
}

#[test]
fn one_who_sends_without_a_pause_is_told_of_in_parts() {
    as_host(|| {
        let host = host();
        let (namespace, _server, stream) = connected(&host, 1);
        let address = ip("10.88.0.1");
        host.watch(address).unwrap();
        let another = || TcpStream::connect((address, 8080)).unwrap();
        let streams: Vec<_> = (0..99).map(|_| another()).chain([stream]).collect();
        for round in 1..5 {
            for mut stream in &streams {
                stream.write_all(b"x").unwrap();
            }
            eventually("all has come and is acknowledged", || {
                std::thread::sleep(std::time::Duration::from_millis(50));
                round == 4 || namespace.diag().tcp_unread(Method::SockDiag, 8080).unwrap() == 100
            });
        }
        let arrivals = host.arrivals().unwrap();
        let first = arrivals.read().unwrap();
        assert_eq!((first.addresses, first.more), (vec![address], true));
        // Attended to after the first part.
        host.unwatch(address).unwrap();
        for _ in 0..3 {
            let _ = arrivals.read().unwrap();
        }
        assert_eq!(arrivals.read().unwrap(), netns::Told::default());
    });
}
