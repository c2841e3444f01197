//! Data over a namespace's own loopback is told while somebody asks for it; nothing else is, and nothing of that is left.
#![allow(clippy::unwrap_used)]

mod common;

use common::{PATIENCE, as_host, eventually, host, inside, listener, run};
use netns::{LocalArrivals, Method, Namespace};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

const PORT: u16 = 8080;

/// A namespace with a server that reads nothing, behind a link or not.
fn served(address: &str) -> (Namespace, TcpListener) {
    let namespace = Namespace::create().unwrap();
    let server = namespace.listen_tcp(address.parse().unwrap()).unwrap();
    (namespace, listener(server))
}

/// A connection from inside the namespace.
fn handed(namespace: &Namespace, address: &str) -> TcpStream {
    let within = Duration::from_secs(1);
    let stream = TcpStream::from(
        namespace
            .connect_tcp(address.parse().unwrap(), within)
            .unwrap(),
    );
    stream.set_nodelay(true).unwrap();
    stream
}

fn told(arrivals: &LocalArrivals) {
    eventually("it is told", || arrivals.read().unwrap());
}

fn not_told(arrivals: &LocalArrivals) {
    std::thread::sleep(PATIENCE);
    assert!(!arrivals.read().unwrap());
}

fn tables(namespace: &Namespace) -> String {
    inside(namespace, || run("nft list tables"))
}

#[test]
fn data_for_the_port_is_told_and_nothing_else_is() {
    for address in ["127.0.0.1:8080", "[::1]:8080"] {
        let (namespace, server) = served(address);
        let other_address = address.replace("8080", "8081");
        let other = namespace
            .listen_tcp(other_address.parse().unwrap())
            .unwrap();
        let mut client = handed(&namespace, address);
        let (mut accepted, _) = server.accept().unwrap();
        client.write_all(b"before").unwrap();
        let arrivals = namespace.local_arrivals(PORT).unwrap();
        for _ in 0..20 {
            client.write_all(b"x").unwrap();
            told(&arrivals);
        }
        // What goes back, the end of a connection, one without data, and data for another port.
        accepted.write_all(b"answer").unwrap();
        client.read_exact(&mut [0; 6]).unwrap();
        drop(handed(&namespace, address));
        let _silent = handed(&namespace, address);
        handed(&namespace, &other_address).write_all(b"x").unwrap();
        not_told(&arrivals);
        client.write_all(&vec![0; 1 << 16]).unwrap();
        told(&arrivals);
        drop(other);
    }
}

#[test]
fn what_comes_over_the_link_is_not_told() {
    as_host(|| {
        let host = host();
        let (namespace, _server) = served("0.0.0.0:8080");
        let address = host.attach(&namespace, 1).unwrap().address;
        let arrivals = namespace.local_arrivals(PORT).unwrap();
        let mut outside = TcpStream::connect((address, PORT)).unwrap();
        let open = |what: [usize; 2]| {
            for method in [Method::SockDiag, Method::ProcNet] {
                let diag = namespace.diag();
                let open = [
                    diag.tcp_open(method, PORT).unwrap(),
                    diag.tcp_open_local(method, PORT).unwrap(),
                ];
                assert_eq!(open, what, "{method:?}");
            }
        };
        open([1, 0]);
        outside.write_all(b"x").unwrap();
        not_told(&arrivals);
        let mut handed = handed(&namespace, &format!("{address}:{PORT}"));
        open([2, 1]);
        handed.write_all(b"x").unwrap();
        told(&arrivals);
    });
}

#[test]
fn each_who_asks_is_told_until_they_ask_no_more() {
    let (namespace, _server) = served("127.0.0.1:8080");
    let mut client = handed(&namespace, "127.0.0.1:8080");
    let (first, second) = (
        namespace.local_arrivals(PORT).unwrap(),
        namespace.local_arrivals(PORT).unwrap(),
    );
    client.write_all(b"x").unwrap();
    told(&first);
    told(&second);
    drop(first);
    client.write_all(b"x").unwrap();
    told(&second);
    assert_eq!(tables(&namespace).matches("table inet local-").count(), 1);
    drop(second);
    assert_eq!(tables(&namespace), "");
}

/// What belongs to a socket is found by its number when it is closed.
#[test]
fn one_that_is_just_being_closed_takes_nothing_from_the_next() {
    let (namespace, _server) = served("127.0.0.1:8080");
    let mut client = handed(&namespace, "127.0.0.1:8080");
    let mut last = None;
    for _ in 0..50 {
        let closing = std::thread::spawn(move || drop(last));
        let next = namespace.local_arrivals(PORT).unwrap();
        closing.join().unwrap();
        client.write_all(b"x").unwrap();
        told(&next);
        last = Some(next);
    }
    drop(last);
    assert_eq!(tables(&namespace), "");
}
