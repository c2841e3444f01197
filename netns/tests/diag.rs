//! Who listens and what is connected, by both methods, against the truth.
#![allow(clippy::unwrap_used)]

mod common;

use common::{eventually, listener, run};
use netns::{Error, Method, Namespace};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

const BOTH: [Method; 2] = [Method::SockDiag, Method::ProcNet];
const SECOND: Duration = Duration::from_secs(1);

fn connected(namespace: &Namespace, address: &str) -> Result<TcpStream, Error> {
    namespace
        .connect_tcp(address.parse().unwrap(), SECOND)
        .map(TcpStream::from)
}

/// What listens, asked for which addresses, with which answer; the truth is checked by connecting.
#[test]
fn a_listener_is_seen_where_a_connection_would_be_taken() {
    let namespace = Namespace::create().unwrap();
    common::inside(&namespace, || run("ip addr add 10.1.2.3/32 dev lo"));
    let asked = ["127.0.0.1", "10.1.2.3", "::1"];
    for (bound, taken) in [
        ("0.0.0.0", [true, true, false]),
        ("127.0.0.1", [true, false, false]),
        ("10.1.2.3", [false, true, false]),
        ("[::]", [true, true, true]),
        ("[::1]", [false, false, true]),
        ("[::ffff:10.1.2.3]", [false, true, false]),
    ] {
        let address: SocketAddr = format!("{bound}:8080").parse().unwrap();
        let server = namespace.listen_tcp(address).unwrap();
        for (asked, taken) in asked.iter().zip(taken) {
            let asked: IpAddr = asked.parse().unwrap();
            let truth = namespace
                .connect_tcp(SocketAddr::new(asked, 8080), SECOND)
                .is_ok();
            assert_eq!(truth, taken, "{bound} connected at {asked}");
            for method in BOTH {
                let said = |port| namespace.diag().tcp_listening(method, asked, port).unwrap();
                assert_eq!(said(8080), taken, "{bound} asked at {asked} by {method:?}");
                assert!(!said(8081), "{method:?}");
            }
        }
        drop(server);
        for method in BOTH {
            let loopback = "127.0.0.1".parse().unwrap();
            assert!(
                !namespace
                    .diag()
                    .tcp_listening(method, loopback, 8080)
                    .unwrap()
            );
        }
    }
}

#[test]
fn a_bound_or_connected_socket_is_not_a_listener() {
    let namespace = Namespace::create().unwrap();
    let server = listener(
        namespace
            .listen_tcp("127.0.0.1:8080".parse().unwrap())
            .unwrap(),
    );
    let client = connected(&namespace, "127.0.0.1:8080").unwrap();
    let port = client.local_addr().unwrap().port();
    for method in BOTH {
        let loopback = "127.0.0.1".parse().unwrap();
        assert!(
            !namespace
                .diag()
                .tcp_listening(method, loopback, port)
                .unwrap()
        );
    }
    drop(server);
}

#[test]
fn connections_are_counted_until_they_are_over() {
    for address in ["127.0.0.1:8080", "[::1]:8080", "[::]:8080"] {
        let namespace = Namespace::create().unwrap();
        let server = listener(namespace.listen_tcp(address.parse().unwrap()).unwrap());
        let open = |wanted: usize, what: &str| {
            for method in BOTH {
                let count = namespace.diag().tcp_open(method, 8080).unwrap();
                assert_eq!(count, wanted, "{address}: {what}, {method:?}");
                assert_eq!(namespace.diag().tcp_open(method, 8081).unwrap(), 0);
            }
        };
        open(0, "only listening");
        // Through [::], IPv4 clients too.
        let to = if address.starts_with("[::]") {
            "127.0.0.1:8080"
        } else {
            address
        };
        let client = connected(&namespace, to).unwrap();
        open(1, "in the accept queue");
        let (accepted, _) = server.accept().unwrap();
        open(1, "accepted");
        let others: Vec<_> = (0..300)
            .map(|_| connected(&namespace, to).unwrap())
            .collect();
        open(301, "many");
        for _ in &others {
            drop(server.accept().unwrap());
        }
        drop(others);
        drop(client);
        open(1, "closed by the client only");
        drop(accepted);
        let diag = namespace.diag();
        eventually("all connections are over", || {
            BOTH.iter()
                .all(|&method| diag.tcp_open(method, 8080).unwrap() == 0)
        });
    }
}

#[test]
fn a_connection_from_inside_is_seen_as_one() {
    for (bound, to) in [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "10.1.2.3"),
        ("[::]", "10.1.2.3"),
        ("[::]", "127.0.0.9"),
        ("[::1]", "[::1]"),
    ] {
        let namespace = Namespace::create().unwrap();
        common::inside(&namespace, || run("ip addr add 10.1.2.3/32 dev lo"));
        let address = format!("{bound}:8080").parse().unwrap();
        let _server = namespace.listen_tcp(address).unwrap();
        let local = |wanted: usize| {
            for method in BOTH {
                let count = namespace.diag().tcp_open_local(method, 8080).unwrap();
                assert_eq!(count, wanted, "{to} at {bound}, {method:?}");
            }
        };
        local(0);
        let client = connected(&namespace, &format!("{to}:8080")).unwrap();
        local(1);
        drop(client);
        // Its server has not closed it yet.
        local(1);
    }
}

