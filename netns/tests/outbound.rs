//! What a container reaches when it is allowed to, and only then.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/world.rs"]
mod world;

use common::{PATIENCE, as_host, config, datagram_arrives, inside, ip, listener, run};
use netns::{HostConfig, Protocol};
use std::net::{TcpStream, UdpSocket};
use world::{HOST_OUTSIDE, OUTSIDE, allowing, asks, outbound, service_on_host, world, world_with};

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
        assert_eq!(asks(&world.outside, "10.88.0.1:8080"), None);
        assert!(!common::ping(&world.outside, "10.88.0.1"));
        run("nft delete table inet fastcontainer");
        let answer = asks(&world.outside, "10.88.0.1:8080");
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
            .outside
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
fn a_foreign_dnat_does_not_open_the_hosts_addresses() {
    as_host(|| {
        let world = world();
        run("nft add table ip theirs");
        run("nft add chain ip theirs pre { type nat hook prerouting priority dstnat ; }");
        let published = format!("{HOST_OUTSIDE}:8443");
        run(&format!(
            "nft add rule ip theirs pre ip daddr {HOST_OUTSIDE} tcp dport 8443 dnat to {OUTSIDE}"
        ));
        world.host.allow(ip("10.88.0.1"), &outbound()).unwrap();
        assert!(asks(&world.one, OUTSIDE).is_some());
        assert_eq!(asks(&world.one, &published), None);
        run("nft delete table inet fastcontainer");
        assert!(
            asks(&world.one, &published).is_some(),
            "it is the rules that end it"
        );
    });
}

#[test]
fn outbound_traffic_leaves_by_the_uplink_only() {
    for (uplink, reached) in [("up0", true), ("up1", false)] {
        as_host(move || {
            let world = world_with(HostConfig {
                uplink: Some(uplink.into()),
                ..config()
            });
            world.host.allow(ip("10.88.0.1"), &outbound()).unwrap();
            assert_eq!(asks(&world.one, OUTSIDE).is_some(), reached, "{uplink}");
        });
    }
}
