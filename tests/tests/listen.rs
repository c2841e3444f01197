//! What counts as listening, by both ways to look; Unix sockets; sockets that the agent listens on.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::http::{Answer, read_answer, request};
use harness::sites::put;
use harness::{Host, seconds, time_scale, wait_for};

const SITE: &str = "a.example.com";
const FRONT: u32 = 1777;

/// A server of a few lines: `server.py KIND WHERE`; it accepts, answers, and closes.
const SERVER: &str = r"
import os, socket, sys
kind, where = sys.argv[1:]
if kind == 'unix':
    server = socket.socket(socket.AF_UNIX)
    server.bind(where)
elif kind == 'inherited':
    assert os.environ['LISTEN_FDS'] == '1' and os.environ['LISTEN_PID'] == str(os.getpid())
    server = socket.socket(fileno=3)
else:
    family = socket.AF_INET6 if ':' in where else socket.AF_INET
    server = socket.socket(family)
    if kind == 'v6only':
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((where, 8080))
if kind != 'bound':
    server.listen(64)
else:
    import time; time.sleep(1000)
while True:
    client, _ = server.accept()
    client.recv(4096)
    client.sendall(b'HTTP/1.0 200 OK\r\n\r\nfrom ' + where.encode())
    client.close()
";

/// A host whose front is a group of its own, looking in one of the two ways.
fn host(check: &str) -> Host {
    Host::new(&format!(
        "listen_check = \"{check}\"\nfront_group = {FRONT}\n"
    ))
}

fn site(host: &Host, name: &str, server: &str, listen: &str, more: &str) -> PathBuf {
    let words: Vec<String> = server.split(' ').map(|word| format!("{word:?}")).collect();
    let command = format!(
        "command = [\"python3\", \"/site/server.py\", {}]\nlisten = {listen:?}\n",
        words.join(", ")
    );
    let documents = host.site(name, &format!("{command}{more}"));
    put(&documents, "server.py", SERVER);
    documents
}

fn get_unix(path: &str) -> std::io::Result<Answer> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(seconds(10)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    read_answer(stream)
}

/// Both ways to look give the same answers.
fn both(test: impl Fn(&Host)) {
    for check in ["sock_diag", "proc"] {
        let host = host(check);
        test(&host);
        host.finish();
    }
}

const START: &str = "[start]\ntimeout = \"60s\"\n[stop]\ntimeout = \"1s\"\n";
#[test]
fn what_listens_on_its_address() {
    both(|host| {
        for (number, server) in ["tcp 0.0.0.0", "tcp ::"].into_iter().enumerate() {
            let name = format!("yes{number}.example.com");
            site(host, &name, server, "tcp:8080", START);
            assert_eq!(host.get(&name, "/").status, 200, "{server}");
            assert_eq!(host.dispatch(&name).json()["cold"], false, "{server}");
        }
    });
}

/// Servers that listen elsewhere, that have only bound, that listen on another port.
const DEAF: [(&str, &str); 3] = [
    ("tcp 127.0.0.1", "tcp:8080"),
    ("bound 0.0.0.0", "tcp:8080"),
    ("tcp 0.0.0.0", "tcp:8081"),
];

fn deaf_site(host: &Host, name: &str, server: &str, listen: &str) {
    // Long enough for it to have come up; what is waited for does not happen.
    let timeout = format!("[start]\ntimeout = \"{}s\"\n", 2 + time_scale() / 2);
    site(host, name, server, listen, &timeout);
}

fn never_listened(answer: &Answer, server: &str, listen: &str) {
    assert_eq!(answer.status, 504, "{server}: {answer:?}");
    assert!(
        answer.json()["detail"].as_str().unwrap().contains(listen),
        "{answer:?}"
    );
}

#[test]
fn what_does_not_listen_on_its_address() {
    both(|host| {
        let ask = |name: String| {
            let socket = host.socket();
            let body = format!("{{\"vhost\":{name:?}}}");
            move || request(&socket, "POST", "/v1/dispatch", body.as_bytes()).unwrap()
        };
        // All at once, as each takes its whole time.
        let mut waiting = Vec::new();
        for (number, (server, listen)) in DEAF.into_iter().enumerate() {
            let name = format!("no{number}.example.com");
            deaf_site(host, &name, server, listen);
            waiting.push((std::thread::spawn(ask(name)), server, listen));
        }
        for (answer, server, listen) in waiting {
            never_listened(&answer.join().unwrap(), server, listen);
        }
        assert!(host.snapshot().processes.is_empty());
    });
}

/// Containers have IPv4 addresses. /proc does not tell such a socket from one for both, the kernel's own look-up does.
#[test]
fn ipv6_only_is_not_its_address() {
    let host = host("sock_diag");
    let (server, listen) = ("v6only ::", "tcp:8080");
    deaf_site(&host, SITE, server, listen);
    never_listened(&host.dispatch(SITE), server, listen);
    host.finish();
}

#[test]
fn loopback_is_enough_where_there_is_nothing_else() {
    both(|host| {
        site(
            host,
            SITE,
            "tcp 127.0.0.1",
            "tcp:8080",
            &format!("{START}[network]\nmode = \"private\"\n"),
        );
        for cold in [true, false] {
            let handed = host.connector().ask(SITE).unwrap();
            assert_eq!(
                (&handed.json["state"], &handed.json["cold"]),
                (&"running".into(), &cold.into())
            );
            assert_eq!(handed.get("/").unwrap().body, b"from 127.0.0.1");
        }
    });
}

