//! A stock nginx in front, with the configuration that is shipped.
#![allow(clippy::unwrap_used, missing_docs)]

mod front;
mod idle;
mod refusals;

use std::fs;

use harness::{Host, STATIC, sites};

use front::{Nginx, ask, get, send, text};

/// Apache with PHP, and a page that tells what it was sent.
fn php_site(host: &Host, name: &str, rest: &str) {
    sites::apache(host, name, rest);
    let page = "<?php echo json_encode(['headers' => getallheaders(), 'uri' => $_SERVER['REQUEST_URI'], \
                'method' => $_SERVER['REQUEST_METHOD'], 'body' => file_get_contents('php://input')]);";
    sites::put(&host.dir.join("www").join(name), "index.php", page);
}

/// A server on a Unix socket that knows three kinds of connections which stay open.
const PYTHON: &str = r#"
import os, socket, threading
listener = socket.socket(socket.AF_UNIX)
listener.bind("/run/site/app.sock")
listener.listen(64)
def serve(connection):
    stream = connection.makefile("rb")
    request = stream.readline().split()
    headers = {}
    while (line := stream.readline().strip()):
        name, value = line.split(b":", 1)
        headers[name.strip().lower()] = value.strip()
    if headers.get(b"upgrade") == b"echo":
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        while (line := stream.readline()):
            connection.sendall(line)
    elif request[1] == b"/events":
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: first\n\n")
        stream.read(1)
    else:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nunix\n")
    connection.close()
while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
"#;

fn unix_site(host: &Host, name: &str, idle: &str) {
    let documents = host.documents(name);
    fs::write(documents.join("app.py"), PYTHON).unwrap();
    let rest = "command = [\"python3\", \"/site/app.py\"]\nlisten = \"unix:/run/site/app.sock\"\n[network]\nmode = \"private\"\n";
    host.site(name, &format!("{rest}[idle]\ntimeout = \"{idle}\"\n"));
}

#[test]
fn requests_reach_sites_on_tcp_and_unix_sockets() {
    let host = Host::new("");
    let nginx = Nginx::start(&host);
    host.site("static.example.com", STATIC);
    unix_site(&host, "unix.example.com", "60s");
    php_site(
        &host,
        "php.example.com",
        "aliases = [\"www.php.example.com\"]\n",
    );

    for _cold_then_warm in 0..2 {
        let answer = get("static.example.com");
        assert_eq!(
            (answer.status, text(&answer).as_str()),
            (200, "<h1>static.example.com</h1>\n"),
            "{}",
            nginx.log()
        );
        let answer = get("unix.example.com");
        assert_eq!(
            (answer.status, text(&answer).as_str()),
            (200, "unix\n"),
            "{}",
            nginx.log()
        );
    }
    // The path goes through unchanged; what a visitor claims about himself does not.
    let claims = "X-Vhost: static.example.com\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nForwarded: for=1.2.3.4\r\nProxy: x\r\n";
    let answer = ask("WWW.php.Example.com:8080", "/%41%2f/../a%20b?q=%26", claims);
    assert_eq!(
        answer.status, 404,
        "Apache decodes no %2f: it was not normalised on the way"
    );
    let answer = ask("WWW.php.Example.com:8080", "/index.php/%41?q=%26", claims);
    assert_eq!(answer.status, 200, "{}", text(&answer));
    let seen = answer.json();
    assert_eq!(seen["uri"], "/index.php/%41?q=%26");
    let headers = &seen["headers"];
    assert_eq!(
        (&headers["Host"], &headers["X-Forwarded-Host"]),
        (
            &"www.php.example.com:8080".into(),
            &"www.php.example.com:8080".into()
        )
    );
    assert_eq!(
        (&headers["X-Forwarded-For"], &headers["X-Forwarded-Proto"]),
        (&"127.0.0.1".into(), &"http".into())
    );
    for name in ["X-Vhost", "Forwarded", "Proxy"] {
        assert!(
            headers.get(name).is_none(),
            "{name} came through: {headers}"
        );
    }
    // A body, and its method, survive the dispatch.
    let body = "x".repeat(100_000);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: php.example.com\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let seen = send(format!("{head}{body}").as_bytes()).json();
    assert_eq!(
        (seen["method"].as_str(), seen["body"].as_str()),
        (Some("POST"), Some(body.as_str()))
    );
    drop(nginx);
    host.finish();
}

#[test]
fn fifty_visitors_at_once_start_one_container() {
    let host = Host::new("");
    let nginx = Nginx::start(&host);
    php_site(&host, "php.example.com", "");
    let visitors: Vec<_> = (0..50)
        .map(|_| std::thread::spawn(|| get("php.example.com")))
        .collect();
    for visitor in visitors {
        let answer = visitor.join().unwrap();
        assert_eq!(answer.status, 200, "{}\n{}", text(&answer), nginx.log());
        assert_eq!(answer.json()["method"], "GET");
    }
    let metrics = text(&host.request("GET", "/metrics", b""));
    assert!(
        metrics
            .lines()
            .any(|line| line == "fastcontainer_starts_total 1"),
        "{metrics}"
    );
    drop(nginx);
    host.finish();
}
