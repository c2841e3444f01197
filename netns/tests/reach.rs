//! Who can reach whom: real packets between a host, containers and an outside network.
#![allow(clippy::unwrap_used)]

mod common;

use common::{PATIENCE, as_host, ask, datagram_arrives, host, inside, ip, listener, run, serve};
use netns::{Destination, Host, Namespace, Policy, Protocol};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

/// A host with two containers (slots 1 and 2) and, behind it, an outside network with a service.
struct World {
    host: Host,
    one: Namespace,
    two: Namespace,
    _outside: Namespace,
}

const HOST_OUTSIDE: &str = "203.0.113.1";
const OUTSIDE: &str = "203.0.113.2:80";

fn world() -> World {
    let outside = Namespace::create().unwrap();
    let inode = outside.inode().unwrap();
    // `ip` moves the peer by a process's namespace: one that lives inside for a moment.
    let (ready, done) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let fd = outside.fd().try_clone_to_owned().unwrap();
    let visitor = std::thread::spawn(move || {
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&fd), None).unwrap();
        ready
            .0
            .send(rustix::thread::gettid().as_raw_nonzero().get())
            .unwrap();
        done.1.recv().unwrap();
    });
    let thread = ready.1.recv().unwrap();
    run(&format!(
        "ip link add up0 type veth peer name eth0 netns {thread}"
    ));
    done.0.send(()).unwrap();
    visitor.join().unwrap();
    assert_eq!(outside.inode().unwrap(), inode);
    run(&format!("ip addr add {HOST_OUTSIDE}/24 dev up0"));
    run("ip link set up0 up");
    run("ip -6 addr add 2001:db8::1/64 dev up0 nodad");
    inside(&outside, || {
        run("ip addr add 203.0.113.2/24 dev eth0");
        run("ip link set eth0 up");
        // The outside knows a way to the containers, as a hostile neighbour on the LAN would.
        run("ip route add 10.88.0.0/16 via 203.0.113.1");
    });
    let service = outside.listen_tcp(OUTSIDE.parse().unwrap()).unwrap();
    serve_peer(listener(service));
    let host = host();
    let [one, two] = [1, 2].map(|slot| {
        let namespace = Namespace::create().unwrap();
        host.attach(&namespace, slot).unwrap();
        let address = (Ipv4Addr::UNSPECIFIED, 8080).into();
        serve(
            listener(namespace.listen_tcp(address).unwrap()),
            "container",
        );
        namespace
    });
    World {
        host,
        one,
        two,
        _outside: outside,
    }
}

/// Answers each connection with the address it came from.
fn serve_peer(listener: TcpListener) {
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ = std::io::Write::write_all(&mut stream, peer.ip().to_string().as_bytes());
        }
    });
}

fn asks(from: &Namespace, to: &str) -> Option<String> {
    let to: SocketAddr = to.parse().unwrap();
    inside(from, move || ask(to))
}

fn service_on_host(address: &str) -> SocketAddr {
    let service = TcpListener::bind(address).unwrap();
    let address = service.local_addr().unwrap();
    serve(service, "host");
    address
}

fn allowing(list: &[(Protocol, &str)]) -> Policy {
    let allow = list.iter().map(|&(protocol, to)| {
        let SocketAddr::V4(to) = to.parse().unwrap() else {
            panic!("IPv4")
        };
        Destination {
            protocol,
            address: *to.ip(),
            port: to.port(),
        }
    });
    Policy {
        outbound: false,
        allow: allow.collect(),
    }
}

fn outbound() -> Policy {
    Policy {
        outbound: true,
        ..Policy::default()
    }
}

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
fn outside_is_reached_by_nat_where_allowed_and_only_there() {
    as_host(|| {
        let world = world();
        assert_eq!(asks(&world.one, OUTSIDE), None);
        world.host.allow(ip("10.88.0.1"), &outbound()).unwrap();
        assert_eq!(
            asks(&world.one, OUTSIDE).as_deref(),
            Some(HOST_OUTSIDE),
            "masqueraded"
        );
        assert!(common::ping(&world.one, "203.0.113.2"));
        assert_eq!(
            asks(&world.two, OUTSIDE),
            None,
            "only the one that is allowed"
        );
        world.host.revoke(ip("10.88.0.1")).unwrap();
        assert_eq!(asks(&world.one, OUTSIDE), None);
    });
}

