//! From a dispatch request for a stopped site to the first byte of its answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use harness::Host;
use harness::client::Client;

use crate::Effort;
use crate::report::{Figures, Row};

/// All limits that every host can enforce.
const LIMITS: &str = "[limits]\ncpu = \"100%\"\nmemory = \"64M\"\npids = 64\n";

/// Answers once on a Unix socket.
const UNIX_SERVER: &str = "import socket; s = socket.socket(socket.AF_UNIX); s.bind('/run/site/s'); s.listen(); \
    c, _ = s.accept(); c.recv(99); c.send(b'HTTP/1.0 200 OK\\r\\n\\r\\n'); c.close()";

/// One dispatch on `client` and one request to where it leads; until the first byte of the answer.
pub(crate) fn first_byte(client: &mut Client, vhost: &str) -> Duration {
    let body = format!("{{\"vhost\":\"{vhost}\"}}");
    let began = Instant::now();
    let upstream = client
        .request("POST", "/v1/dispatch", body.as_bytes())
        .unwrap()
        .upstream();
    match upstream.strip_prefix("unix:") {
        Some(path) => ask(UnixStream::connect(path).unwrap(), began),
        None => ask(TcpStream::connect(&upstream).unwrap(), began),
    }
}

/// Asks for a page; how long after `began` its first byte was there. All of it has to be a page, not an error.
pub(crate) fn ask(mut stream: impl Read + Write, began: Instant) -> Duration {
    let mut answer = vec![0];
    stream
        .write_all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        .unwrap();
    stream.read_exact(&mut answer).unwrap();
    let took = began.elapsed();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert_eq!(harness::client::status(&answer), 200, "{answer}");
    took
}

/// Ends the site, until nothing is left of it.
pub(crate) fn stop(client: &mut Client, vhost: &str) {
    let answer = client
        .request("POST", &format!("/v1/vhosts/{vhost}/stop"), b"")
        .unwrap();
    assert_eq!(
        answer.json()["state"],
        "stopped",
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
}

fn rounds(host: &Host, vhost: &str, rounds: usize) -> Vec<Duration> {
    let mut client = Client::connect(&host.socket()).unwrap();
    let mut round = || {
        let took = first_byte(&mut client, vhost);
        stop(&mut client, vhost);
        took
    };
    // The first start of all reads files that stay in memory.
    for _ in 0..10 {
        round();
    }
    (0..rounds).map(|_| round()).collect()
}

/// The server that `scripts/bench` has built, put among the documents; busybox without it. `rest` ends the definition.
pub(crate) fn static_site(host: &Host, name: &str, rest: &str) -> &'static str {
    let Some(server) = std::env::var_os("FASTCONTAINER_BENCH_SERVER") else {
        host.site(name, &format!("{}{LIMITS}{rest}", harness::STATIC));
        return "busybox httpd, which forks for each connection";
    };
    let documents = host.documents(name);
    std::fs::copy(server, documents.join("server")).unwrap();
    host.site(
        name,
        &format!("command = [\"/site/server\"]\nlisten = \"tcp:8080\"\n{LIMITS}{rest}"),
    );
    "a static server"
}

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let host = Host::as_installed("");
    let server = static_site(&host, "a.example.com", "");
    let unix = format!(
        "command = [\"/usr/bin/python3\", \"-c\", {UNIX_SERVER:?}]\nlisten = \"unix:/run/site/s\"\n"
    );
    host.site(
        "b.example.com",
        &format!("{unix}{LIMITS}[network]\nmode = \"private\"\n"),
    );
    let address = rounds(&host, "a.example.com", effort.rounds(5000));
    let private = rounds(&host, "b.example.com", effort.rounds(200));
    host.finish();
    let figures = Figures::millis("fastcontainer", &address);
    let (p50, p99, max) = (figures.p50(), figures.at(99), figures.max());
    vec![
        Row::new(&format!(
            "cold dispatch to first byte: {server}, own address, cpu+memory+pids limits, seccomp"
        ))
        .with(figures)
        .at_most("p50 ms", p50, 1.2)
        .at_most("p99 ms", p99, 5.0)
        .at_most("max ms", max, 50.0),
        Row::new(
            "cold dispatch to first byte: python on a Unix socket, no network (for comparison)",
        )
        .with(Figures::millis("fastcontainer", &private)),
    ]
}
