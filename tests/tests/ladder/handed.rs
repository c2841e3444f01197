//! Connections that were handed over, kept while a site is frozen: data on one wakes it as data over its link does.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use harness::limits::{SITE, events};
use harness::{Host, rounds, run, seconds, sites, wait_for};
use rustix::net::sockopt;

use super::kept::{define_echo, freeze, hear, patient, probe, say};
use super::pid;

/// Descriptors are counted.
const NOTHING_AHEAD: &str = "[pool]\naddress = 0\nprivate = 0\n";

/// Takes connections and reads nothing.
const DEAF: &str = "\
import socket
server = socket.create_server(('0.0.0.0', 8080))
kept = []
while True:
    kept.append(server.accept())
";

/// Each kind of site that listens on TCP.
const MODES: [&str; 2] = ["address", "private"];

fn echo(host: &Host, mode: &str) -> BufReader<TcpStream> {
    define_echo(host, &format!("[network]\nmode = \"{mode}\"\n"));
    hold(host)
}

/// A connection that works.
fn hold(host: &Host) -> BufReader<TcpStream> {
    let connection = host.connector().ask(SITE).unwrap().connection();
    let stream = TcpStream::from(connection);
    stream.set_nonblocking(false).unwrap();
    let mut stream = BufReader::new(patient(stream));
    say(&mut stream, "first");
    stream
}

/// Waits until the agent has as many descriptors; it closes those of requests and of a wake-up in the background.
fn wait_descriptors(host: &Host, wanted: usize) {
    wait_for("descriptors", seconds(20), || host.descriptors() == wanted);
}

/// Gives the network namespace of the site a link that goes with it, and that this one here sees.
fn mark_namespace(host: &Host) {
    let namespace = pid(host).to_string();
    let words = "link add mark type veth peer name other netns";
    let words: Vec<&str> = words.split(' ').chain([&*namespace]).collect();
    run("ip", &words);
}

fn is_marked(host: &Host) -> bool {
    host.snapshot().links.contains("mark")
}

#[test]
fn data_wakes_it_and_nothing_less_does() {
    for mode in MODES {
        let host = Host::new(NOTHING_AHEAD);
        let mut stream = echo(&host, mode);
        let process = pid(&host);
        freeze(&host);
        say(&mut stream, "what is made once is there");
        let other = hold(&host);
        let before = host.settled_descriptors();
        // One more, however often it is asked for.
        for _ in 0..5 {
            freeze(&host);
        }
        wait_descriptors(&host, before + 1);
        // Probes, and the end of a connection.
        probe(stream.get_ref());
        drop(other);
        thread::sleep(Duration::from_millis(2500));
        assert_eq!(host.state(SITE), "frozen", "{mode}");
        say(&mut stream, "frozen");
        assert_eq!(host.state(SITE), "running", "{mode}");
        let woken = events(&host, "state").pop().unwrap();
        assert_eq!(woken["cause"], "data on a connection", "{woken}");
        for round in 0..rounds(40, 5) {
            freeze(&host);
            say(&mut stream, &format!("round {round}"));
            assert_eq!(host.state(SITE), "running", "{mode}");
        }
        wait_descriptors(&host, before);
        assert_eq!(
            (pid(&host), &host.status(SITE)["starts"]),
            (process, &1.into())
        );
        drop(stream);
        host.finish();
    }
}

#[test]
fn what_comes_while_it_is_being_frozen_wakes_it() {
    let host = Host::new("");
    let documents = host.documents(SITE);
    sites::put(&documents, "app.py", DEAF);
    let definition = "command = [\"python3\", \"/site/app.py\"]\nlisten = \"tcp:8080\"\n[network]\nmode = \"private\"\n";
    host.site(SITE, definition);
    let connector = host.connector();
    for round in 0..rounds(60, 10) {
        let connection = connector.ask(SITE).unwrap().connection();
        thread::scope(|scope| {
            scope.spawn(|| {
                // Before it, within it or after it, from round to round.
                thread::sleep(Duration::from_micros(u64::from(round % 30) * 300));
                rustix::io::write(&connection, b"x").unwrap();
            });
            assert_eq!(host.verb(SITE, "freeze").status, 200);
        });
        host.wait_state(SITE, "running", 20);
        let woken = events(&host, "state").pop().unwrap();
        assert_eq!(woken["cause"], "data on a connection", "{woken}");
        // Reset, so that nothing is left that could be read.
        sockopt::set_socket_linger(&connection, Some(Duration::ZERO)).unwrap();
    }
    host.finish();
}

#[test]
fn data_wakes_it_under_the_next_agent_and_what_came_between_them_does() {
    for mode in MODES {
        let host = Host::new("");
        let mut stream = echo(&host, mode);
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
        freeze(&host);
        host.signal_agent(libc::SIGTERM);
        host.start();
        assert_eq!(host.state(SITE), "frozen");
        say(&mut stream, "to one after an orderly end");
        assert_eq!((host.state(SITE), pid(&host)), ("running".into(), process));
        drop(stream);
        host.finish();
    }
}

#[test]
fn its_network_namespace_ends_with_it() {
    for mode in MODES {
        for agents in [1, 2] {
            let host = Host::new(NOTHING_AHEAD);
            let stream = echo(&host, mode);
            mark_namespace(&host);
            freeze(&host);
            if agents == 2 {
                host.crash_and_restart();
            }
            assert_eq!(host.verb(SITE, "stop").json()["state"], "stopped");
            assert!(is_marked(&host), "the connection holds it");
            drop(stream);
            wait_for("its namespace is gone", seconds(20), || !is_marked(&host));
            host.finish();
        }
    }
}

#[test]
fn a_frozen_one_that_is_killed_leaves_nothing() {
    let host = Host::new(NOTHING_AHEAD);
    let stream = echo(&host, "private");
    let before = host.settled_descriptors();
    mark_namespace(&host);
    freeze(&host);
    drop(stream);
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid(&host))).unwrap();
    let init = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    harness::send_signal(init.unwrap().trim().parse().unwrap(), libc::SIGKILL);
    host.wait_state(SITE, "stopped", 20);
    wait_for("its namespace is gone", seconds(20), || !is_marked(&host));
    wait_for("descriptors are as before", seconds(20), || {
        host.descriptors() <= before
    });
    host.finish();
}
