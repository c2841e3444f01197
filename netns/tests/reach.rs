//! What a container cannot reach: other containers, the host, by any address or source.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/world.rs"]
mod world;

use common::{PATIENCE, as_host, ask, datagram_arrives, inside, ip, listener, run};
use netns::{Policy, Protocol};
use std::net::{TcpStream, UdpSocket};
use world::{HOST_OUTSIDE, OUTSIDE, allowing, asks, outbound, serve_peer, service_on_host, world};

#[test]
fn the_host_reaches_containers_from_its_gateway_address() {
    as_host(|| {
        let world = world();
        for slot in [1, 2] {
            let address = world.host.address(slot).unwrap();
            assert_eq!(ask((address, 8080).into()).as_deref(), Some("container"));
        }
        let service = world.one.listen_tcp("0.0.0.0:81".parse().unwrap()).unwrap();
        serve_peer(listener(service));
        assert_eq!(
            ask("10.88.0.1:81".parse().unwrap()).as_deref(),
            Some("10.88.255.254")
        );
        // An address without a container is refused by the host's own routing table at once.
        let error = TcpStream::connect("10.88.0.3:8080").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable);
    });
}

#[test]
fn containers_cannot_reach_each_other_whatever_they_are_allowed() {
    as_host(|| {
        let world = world();
        assert_eq!(
            asks(&world.one, "10.88.0.1:8080").as_deref(),
            Some("container"),
            "itself"
        );
        let both = Policy {
            outbound: true,
            ..allowing(&[(Protocol::Tcp, "10.88.0.2:8080")])
        };
        for policy in [Policy::default(), outbound(), both] {
            world.host.allow(ip("10.88.0.1"), &policy).unwrap();
            assert_eq!(asks(&world.one, "10.88.0.2:8080"), None, "{policy:?}");
            assert!(!common::ping(&world.one, "10.88.0.2"));
        }
        let receiver = inside(&world.two, || UdpSocket::bind("0.0.0.0:53").unwrap());
        for to in [
            "10.88.0.2:53",
            "10.88.255.255:53",
            "255.255.255.255:53",
            "224.0.0.1:53",
        ] {
            let arrives = datagram_arrives(&receiver, || {
                inside(&world.one, move || {
                    let sender = UdpSocket::bind("0.0.0.0:0").unwrap();
                    sender.set_broadcast(true).unwrap();
                    let _ = sender.send_to(b"hello", to);
                });
            });
            assert!(!arrives, "{to}");
        }
    });
}

#[test]
fn containers_cannot_reach_the_host_on_any_address() {
    as_host(|| {
        let world = world();
        run("ip addr add 192.168.77.1/32 dev lo");
        let v4 = service_on_host("0.0.0.0:0").port();
        let v6 = service_on_host("[::]:0").port();
        assert!(
            ask((ip(HOST_OUTSIDE), v4).into()).is_some(),
            "the service itself works"
        );
        assert!(
            ask((ip("10.88.255.254"), v6).into()).is_some(),
            "the service itself works"
        );
        for policy in [Policy::default(), outbound()] {
            world.host.allow(ip("10.88.0.1"), &policy).unwrap();
            for address in ["10.88.255.254", HOST_OUTSIDE, "192.168.77.1", "127.0.0.1"] {
                for port in [v4, v6] {
                    let to = format!("{address}:{port}");
                    assert_eq!(asks(&world.one, &to), None, "{to} {policy:?}");
                }
            }
            for address in ["10.88.255.254", HOST_OUTSIDE, "192.168.77.1"] {
                assert!(!common::ping(&world.one, address), "{address}");
            }
        }
        let receiver = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = receiver.local_addr().unwrap().port();
        for to in [
            "10.88.255.254",
            HOST_OUTSIDE,
            "255.255.255.255",
            "10.88.255.255",
            "224.0.0.1",
        ] {
            let arrives = datagram_arrives(&receiver, || {
                inside(&world.one, move || {
                    let sender = UdpSocket::bind("0.0.0.0:0").unwrap();
                    sender.set_broadcast(true).unwrap();
                    let _ = sender.send_to(b"hello", (to, port));
                });
            });
            assert!(!arrives, "{to}");
        }
    });
}