#[test]
fn half_closed_by_a_server_that_still_reads_is_open() {
    let namespace = Namespace::create().unwrap();
    let server = listener(
        namespace
            .listen_tcp("127.0.0.1:8080".parse().unwrap())
            .unwrap(),
    );
    let _client = connected(&namespace, "127.0.0.1:8080").unwrap();
    let (accepted, _) = server.accept().unwrap();
    accepted.shutdown(std::net::Shutdown::Write).unwrap();
    for method in BOTH {
        assert_eq!(
            namespace.diag().tcp_open(method, 8080).unwrap(),
            1,
            "{method:?}"
        );
    }
}

fn unix(namespace: &Namespace, name: &'static [u8], kind: SocketType) -> OwnedFd {
    namespace
        .run(move || {
            let socket = rustix::net::socket(AddressFamily::UNIX, kind, None).unwrap();
            rustix::net::bind(&socket, &unix_address(name)).unwrap();
            Ok(socket)
        })
        .unwrap()
}

fn unix_address(name: &[u8]) -> SocketAddrUnix {
    match name.strip_prefix(b"\0") {
        Some(name) => SocketAddrUnix::new_abstract_name(name).unwrap(),
        None => SocketAddrUnix::new(name).unwrap(),
    }
}

#[test]
fn unix_sockets_are_seen_by_their_name() {
    const ABSTRACT: &[u8] = b"\0fastcontainer netns test";
    let directory = std::env::temp_dir().join(format!("netns-test {}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let path: &'static [u8] = directory
        .join("app.sock")
        .into_os_string()
        .into_encoded_bytes()
        .leak();
    for name in [path, ABSTRACT] {
        let namespace = Namespace::create().unwrap();
        let diag = namespace.diag();
        let state = |method, name: &[u8]| {
            (
                diag.unix_listening(method, name).unwrap(),
                diag.unix_open(method, name).unwrap(),
            )
        };
        let server = unix(&namespace, name, SocketType::STREAM);
        for method in BOTH {
            assert_eq!(state(method, name), (false, 0), "bound, {method:?}");
        }
        rustix::net::listen(&server, 8).unwrap();
        let client = namespace
            .run(move || {
                let client = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None);
                let client = client.unwrap();
                rustix::net::connect(&client, &unix_address(name)).unwrap();
                Ok(client)
            })
            .unwrap();
        for method in BOTH {
            assert_eq!(
                state(method, name),
                (true, 1),
                "in the accept queue, {method:?}"
            );
            assert_eq!(
                state(method, &name[..name.len() - 1]),
                (false, 0),
                "{method:?}"
            );
        }
        let accepted = rustix::net::accept(&server).unwrap();
        for method in BOTH {
            assert_eq!(state(method, name), (true, 1), "accepted, {method:?}");
        }
        drop((client, accepted));
        for method in BOTH {
            assert_eq!(state(method, name), (true, 0), "over, {method:?}");
        }
        drop(server);
        for method in BOTH {
            assert_eq!(state(method, name), (false, 0), "gone, {method:?}");
        }
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn the_tables_of_a_process_are_read_by_its_number() {
    // This process's own namespace, which other programs use too: a port the kernel chose.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let pid = std::process::id();
    assert!(netns::tcp_listening_proc(pid, address.ip(), address.port()).unwrap());
    assert!(!netns::tcp_listening_proc(pid, "127.0.0.9".parse().unwrap(), address.port()).unwrap());
    let _client = TcpStream::connect(address).unwrap();
    assert_eq!(netns::tcp_open_proc(pid, address.port()).unwrap(), 1);
    let name = format!("\0netns test {pid}");
    assert!(!netns::unix_listening_proc(pid, name.as_bytes()).unwrap());
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &unix_address(name.as_bytes())).unwrap();
    rustix::net::listen(&socket, 8).unwrap();
    assert!(netns::unix_listening_proc(pid, name.as_bytes()).unwrap());
    assert_eq!(netns::unix_open_proc(pid, name.as_bytes()).unwrap(), 0);
}

/// The kernel puts an accepted Unix socket into its client's namespace: a web server on the host is seen on the host.
#[test]
fn accepted_unix_sockets_are_counted_where_their_clients_are() {
    let directory = std::env::temp_dir().join(format!("netns-test-vfs {}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let server_side = Namespace::create().unwrap();
    let client_side = Namespace::create().unwrap();
    let serve = |file: &str| -> (OwnedFd, &'static [u8]) {
        let path = directory
            .join(file)
            .into_os_string()
            .into_encoded_bytes()
            .leak();
        let server = unix(&server_side, path, SocketType::STREAM);
        rustix::net::listen(&server, 8).unwrap();
        (server, path)
    };
    let ((server, path), (other, other_path)) = (serve("app.sock"), serve("other.sock"));
    let connect = |path: &'static [u8]| {
        let connect = move || {
            let client =
                rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
            rustix::net::connect(&client, &unix_address(path)).unwrap();
            Ok(client)
        };
        client_side.run(connect).unwrap()
    };
    let (client, other_client) = (connect(path), connect(other_path));
    let accepted = (
        rustix::net::accept(&server).unwrap(),
        rustix::net::accept(&other).unwrap(),
    );
    let file = std::fs::metadata(directory.join("app.sock")).unwrap();
    for method in BOTH {
        assert_eq!(
            server_side.diag().unix_open(method, path).unwrap(),
            0,
            "{method:?}"
        );
        assert_eq!(
            client_side
                .diag()
                .unix_accepted(method, &file, path)
                .unwrap(),
            1,
            "{method:?}"
        );
    }
    drop((client, accepted));
    for method in BOTH {
        assert_eq!(
            client_side
                .diag()
                .unix_accepted(method, &file, path)
                .unwrap(),
            0,
            "{method:?}"
        );
    }
    drop(other_client);
    std::fs::remove_dir_all(&directory).unwrap();
}