#[test]
fn the_outside_cannot_reach_containers() {
    as_host(|| {
        let world = world();
        world.host.allow(ip("10.88.0.1"), &outbound()).unwrap();
        assert_eq!(asks(&world._outside, "10.88.0.1:8080"), None);
        assert!(!common::ping(&world._outside, "10.88.0.1"));
        run("nft delete table inet fastcontainer");
        let answer = asks(&world._outside, "10.88.0.1:8080");
        assert_eq!(
            answer.as_deref(),
            Some("container"),
            "it is the rules that end it"
        );
    });
}

#[test]
fn the_allow_list_opens_exactly_what_it_lists() {
    as_host(|| {
        let world = world();
        let open = service_on_host("0.0.0.0:0");
        let closed = service_on_host("0.0.0.0:0").port();
        let gateway = "10.88.255.254";
        let listed = format!("{gateway}:{}", open.port());
        let policy = allowing(&[(Protocol::Tcp, &listed), (Protocol::Tcp, OUTSIDE)]);
        world.host.allow(ip("10.88.0.1"), &policy).unwrap();
        assert_eq!(asks(&world.one, &listed).as_deref(), Some("host"));
        assert_eq!(asks(&world.one, OUTSIDE).as_deref(), Some(HOST_OUTSIDE));
        assert_eq!(
            asks(&world.one, &format!("{gateway}:{closed}")),
            None,
            "another port"
        );
        let other = format!("{HOST_OUTSIDE}:{}", open.port());
        assert_eq!(asks(&world.one, &other), None, "another address");
        assert_eq!(asks(&world.two, &listed), None, "another container");
        assert_eq!(asks(&world.two, OUTSIDE), None, "another container");
        assert!(!common::ping(&world.one, "203.0.113.2"));
        let receiver = UdpSocket::bind((gateway, open.port())).unwrap();
        let to = listed.clone();
        let send = || {
            inside(&world.one, move || {
                UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", to).ok()
            });
        };
        assert!(!datagram_arrives(&receiver, send), "another protocol");
        world
            .host
            .allow(ip("10.88.0.1"), &allowing(&[(Protocol::Udp, &listed)]))
            .unwrap();
        let to = listed.clone();
        let send = || {
            inside(&world.one, move || {
                UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", to).ok()
            });
        };
        assert!(
            datagram_arrives(&receiver, send),
            "the protocol that is listed now"
        );
        assert_eq!(
            asks(&world.one, &listed),
            None,
            "the one that was listed before"
        );
    });
}

#[test]
fn revoking_ends_open_connections() {
    as_host(|| {
        let world = world();
        world.host.allow(ip("10.88.0.1"), &outbound()).unwrap();
        let echo = world
            ._outside
            .listen_tcp("203.0.113.2:7".parse().unwrap())
            .unwrap();
        let echo = listener(echo);
        let client = world
            .one
            .connect_tcp("203.0.113.2:7".parse().unwrap(), PATIENCE)
            .unwrap();
        let mut client = TcpStream::from(client);
        let (mut server, _) = echo.accept().unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut byte = [0];
        std::io::Write::write_all(&mut client, b"a").unwrap();
        std::io::Read::read_exact(&mut server, &mut byte).unwrap();
        world.host.revoke(ip("10.88.0.1")).unwrap();
        let _ = std::io::Write::write_all(&mut client, b"b");
        assert!(std::io::Read::read_exact(&mut server, &mut byte).is_err());
    });
}

#[test]
fn a_spoofed_source_is_dropped() {
    as_host(|| {
        let world = world();
        for slot in ["10.88.0.1", "10.88.0.2"] {
            world.host.allow(ip(slot), &outbound()).unwrap();
        }
        let receiver = inside(&world._outside, || {
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
