//! Setting the host up, attaching, policies, and undoing it all.
#![allow(clippy::unwrap_used)]

mod common;

use common::{as_host, config, host, inside, ip, run};
use netns::{Destination, Host, HostConfig, Namespace, Policy, Protocol};
use std::collections::BTreeMap;

fn policy(outbound: bool, ports: &[u16]) -> Policy {
    let allow = ports.iter().map(|&port| Destination {
        protocol: if port % 2 == 0 {
            Protocol::Tcp
        } else {
            Protocol::Udp
        },
        address: ip("10.0.0.5"),
        port,
    });
    Policy {
        outbound,
        allow: allow.collect(),
    }
}

#[test]
fn setting_up_twice_changes_nothing_and_keeps_the_policies() {
    as_host(|| {
        let first = host();
        first
            .allow(ip("10.88.0.1"), &policy(true, &[3306, 53]))
            .unwrap();
        first
            .allow(ip("10.88.0.2"), &policy(false, &[6379]))
            .unwrap();
        // Each is told of packets by a group of its own.
        let rules = || {
            let text = run("nft list ruleset");
            let words = text.split_whitespace().scan("", |last, word| {
                let group = std::mem::replace(last, word) == "group";
                Some(if group { "N" } else { word })
            });
            words.collect::<Vec<_>>().join(" ")
        };
        let state = || (rules(), run("ip addr"), run("ip route"));
        let before = state();
        let second = host();
        assert_eq!(state(), before);
        assert_eq!(second.policies().unwrap(), first.policies().unwrap());
        // What another instance allowed can be taken back.
        second.revoke(ip("10.88.0.1")).unwrap();
        let left = BTreeMap::from([(ip("10.88.0.2"), policy(false, &[6379]))]);
        assert_eq!(second.policies().unwrap(), left);
    });
}

#[test]
fn teardown_leaves_the_host_as_it_was_and_foreign_tables_alone() {
    as_host(|| {
        run("ip link set lo up");
        run("nft add table inet theirs");
        run(
            "nft add chain inet theirs input { type filter hook input priority 0 ; policy drop ; }",
        );
        let state = || {
            let forward = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
            (
                run("nft list ruleset"),
                run("ip addr"),
                run("ip route"),
                forward,
            )
        };
        let before = state();
        let host = host();
        assert!(run("nft list ruleset").contains("table inet fastcontainer"));
        assert!(run("nft list table inet theirs").contains("policy drop"));
        assert_eq!(
            std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(),
            "1\n"
        );
        host.teardown().unwrap();
        assert_eq!(state(), before);
        run("sysctl -qw net.ipv4.ip_forward=1");
        self::host().teardown().unwrap();
        assert_eq!(
            std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(),
            "1\n"
        );
    });
}

#[test]
fn a_changed_table_is_written_anew() {
    as_host(|| {
        let good = {
            drop(host());
            run("nft list ruleset")
        };
        run("nft flush chain inet fastcontainer forward");
        run("nft add chain inet fastcontainer theirs");
        assert_ne!(run("nft list ruleset"), good);
        drop(host());
        assert_eq!(run("nft list ruleset"), good);
        // A table of that name with another layout.
        run("nft delete table inet fastcontainer");
        run("nft add table inet fastcontainer");
        run("nft add set inet fastcontainer allow { type ether_addr ; }");
        run("nft add element inet fastcontainer allow { 02:00:00:00:00:01 }");
        drop(host());
        assert_eq!(run("nft list ruleset"), good);
    });
}

#[test]
fn policies_are_what_was_asked_for_also_after_foreign_changes() {
    as_host(|| {
        let host = host();
        let address = ip("10.88.1.1");
        for wanted in [
            policy(true, &[1, 2, 3]),
            policy(true, &[3, 4]),
            policy(false, &[4]),
            policy(true, &[]),
            policy(false, &(1..2000).collect::<Vec<_>>()),
            policy(false, &[7]),
        ] {
            host.allow(address, &wanted).unwrap();
            host.allow(address, &wanted).unwrap();
            assert_eq!(
                host.policies().unwrap(),
                BTreeMap::from([(address, wanted)])
            );
        }
        let fresh = Host::new(config()).unwrap();
        run("nft flush set inet fastcontainer allow");
        fresh.allow(address, &policy(true, &[8])).unwrap();
        host.revoke(address).unwrap();
        host.revoke(address).unwrap();
        run("nft flush set inet fastcontainer allow");
        run("nft flush set inet fastcontainer outbound");
        fresh.revoke(address).unwrap();
        assert!(host.policies().unwrap().is_empty());
        run("nft delete table inet fastcontainer");
        let error = host.allow(address, &policy(true, &[8])).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("10.88.1.1 in table fastcontainer"),
            "{error}"
        );
    });
}

