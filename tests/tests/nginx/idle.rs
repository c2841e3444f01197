//! Idleness, seen through nginx: what is open keeps a site awake.

use std::io::{Read, Write};
use std::net::TcpStream;

use harness::{Host, STATIC, seconds};

use crate::front::{ADDRESS, Nginx, get};
use crate::unix_site;

#[test]
fn an_idle_site_stops_and_an_open_connection_keeps_it() {
    let host = Host::new("");
    let nginx = Nginx::start(&host);
    unix_site(&host, "unix.example.com", "1s");
    host.site(
        "static.example.com",
        &format!("{STATIC}[idle]\ntimeout = \"1s\"\n"),
    );
    for _round in 0..2 {
        for name in ["static.example.com", "unix.example.com"] {
            assert_eq!(get(name).status, 200, "{}", nginx.log());
        }
        for name in ["static.example.com", "unix.example.com"] {
            host.wait_state(name, "stopped", 20);
        }
    }
    // An event comes through while the answer goes on; so do both directions of an upgraded connection.
    let mut events = TcpStream::connect(ADDRESS).unwrap();
    events.set_read_timeout(Some(seconds(20))).unwrap();
    events
        .write_all(
            b"GET /events HTTP/1.1\r\nHost: unix.example.com\r\nAccept: text/event-stream\r\n\r\n",
        )
        .unwrap();
    read_until(&mut events, "data: first");
    let mut socket = TcpStream::connect(ADDRESS).unwrap();
    socket.set_read_timeout(Some(seconds(20))).unwrap();
    socket.write_all(b"GET /socket HTTP/1.1\r\nHost: unix.example.com\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").unwrap();
    read_until(&mut socket, "\r\n\r\n");
    socket.write_all(b"hello\n").unwrap();
    read_until(&mut socket, "hello\n");
    let pid = host.status("unix.example.com")["pid"].clone();
    // Longer than the idle time: measured by another site's, whose request comes last.
    for _round in 0..2 {
        assert_eq!(get("static.example.com").status, 200);
        host.wait_state("static.example.com", "stopped", 20);
    }
    assert_eq!(
        (
            host.state("unix.example.com").as_str(),
            &host.status("unix.example.com")["pid"]
        ),
        ("running", &pid)
    );
    socket.write_all(b"again\n").unwrap();
    read_until(&mut socket, "again\n");
    drop((events, socket));
    host.wait_state("unix.example.com", "stopped", 20);
    drop(nginx);
    host.finish();
}

fn read_until(stream: &mut TcpStream, end: &str) {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains(end) {
        let n = stream.read(&mut buffer).unwrap_or_else(|e| {
            panic!(
                "{e}; before {end:?} came {:?}",
                String::from_utf8_lossy(&seen)
            )
        });
        assert!(
            n > 0,
            "ended before {end:?}: {:?}",
            String::from_utf8_lossy(&seen)
        );
        seen.extend_from_slice(&buffer[..n]);
    }
}
