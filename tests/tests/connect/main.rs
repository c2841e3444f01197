//! Connections that the agent makes inside a site's network namespace and hands over.
#![allow(clippy::unwrap_used, missing_docs)]

mod refusals;
mod strain;

use std::os::fd::OwnedFd;

use harness::connect::{Connector, get};
use harness::sites::put;
use harness::{Host, STATIC, seconds, wait_for};

const SITE: &str = "a.example.com";

/// A site that nobody outside can reach.
const PRIVATE: &str = r#"
command = ["/usr/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/site"]
listen = "tcp:8080"
[network]
mode = "private"
"#;

/// `server.py unix PATH`, `tcp BACKLOG`, `inherited`, all of which answer; `again`, which listens anew for each; or `full`, which
/// accepts nothing.
const SERVER: &str = r"
import os, socket, sys, time
kind, more = sys.argv[1], sys.argv[2]
def listener():
    if kind == 'inherited':
        return socket.socket(fileno=3)
    if more.startswith('/'):
        server = socket.socket(socket.AF_UNIX)
        if os.path.exists(more):
            os.unlink(more)
        server.bind(more)
    else:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(('0.0.0.0', 8080))
    server.listen(0 if kind == 'full' else 64)
    return server
server = listener()
while kind == 'full' and not os.path.exists('/site/go'):
    time.sleep(0.01)
while True:
    client, _ = server.accept()
    client.recv(4096)
    if kind == 'again':
        server.close()
    client.sendall(b'HTTP/1.0 200 OK\r\n\r\n' + kind.encode())
    client.close()
    if kind == 'again':
        time.sleep(0.2)
        server = listener()
";

/// Defines a site with that server; `rest` is TOML behind `listen`.
fn python(host: &Host, name: &str, words: [&str; 2], listen: &str, rest: &str) {
    let [kind, more] = words;
    let documents = host.site(
        name,
        &format!(
            "command = [\"python3\", \"/site/server.py\", {kind:?}, {more:?}]\nlisten = {listen:?}\n[stop]\ntimeout = \
             \"1s\"\n{rest}"
        ),
    );
    put(&documents, "server.py", SERVER);
}

/// A connection to the site that is kept.
fn hold(connector: &Connector, vhost: &str) -> OwnedFd {
    connector.ask(vhost).unwrap().connection()
}

#[test]
fn every_kind_of_site_is_reached() {
    let host = Host::new("");
    let private = "[network]\nmode = \"private\"\n";
    host.site("private.example.com", PRIVATE);
    host.site("address.example.com", STATIC);
    let path = "/run/site/s";
    python(
        &host,
        "unix.example.com",
        ["unix", path],
        &format!("unix:{path}"),
        private,
    );
    python(
        &host,
        "activated.example.com",
        ["inherited", ""],
        "activate",
        private,
    );
    python(&host, "both.example.com", ["inherited", ""], "activate", "");
    let connector = host.connector();
    for (name, page) in [
        ("private", "<h1>private.example.com</h1>\n"),
        ("address", "<h1>address.example.com</h1>\n"),
        ("unix", "unix"),
        ("activated", "inherited"),
        ("both", "inherited"),
    ] {
        let vhost = format!("{name}.example.com");
        for cold in [true, false] {
            let handed = connector.ask(&vhost).unwrap();
            let said = handed.json.clone();
            assert_eq!(
                (&said["status"], &said["vhost"]),
                (&200.into(), &vhost.as_str().into())
            );
            assert_eq!(
                (&said["state"], &said["cold"]),
                (&"running".into(), &cold.into())
            );
            assert_eq!(said.get("phases").is_some(), cold, "{said}");
            assert!(said["start_ms"].as_f64().unwrap() > 0.0 || !cold, "{said}");
            let answer = handed.get("/").unwrap_or_else(|e| panic!("{said}: {e}"));
            assert_eq!(String::from_utf8_lossy(&answer.body), page, "{said}");
        }
        let status = host.status(&vhost);
        assert_eq!(
            (&status["dispatches"], &status["starts"]),
            (&2.into(), &1.into())
        );
    }
    host.finish();
}

#[test]
fn where_there_is_no_address_none_is_told() {
    let host = Host::new("");
    host.site(SITE, PRIVATE);
    // Neither is it woken for nothing.
    for _ in 0..2 {
        let refused = host.dispatch(SITE);
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert_eq!(refused.status, 409, "{detail}");
        assert!(
            detail.contains("connect.sock") && detail.contains("mode = \"address\""),
            "{detail}"
        );
        assert_eq!(host.state(SITE), "stopped");
    }
    assert_eq!(host.verb(SITE, "start").status, 200);
    assert_eq!(host.dispatch(SITE).status, 409);
    assert_eq!(host.status(SITE)["upstream"], serde_json::Value::Null);
    assert_eq!(
        host.connector().ask(SITE).unwrap().get("/").unwrap().status,
        200
    );
    host.finish();
}

#[test]
fn a_connection_keeps_it_and_only_while_it_is_open() {
    let host = Host::new("");
    host.site(SITE, &format!("{PRIVATE}[idle]\ntimeout = \"1s\"\n"));
    let unix = "b.example.com";
    let rest = "[network]\nmode = \"private\"\n[idle]\ntimeout = \"1s\"\n";
    python(
        &host,
        unix,
        ["unix", "/run/site/s"],
        "unix:/run/site/s",
        rest,
    );
    let connector = host.connector();
    let held = [hold(&connector, SITE), hold(&connector, unix)];
    let pid = |vhost| host.status(vhost)["pid"].clone();
    let before = [pid(SITE), pid(unix)];
    // Looked at meanwhile, as an idle site would have been.
    let end = std::time::Instant::now() + std::time::Duration::from_millis(2500);
    while std::time::Instant::now() < end {
        assert_eq!([host.state(SITE), host.state(unix)], ["running", "running"]);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!([pid(SITE), pid(unix)], before);
    for connection in held {
        assert_eq!(get(connection, "/").unwrap().status, 200);
    }
    for vhost in [SITE, unix] {
        host.wait_state(vhost, "stopped", 10);
    }
    host.finish();
}

#[test]
fn connections_outlive_the_agent() {
    let host = Host::new("");
    host.site(SITE, PRIVATE);
    let path = host.run_dir.join("connect.sock");
    let (old, held) = (host.connector(), hold(&host.connector(), SITE));
    let pid = host.status(SITE)["pid"].clone();
    host.crash_and_restart();
    assert!(old.ask(SITE).is_err(), "of an agent that is gone");
    assert_eq!(get(held, "/").unwrap().status, 200);
    let handed = host.connector().ask(SITE).unwrap();
    assert_eq!(handed.json["cold"], false);
    assert_eq!(handed.get("/").unwrap().status, 200);
    assert_eq!(host.status(SITE)["pid"], pid);
    host.signal_agent(libc::SIGTERM);
    wait_for("the socket is gone", seconds(5), || !path.exists());
    host.start();
    assert_eq!(host.connector().ask(SITE).unwrap().json["cold"], false);
    host.finish();
}
