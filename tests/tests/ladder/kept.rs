//! Connections that are kept while a site rests, and what wakes it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use harness::limits::{SITE, events};
use harness::swap::Swap;
use harness::{Host, STATIC, rounds, seconds, sites, wait_for};
use rustix::net::sockopt;

use super::pid;

/// Keeps connections, and says on them what it hears.
const ECHO: &str = "\
import socketserver
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
Server(('0.0.0.0', 8080), Handler).serve_forever()
";

/// A site that does; `more` is the rest of `[idle]`, and what follows.
pub(super) fn define_echo(host: &Host, more: &str) {
    let documents = host.documents(SITE);
    sites::put(&documents, "app.py", ECHO);
    host.site(
        SITE,
        &format!(
            "command = [\"python3\", \"/site/app.py\"]\nlisten = \"tcp:8080\"\n\
             [start]\ntimeout = \"60s\"\n[idle]\ntimeout = \"24h\"\n{more}"
        ),
    );
}

/// A connection to one; `idle` is the rest of `[idle]`.
fn echo(host: &Host, idle: &str) -> BufReader<TcpStream> {
    define_echo(host, idle);
    let mut stream = BufReader::new(connect(host));
    say(&mut stream, "first");
    stream
}

fn connect(host: &Host) -> TcpStream {
    patient(TcpStream::connect(host.dispatch(SITE).upstream()).unwrap())
}

/// The same connection: what is written is sent at once, what is to be read waited for.
pub(super) fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(seconds(30))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Has the kernel ask every second whether the other end is still there.
pub(super) fn probe(socket: &TcpStream) {
    sockopt::set_tcp_keepidle(socket, Duration::from_secs(1)).unwrap();
    sockopt::set_tcp_keepintvl(socket, Duration::from_secs(1)).unwrap();
    sockopt::set_socket_keepalive(socket, true).unwrap();
}

pub(super) fn say(stream: &mut BufReader<TcpStream>, word: &str) {
    writeln!(stream.get_mut(), "{word}").unwrap();
    hear(stream, word);
}

pub(super) fn hear(stream: &mut BufReader<TcpStream>, word: &str) {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert_eq!(line, format!("{word}\n"));
}

pub(super) fn freeze(host: &Host) {
    assert_eq!(host.verb(SITE, "freeze").json()["state"], "frozen");
}

#[test]
fn data_on_a_kept_connection_wakes_it_and_nothing_less_does() {
    let host = Host::new("");
    let mut stream = echo(&host, "");
    let process = pid(&host);
    freeze(&host);
    // Probes of a kept connection, a new connection, and the end of one.
    let socket = stream.get_ref();
    probe(socket);
    drop(TcpStream::connect(socket.peer_addr().unwrap()).unwrap());
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(host.state(SITE), "frozen");
    say(&mut stream, "frozen");
    assert_eq!(host.state(SITE), "running");
    let woken = events(&host, "state").pop().unwrap();
    assert_eq!(woken["cause"], "data on a connection", "{woken}");
    // Told anew after each freeze.
    for round in 0..rounds(40, 5) {
        freeze(&host);
        say(&mut stream, &format!("round {round}"));
        assert_eq!(host.state(SITE), "running");
    }
    assert_eq!(
        (pid(&host), &host.status(SITE)["starts"]),
        (process, &1.into())
    );
    drop(stream);
    host.finish();
}

#[test]
fn data_wakes_it_under_the_next_agent_and_what_came_between_them_does() {
    let host = Host::new("");
    let mut stream = echo(&host, "");
    let process = pid(&host);
    freeze(&host);
    host.crash_and_restart();
    assert_eq!(host.state(SITE), "frozen");
    say(&mut stream, "to the second");
    assert_eq!(host.state(SITE), "running");
    freeze(&host);
    host.signal_agent(libc::SIGKILL);
    writeln!(stream.get_mut(), "to none").unwrap();
    host.start();
    hear(&mut stream, "to none");
    assert_eq!((host.state(SITE), pid(&host)), ("running".into(), process));
    drop(stream);
    host.finish();
}

#[test]
fn data_wakes_a_reclaimed_one() {
    let Some(_swap) = Swap::new() else {
        return;
    };
    let host = Host::new("");
    let idle = "action = \"ladder\"\nreclaim_after = \"500ms\"\nstop_after = \"500ms\"\n";
    let mut stream = echo(&host, idle);
    freeze(&host);
    wait_for("its memory has been given back", seconds(150), || {
        !events(&host, "reclaim").is_empty()
    });
    // It would be stopped by now, were it not for the connection.
    thread::sleep(Duration::from_secs(1));
    assert_eq!(host.state(SITE), "reclaimed");
    say(&mut stream, "reclaimed");
    assert_eq!(host.state(SITE), "running");
    drop(stream);
    host.finish();
}

#[test]
fn a_request_on_a_connection_that_was_kept_alive_is_answered() {
    let host = Host::new("");
    // The server keeps it open for as long as the request is not complete.
    host.site(SITE, STATIC);
    let mut stream = connect(&host);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").unwrap();
    freeze(&host);
    stream.write_all(b"Connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(host.state(SITE), "running");
    drop(stream);
    host.finish();
}

#[test]
fn another_site_cannot_wake_it() {
    let host = Host::new("");
    let stream = echo(&host, "");
    let address = stream.get_ref().peer_addr().unwrap();
    let other = "other.example.com";
    host.site(other, STATIC);
    assert_eq!(host.get(other, "/").status, 200);
    freeze(&host);
    let attempt = format!(
        "import socket\n\
         try:\n    socket.create_connection(('{}', {}), 2).sendall(b'wake')\n    print('sent')\n\
         except OSError:\n    print('refused')",
        address.ip(),
        address.port()
    );
    let said = host.ctl(&["exec", other, "--", "python3", "-c", &attempt]);
    assert_eq!(
        String::from_utf8_lossy(&said.stdout),
        "refused\n",
        "{said:?}"
    );
    assert_eq!(host.state(SITE), "frozen");
    drop(stream);
    host.finish();
}
