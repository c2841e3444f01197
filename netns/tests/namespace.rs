//! What a namespace is like, and what is made inside it.
#![allow(clippy::unwrap_used)]

mod common;

use common::run;
use netns::{Method, Namespace};
use std::os::fd::AsFd;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn own_inode() -> u64 {
    rustix::fs::stat("/proc/thread-self/ns/net").unwrap().st_ino
}

#[test]
fn a_namespace_is_new_quiet_and_apart() {
    let before = own_inode();
    let namespace = Namespace::create().unwrap();
    assert_eq!(own_inode(), before);
    assert_ne!(namespace.inode().unwrap(), before);
    let (links, port, ipv6) = common::inside(&namespace, || {
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        (
            run("ip -o link"),
            read("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
            read("/proc/sys/net/ipv6/conf/default/disable_ipv6"),
        )
    });
    assert!(
        links.lines().count() == 1 && links.contains("LOOPBACK,UP"),
        "{links}"
    );
    assert_eq!((port.trim(), ipv6.trim()), ("0", "1"));
}

#[test]
fn a_namespace_has_a_small_tcp_table_of_its_own() {
    let setting = "/proc/sys/net/ipv4/tcp_child_ehash_entries";
    let before = std::fs::read_to_string(setting).unwrap();
    let entries = common::inside(&Namespace::create().unwrap(), || {
        std::fs::read_to_string("/proc/sys/net/ipv4/tcp_ehash_entries").unwrap()
    });
    assert_eq!(entries.trim(), "1024");
    assert_eq!(std::fs::read_to_string(setting).unwrap(), before);
}

#[test]
fn every_descriptor_is_close_on_exec() {
    let namespace = Namespace::create().unwrap();
    let sysfs = namespace.sysfs_mount().unwrap();
    let server = namespace
        .listen_tcp("127.0.0.1:80".parse().unwrap())
        .unwrap();
    let client = namespace
        .connect_tcp("127.0.0.1:80".parse().unwrap(), SECOND)
        .unwrap();
    let adopted = Namespace::of_pid(std::process::id()).unwrap();
    let open = [
        namespace.fd(),
        sysfs.as_fd(),
        server.as_fd(),
        client.as_fd(),
        adopted.fd(),
    ];
    for fd in open {
        assert!(
            rustix::io::fcntl_getfd(fd)
                .unwrap()
                .contains(rustix::io::FdFlags::CLOEXEC)
        );
    }
    // The sockets that have no accessor: a program that is run sees none of them.
    let seen = run("ls -l /proc/self/fd");
    assert!(
        !seen.contains("net:[") && !seen.contains("socket:["),
        "{seen}"
    );
}

#[test]
fn an_adopted_namespace_is_the_same_one() {
    let namespace = Namespace::create().unwrap();
    let _server = namespace
        .listen_tcp("127.0.0.1:8080".parse().unwrap())
        .unwrap();
    let fd = namespace.fd().try_clone_to_owned().unwrap();
    let adopted = Namespace::from_fd(fd).unwrap();
    assert_eq!(adopted.inode().unwrap(), namespace.inode().unwrap());
    let loopback = "127.0.0.1".parse().unwrap();
    assert!(
        adopted
            .diag()
            .tcp_listening(Method::SockDiag, loopback, 8080)
            .unwrap()
    );
    assert_eq!(
        Namespace::of_pid(std::process::id())
            .unwrap()
            .inode()
            .unwrap(),
        own_inode()
    );
    let error = Namespace::of_pid(u32::MAX).unwrap_err();
    assert!(
        error.to_string().contains("/proc/4294967295/ns/net"),
        "{error}"
    );
}

#[test]
fn sysfs_shows_the_namespaces_devices_and_cannot_be_written() {
    let namespace = Namespace::create().unwrap();
    let sysfs = namespace.sysfs_mount().unwrap();
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let devices =
        rustix::fs::openat(&sysfs, "class/net", flags, rustix::fs::Mode::empty()).unwrap();
    let names: Vec<_> = rustix::fs::Dir::new(devices)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    assert_eq!(names, ["lo"]);
    let write = rustix::fs::OFlags::WRONLY;
    let opened = rustix::fs::openat(&sysfs, "class/net/lo/mtu", write, rustix::fs::Mode::empty());
    assert_eq!(opened.unwrap_err(), rustix::io::Errno::ROFS);
}

#[test]
fn a_socket_made_meanwhile_is_in_the_namespace_and_waits_for_nothing() {
    let namespace = Namespace::create().unwrap();
    let server = namespace
        .listen_tcp("127.0.0.1:8080".parse().unwrap())
        .unwrap();
    let before = own_inode();
    // Made when it is asked for, and made ahead.
    for ahead in [false, true] {
        if ahead {
            namespace.prepare_tcp_socket().unwrap();
            // The same thread has done that before this.
            namespace.run(|| Ok(())).unwrap();
        }
        let (tell, told) = std::sync::mpsc::channel();
        let take = move |made| tell.send(made).unwrap();
        namespace.tcp_socket(take).unwrap();
        if ahead {
            assert!(matches!(told.try_recv(), Ok(Ok(_))), "it was there");
            continue;
        }
        let socket = told.recv().unwrap().unwrap();
        assert_eq!(own_inode(), before);
        let flags = rustix::fs::fcntl_getfl(&socket).unwrap();
        assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
        let flags = rustix::io::fcntl_getfd(&socket).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let address: std::net::SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let begun = rustix::net::connect(&socket, &address);
        assert_eq!(begun, Err(rustix::io::Errno::INPROGRESS));
        rustix::net::accept(&server).unwrap();
    }
}

#[test]
fn connecting_to_nobody_is_refused_at_once() {
    let namespace = Namespace::create().unwrap();
    let error = namespace
        .connect_tcp("127.0.0.1:9".parse().unwrap(), SECOND)
        .unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(rustix::io::Errno::CONNREFUSED.raw_os_error())
    );
    assert!(error.to_string().contains("127.0.0.1:9"), "{error}");
}
