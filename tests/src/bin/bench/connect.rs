//! Connections that the agent hands over, against an address that the client connects to itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use harness::Host;
use harness::client::Client;
use harness::connect::Connector;

use crate::Effort;
use crate::cold::{static_site, stop};
use crate::report::{Figures, Row};

const PRIVATE: &str = "private.example.com";
const ADDRESS: &str = "address.example.com";
const REQUEST: &[u8] = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n";

/// A request over a new connection, to the end of the answer, so that it is the server that closes.
pub(crate) fn fetch(stream: &mut TcpStream) {
    stream.write_all(REQUEST).unwrap();
    assert!(stream.read_to_end(&mut Vec::new()).unwrap() > 0);
}

/// Asks for a connection; how long until it is there.
pub(crate) fn handed(connector: &Connector, vhost: &str) -> (Duration, TcpStream) {
    let began = Instant::now();
    let handed = connector.ask(vhost).unwrap();
    let took = began.elapsed();
    let stream = TcpStream::from(handed.connection());
    stream.set_nonblocking(false).unwrap();
    (took, stream)
}

/// Asks where to connect, and connects.
fn connected(client: &mut Client) -> (Duration, TcpStream) {
    let body = format!("{{\"vhost\":\"{ADDRESS}\"}}");
    let began = Instant::now();
    let answer = client.request("POST", "/v1/dispatch", body.as_bytes());
    let stream = TcpStream::connect(answer.unwrap().upstream()).unwrap();
    (began.elapsed(), stream)
}

fn warm(rounds: usize, mut connect: impl FnMut() -> (Duration, TcpStream)) -> Vec<Duration> {
    let mut round = || {
        let (took, mut stream) = connect();
        fetch(&mut stream);
        took
    };
    for _ in 0..100 {
        round();
    }
    (0..rounds).map(|_| round()).collect()
}

/// From the request for a stopped site to the first byte of its answer.
fn cold(host: &Host, rounds: usize) -> Vec<Duration> {
    let (mut client, connector) = (Client::connect(&host.socket()).unwrap(), host.connector());
    let mut round = || {
        stop(&mut client, PRIVATE);
        let began = Instant::now();
        let (_, mut stream) = handed(&connector, PRIVATE);
        stream.write_all(REQUEST).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        began.elapsed()
    };
    for _ in 0..10 {
        round();
    }
    (0..rounds).map(|_| round()).collect()
}

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let host = Host::as_installed("");
    let server = static_site(&host, PRIVATE, "[network]\nmode = \"private\"\n");
    static_site(&host, ADDRESS, "");
    let (mut client, connector) = (Client::connect(&host.socket()).unwrap(), host.connector());
    let rounds = effort.rounds(5_000);
    let own = warm(rounds, || handed(&connector, PRIVATE));
    let other = warm(rounds, || connected(&mut client));
    let cold = cold(&host, effort.rounds(500));
    host.finish();
    let millis = Figures::millis("handed over, loopback only", &cold);
    vec![
        Row::new("connection to a running site, on a kept connection to the agent")
            .with(Figures::micros("handed over, loopback only", &own))
            .with(Figures::micros("dispatch and connect, address", &other)),
        Row::new(&format!(
            "cold hand-over to first byte: {server}, cpu+memory+pids limits, seccomp"
        ))
        .with(millis),
    ]
}