#[test]
fn a_unix_socket_is_for_the_front() {
    both(|host| {
        site(
            host,
            SITE,
            "unix /run/app/site.sock",
            "unix:/run/app/site.sock",
            &format!("{START}[idle]\ntimeout = \"2s\"\n[network]\nmode = \"private\"\n"),
        );
        let upstream = host.dispatch(SITE).upstream();
        let path = upstream
            .strip_prefix("unix:")
            .expect("a Unix socket")
            .to_owned();
        assert_eq!(get_unix(&path).unwrap().body, b"from /run/app/site.sock");
        // It keeps it awake, in this agent and the next.
        let held = UnixStream::connect(&path).unwrap();
        // The front is another user, in the front's group; nobody else gets there.
        let connect = format!("import socket; socket.socket(socket.AF_UNIX).connect({path:?})");
        let as_ids = |gid: u32| {
            let ids = [
                "--reuid",
                "1888",
                "--regid",
                &gid.to_string(),
                "--clear-groups",
            ]
            .map(str::to_owned);
            fs::set_permissions(&host.dir, fs::Permissions::from_mode(0o755)).unwrap();
            Command::new("setpriv")
                .args(ids)
                .args(["/usr/bin/python3", "-c", &connect])
                .output()
                .unwrap()
        };
        let front = as_ids(FRONT);
        assert!(
            front.status.success(),
            "{}",
            String::from_utf8_lossy(&front.stderr)
        );
        let other = String::from_utf8_lossy(&as_ids(1999).stderr).into_owned();
        assert!(other.contains("PermissionError"), "{other}");
        let pid = host.status(SITE)["pid"].clone();
        host.crash_and_restart();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(4);
        while std::time::Instant::now() < end {
            assert_eq!(host.status(SITE)["pid"], pid);
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        drop(held);
        host.wait_state(SITE, "stopped", 15);
        assert!(!Path::new(&path).exists());
        assert_eq!(
            get_unix(
                host.dispatch(SITE)
                    .upstream()
                    .strip_prefix("unix:")
                    .unwrap()
            )
            .unwrap()
            .status,
            200
        );
    });
}

#[test]
fn a_tenants_link_leads_nowhere() {
    let host = host("sock_diag");
    // Another tenant's socket, and one of the host.
    let aim = host.dir.join("host.sock");
    let listener = std::os::unix::net::UnixListener::bind(&aim).unwrap();
    listener.set_nonblocking(true).unwrap();
    // The tenant swaps its socket for links all the time, from before it listens.
    let script = format!(
        "import os, socket, threading, time\n\
         def swap():\n\
         \x20   os.chdir('/run/app')\n\
         \x20   while True:\n\
         \x20       try:\n\
         \x20           os.symlink({aim:?}, 'link'); os.rename('link', 'site.sock')\n\
         \x20           os.rename('real', 'site.sock'); os.link('site.sock', 'real')\n\
         \x20       except OSError: time.sleep(0.001)\n\
         server = socket.socket(socket.AF_UNIX)\n\
         server.bind('/run/app/site.sock')\n\
         os.link('/run/app/site.sock', '/run/app/real')\n\
         threading.Thread(target=swap, daemon=True).start()\n\
         server.listen(64)\n\
         while True:\n\
         \x20   client, _ = server.accept(); client.recv(4096); client.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\nmine'); client.close()\n"
    );
    let rest = format!(
        "command = [\"python3\", \"/site/swap.py\"]\nlisten = \"unix:/run/app/site.sock\"\n{START}[network]\nmode = \"private\"\n"
    );
    let documents = host.site(SITE, &rest);
    put(&documents, "swap.py", &script);
    let mut served = 0;
    for _ in 0..15 {
        let answer = host.dispatch(SITE);
        if answer.status == 200 {
            let path = answer.upstream().strip_prefix("unix:").unwrap().to_owned();
            assert!(
                fs::symlink_metadata(&path)
                    .is_ok_and(|status| !status.file_type().is_symlink() && status.uid() >= 1000),
                "{path}"
            );
            assert_eq!(get_unix(&path).unwrap().body, b"mine");
            served += 1;
        } else {
            assert!(matches!(answer.status, 503 | 504), "{answer:?}");
        }
        assert_eq!(host.verb(SITE, "stop").status, 200);
    }
    assert!(
        listener.accept().is_err(),
        "nobody has been led to the host's socket"
    );
    // Whoever swaps harms himself only; it is not always that he is caught in the act.
    assert!(served > 0 || host.status(SITE)["starts"].as_u64() >= Some(15));
    host.finish();
}

#[test]
fn the_agent_listens_for_who_is_activated() {
    both(|host| {
        site(host, SITE, "inherited activated", "activate", START);
        let cold = host.dispatch(SITE);
        assert_eq!(cold.json()["cold"], true);
        assert_eq!(host.get(SITE, "/").body, b"from activated");
        // Without a network: by a socket in the file system.
        let name = "b.example.com";
        site(
            host,
            name,
            "inherited private",
            "activate",
            &format!("{START}[idle]\ntimeout = \"2s\"\n[network]\nmode = \"private\"\n"),
        );
        let path = host
            .dispatch(name)
            .upstream()
            .strip_prefix("unix:")
            .unwrap()
            .to_owned();
        assert_eq!(get_unix(&path).unwrap().body, b"from private");
        let status = fs::symlink_metadata(&path).unwrap();
        assert_eq!(
            (status.gid(), status.permissions().mode() & 0o777),
            (FRONT, 0o660)
        );
        wait_for("idleness ends it", seconds(15), || {
            host.state(name) == "stopped"
        });
        assert!(!Path::new(&path).exists());
    });
}
