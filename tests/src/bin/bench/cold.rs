//! From a dispatch request for a stopped site to the first byte of its answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use harness::Host;
use harness::client::Client;

use crate::Effort;
use crate::alone::Alone;
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

/// Between two starts that find everything that is made ahead: more than the agent takes to make it again.
pub(crate) const PAUSE: Duration = Duration::from_millis(25);

fn rounds(host: &Host, vhost: &str, rounds: usize, pause: Duration) -> Vec<Duration> {
    let mut client = Client::connect(&host.socket()).unwrap();
    let mut round = || {
        let took = first_byte(&mut client, vhost);
        stop(&mut client, vhost);
        std::thread::sleep(pause);
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
    let own = "a.example.com";
    let mut alone = Alone::new(&host, "a.example.com");
    let (pooled, calls) = (0..effort.rounds(20))
        .map(|_| {
            let pooled = rounds(&host, own, effort.rounds(250), PAUSE);
            // In turn, so that whatever else the machine does meets both alike.
            let calls = (0..20).map(|_| alone.first_byte()).collect();
            (pooled, calls)
        })
        .collect::<(Vec<_>, Vec<Vec<_>>)>();
    let (pooled, calls) = (pooled.concat(), calls.concat());
    let at_once = rounds(&host, own, effort.rounds(5000), Duration::ZERO);
    let private = rounds(&host, "b.example.com", effort.rounds(200), Duration::ZERO);
    drop(alone);
    host.finish();
    let what = format!("{server}, own address, cpu+memory+pids limits, seccomp");
    let pooled = Figures::millis("fastcontainer", &pooled);
    let calls = Figures::millis("the system calls alone, network made ahead", &calls);
    let times = pooled.p50() / calls.p50();
    let at_once = Figures::millis("fastcontainer", &at_once);
    let (p50, p99, max) = (pooled.p50(), pooled.at(99), pooled.max());
    let (p99_at_once, max_at_once) = (at_once.at(99), at_once.max());
    vec![
        Row::new(&format!(
            "cold dispatch to first byte, all that is made ahead is there: {what}"
        ))
        .with(pooled)
        .with(calls)
        .at_most("times what the system calls take", times, 1.3)
        .at_most("p50 ms", p50, 1.2)
        .at_most("p99 ms", p99, 5.0)
        .at_most("max ms", max, 50.0),
        Row::new(&format!(
            "the same, one after the other without a pause: {what}"
        ))
        .with(at_once)
        .at_most("p99 ms", p99_at_once, 5.0)
        .at_most("max ms", max_at_once, 50.0),
        Row::new(
            "cold dispatch to first byte: python on a Unix socket, no network (for comparison)",
        )
        .with(Figures::millis("fastcontainer", &private)),
    ]
}