#[test]
fn an_attached_namespace_has_one_quiet_link() {
    as_host(|| {
        let host = host();
        let namespace = Namespace::create().unwrap();
        let link = host.attach(&namespace, 0x1a2).unwrap();
        assert_eq!(
            (link.name.as_str(), link.address),
            ("fc1a2", ip("10.88.1.162"))
        );
        assert_eq!(host.links().unwrap(), [("fc1a2".to_owned(), 0x1a2)]);
        let outside = run("ip -o link show fc1a2");
        assert!(
            outside.contains("NOARP") && outside.contains("LOWER_UP"),
            "{outside}"
        );
        assert_eq!(run("ip -6 addr show dev fc1a2"), "");
        assert!(run("ip route").contains("10.88.1.162 dev fc1a2"));
        let (link, address, route, six) = inside(&namespace, || {
            (
                run("ip -o link show eth0"),
                run("ip -4 -o addr show eth0"),
                run("ip route"),
                run("ip -6 addr show dev eth0"),
            )
        });
        assert!(
            link.contains("NOARP") && link.contains("LOWER_UP"),
            "{link}"
        );
        assert!(address.contains("10.88.1.162/32"), "{address}");
        assert!(
            route.starts_with("default via 10.88.255.254 dev eth0"),
            "{route}"
        );
        assert_eq!(six, "");
        for slot in [0, 65534, u32::MAX] {
            assert!(host.attach(&namespace, slot).is_err(), "{slot}");
        }
    });
}

#[test]
fn an_orphaned_link_is_found_removed_and_its_slot_used_again() {
    as_host(|| {
        let host = host();
        let [orphan, next, last] = [(); 3].map(|()| Namespace::create().unwrap());
        run("ip link add fcoe0 type veth peer name other");
        host.attach(&orphan, 5).unwrap();
        // The slot is taken while its last container is still being cleared away.
        host.attach(&next, 5).unwrap();
        assert_eq!(inside(&orphan, || run("ip -o link")).lines().count(), 1);
        assert_eq!(host.links().unwrap(), [("fc5".to_owned(), 5)]);
        host.remove_link("fc5").unwrap();
        host.remove_link("fc5").unwrap();
        assert!(host.remove_link("lo").is_err() && host.remove_link("fcoe0").is_err());
        assert_eq!(host.links().unwrap(), []);
        host.attach(&last, 5).unwrap();
        assert!(run("ip -o link").contains("fcoe0"));
    });
}

#[test]
fn two_hosts_of_different_names_share_a_namespace() {
    as_host(|| {
        let other = HostConfig {
            table: "other".into(),
            prefix: "ot".into(),
            ..HostConfig::with_subnet("10.99.0.0/24".parse().unwrap())
        };
        let (one, two) = (host(), Host::new(other).unwrap());
        let namespaces = [(); 2].map(|()| Namespace::create().unwrap());
        one.attach(&namespaces[0], 1).unwrap();
        two.attach(&namespaces[1], 1).unwrap();
        assert_eq!(one.links().unwrap(), [("fc1".to_owned(), 1)]);
        assert_eq!(two.links().unwrap(), [("ot1".to_owned(), 1)]);
        one.teardown().unwrap();
        assert!(run("nft list ruleset").contains("table inet other"));
        assert!(run("ip addr show lo").contains("10.99.0.254"));
    });
}

#[test]
fn a_host_works_from_any_thread() {
    as_host(|| {
        let host = host();
        let elsewhere = Namespace::create().unwrap();
        let container = Namespace::create().unwrap();
        let links = inside(&elsewhere, move || {
            host.attach(&container, 1).unwrap();
            host.allow(ip("10.88.0.1"), &policy(true, &[])).unwrap();
            let links = host.links().unwrap();
            host.teardown().unwrap();
            (links, container)
        });
        assert_eq!(links.0, [("fc1".to_owned(), 1)]);
        assert!(run("ip -o link").contains("fc1"));
        assert_eq!(run("nft list ruleset"), "");
    });
}
