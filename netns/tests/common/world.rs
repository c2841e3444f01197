//! A host with containers and an outside network.
#![allow(dead_code, clippy::unwrap_used)]

use crate::common::{ask, config, eventually, inside, listener, run, serve};
use netns::{Destination, Host, HostConfig, Namespace, Policy, Protocol};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// A host with two containers (slots 1 and 2) and, behind it, an outside network with a service.
pub(crate) struct World {
    pub(crate) host: Host,
    pub(crate) one: Namespace,
    pub(crate) two: Namespace,
    pub(crate) outside: Namespace,
}

pub(crate) const HOST_OUTSIDE: &str = "203.0.113.1";
pub(crate) const OUTSIDE: &str = "203.0.113.2:80";

pub(crate) fn world() -> World {
    world_with(config())
}

pub(crate) fn world_with(config: HostConfig) -> World {
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
    // `ip link set up` does not wait until the link carries packets.
    let there: SocketAddr = OUTSIDE.parse().unwrap();
    eventually("the outside answers the host", || ask(there).is_some());
    let host = Host::new(config).unwrap();
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
        outside,
    }
}

/// Answers each connection with the address it came from.
pub(crate) fn serve_peer(listener: TcpListener) {
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ = std::io::Write::write_all(&mut stream, peer.ip().to_string().as_bytes());
        }
    });
}

pub(crate) fn asks(from: &Namespace, to: &str) -> Option<String> {
    let to: SocketAddr = to.parse().unwrap();
    inside(from, move || ask(to))
}

pub(crate) fn service_on_host(address: &str) -> SocketAddr {
    let service = TcpListener::bind(address).unwrap();
    let address = service.local_addr().unwrap();
    serve(service, "host");
    address
}

pub(crate) fn allowing(list: &[(Protocol, &str)]) -> Policy {
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

pub(crate) fn outbound() -> Policy {
    Policy {
        outbound: true,
        ..Policy::default()
    }
}
