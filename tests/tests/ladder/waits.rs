//! Requests that wait for a server which does not listen at the moment hold off the ladder.

use std::thread;
use std::time::Duration;

use harness::limits::{SITE, events};
use harness::{Host, seconds, sites, wait_for};

/// Stops listening when it is asked to, and listens again when a file says so.
const MOODY: &str = "\
import http.server, os, threading, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '0')
        self.end_headers()
        if self.path == '/deaf':
            threading.Thread(target=self.server.shutdown).start()
    def log_message(self, *words):
        pass
class Server(http.server.ThreadingHTTPServer):
    allow_reuse_address = True
while True:
    server = Server(('0.0.0.0', 8080), Handler)
    server.serve_forever()
    server.server_close()
    while not os.path.exists('/site/listen'):
        time.sleep(0.02)
";

fn moody() -> Host {
    let host = Host::new("");
    let documents = host.documents(SITE);
    sites::put(&documents, "app.py", MOODY);
    host.site(
        SITE,
        "command = [\"python3\", \"/site/app.py\"]\nlisten = \"tcp:8080\"\n\
         [start]\ntimeout = \"60s\"\n[idle]\ntimeout = \"1s\"\naction = \"freeze\"\n",
    );
    let upstream = host.dispatch(SITE).upstream();
    assert_eq!(
        harness::http::get(&upstream, "/deaf", seconds(20))
            .unwrap()
            .status,
        200
    );
    wait_for("it does not listen", seconds(20), || {
        std::net::TcpStream::connect(&upstream).is_err()
    });
    host
}

/// The site is asked for; once that request waits, `meanwhile` happens to it; then it listens again.
fn asked_while_deaf(host: &Host, meanwhile: impl FnOnce()) {
    thread::scope(|scope| {
        let socket = host.socket();
        let asked = scope.spawn(move || {
            let body = format!("{{\"vhost\":\"{SITE}\"}}");
            harness::http::request(&socket, "POST", "/v1/dispatch", body.as_bytes()).unwrap()
        });
        wait_for("the request has come", seconds(20), || {
            host.status(SITE)["dispatches"].as_u64() >= Some(2)
        });
        meanwhile();
        sites::put(&host.documents(SITE), "listen", "");
        let answer = asked.join().unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(
            harness::http::get(&answer.upstream(), "/", seconds(20))
                .unwrap()
                .status,
            200
        );
    });
    assert_eq!(host.status(SITE)["starts"], 1);
}

#[test]
fn a_request_that_waits_keeps_it_from_being_frozen() {
    let host = moody();
    let freezes = || {
        let events = events(&host, "state");
        events
            .iter()
            .filter(|event| event["to"] == "frozen")
            .count()
    };
    asked_while_deaf(&host, || {
        // It may have been idle for long enough before it was asked for, and it will be afterwards.
        let before = freezes();
        thread::sleep(Duration::from_millis(2500));
        assert_eq!(freezes(), before);
        assert_eq!(host.state(SITE), "running");
    });
    host.finish();
}

#[test]
fn a_request_that_waits_thaws_it_when_an_operator_freezes_it() {
    let host = moody();
    asked_while_deaf(&host, || {
        assert_eq!(host.verb(SITE, "freeze").status, 200);
        wait_for("it is thawed", seconds(20), || {
            host.state(SITE) == "running"
        });
    });
    host.finish();
}