/// A container that had somehow got IPv6, by a root that owns its namespace.
#[test]
fn ipv6_from_a_container_ends_at_the_host() {
    as_host(|| {
        let world = world();
        let port = service_on_host("[::]:0").port();
        run("sysctl -qw net.ipv6.conf.all.forwarding=1");
        // The host's end has no IPv6; with it forced on, the rules alone must hold.
        assert_eq!(run("ip -6 addr show dev fc1"), "");
        run("sysctl -qw net.ipv6.conf.fc1.disable_ipv6=0");
        run("ip -6 addr add fe80::1/64 dev fc1 nodad");
        run("ip -6 addr add 2001:db8:1::1/64 dev fc1 nodad");
        // The links do not ask for neighbours; they are told, so that only the rules are in the way.
        for address in ["fe80::2", "2001:db8:1::2"] {
            run(&format!(
                "ip -6 neigh add {address} lladdr 06:fc:00:00:00:01 dev fc1"
            ));
        }
        world.host.allow(ip("10.88.0.1"), &outbound()).unwrap();
        inside(&world.one, || {
            run("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0");
            run("ip -6 addr add fe80::2/64 dev eth0 nodad");
            run("ip -6 addr add 2001:db8:1::2/64 dev eth0 nodad");
            run("ip -6 route add default via 2001:db8:1::1 dev eth0");
            for address in ["fe80::1", "2001:db8:1::1"] {
                run(&format!(
                    "ip -6 neigh add {address} lladdr 02:fc:00:00:00:01 dev eth0"
                ));
            }
        });
        let device = inside(&world.one, || run("ip -o link show eth0"));
        let local = format!("[fe80::1%{}]:{port}", device.split(':').next().unwrap());
        let all = [
            format!("[2001:db8:1::1]:{port}"),
            format!("[2001:db8::1]:{port}"),
            local,
        ];
        for to in &all {
            assert_eq!(asks(&world.one, to), None, "{to}");
        }
        run("nft delete table inet fastcontainer");
        for to in &all {
            let answer = asks(&world.one, to);
            assert_eq!(
                answer.as_deref(),
                Some("host"),
                "{to}: it is the rules that end it"
            );
        }
    });
}

#[test]
fn a_spoofed_source_is_dropped() {
    as_host(|| {
        let world = world();
        for slot in ["10.88.0.1", "10.88.0.2"] {
            world.host.allow(ip(slot), &outbound()).unwrap();
        }
        let receiver = inside(&world.outside, || {
            UdpSocket::bind("203.0.113.2:53").unwrap()
        });
        let send_as = |source: &'static str| {
            inside(&world.one, move || {
                if source != "10.88.0.1" {
                    run(&format!("ip addr add {source}/32 dev eth0"));
                }
                UdpSocket::bind((source, 0))
                    .unwrap()
                    .send_to(b"x", "203.0.113.2:53")
                    .unwrap();
            });
        };
        assert!(
            datagram_arrives(&receiver, || send_as("10.88.0.1")),
            "its own source"
        );
        for spoofed in [
            "10.88.0.2",
            "10.88.0.3",
            "203.0.113.9",
            "198.51.100.7",
            "10.88.255.254",
        ] {
            assert!(
                !datagram_arrives(&receiver, || send_as(spoofed)),
                "{spoofed}"
            );
        }
    });
}

#[test]
fn a_refused_connection_fails_at_once_and_does_not_hang() {
    as_host(|| {
        let world = world();
        let start = std::time::Instant::now();
        let refused = |to: &str| {
            let error = world
                .one
                .connect_tcp(to.parse().unwrap(), PATIENCE)
                .unwrap_err();
            assert_eq!(
                error.raw_os_error(),
                Some(rustix::io::Errno::CONNREFUSED.raw_os_error()),
                "{to}: {error}"
            );
        };
        refused(OUTSIDE);
        refused("10.88.0.2:8080");
        refused("10.88.255.254:22");
        assert!(start.elapsed() < PATIENCE);
    });
}
