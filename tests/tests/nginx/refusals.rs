//! What visitors see when there is nothing for them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use harness::{Answer, Host, STATIC};

use crate::front::{Nginx, ask, get, send, text};

/// The visitor's page: status, its words, no detail of the inside.
fn refused(answer: &Answer, status: u16, words: &str) {
    let page = text(answer);
    assert_eq!(answer.status, status, "{}\n{page}", answer.head);
    assert!(
        page.contains(words) && page.starts_with("<!doctype html>"),
        "{page}"
    );
    assert_eq!(
        answer.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(
        answer.header("retry-after").is_some(),
        status == 503,
        "{}",
        answer.head
    );
}

#[test]
fn each_refusal_has_its_status() {
    let host = Host::new("");
    let nginx = Nginx::start(&host);
    let not_available = "not available right now";
    host.site("up.example.com", STATIC);
    host.site("down.example.com", STATIC);
    host.site(
        "crash.example.com",
        "command = [\"/bin/sh\", \"-c\", \"exit 3\"]\nlisten = \"tcp:8080\"\n",
    );
    host.site("slow.example.com", "command = [\"/bin/sleep\", \"1000\"]\nlisten = \"tcp:8080\"\n[start]\ntimeout = \"300ms\"\n");
    assert_eq!(host.verb("down.example.com", "down").status, 200);
    let down = get("down.example.com");
    refused(&down, 503, not_available);
    assert_eq!(down.header("retry-after"), Some("60"));
    refused(&get("crash.example.com"), 503, not_available);
    refused(&get("crash.example.com"), 503, not_available);
    refused(&get("slow.example.com"), 504, "too long to start");
    refused(&get("other.example.com"), 404, "no such site");
    // Whatever a visitor writes as a host name.
    refused(&get(&"a".repeat(300)), 404, "no such site");
    refused(
        &get(&format!("{}example.com", "a.".repeat(2000))),
        404,
        "no such site",
    );
    for odd in [
        "a_b.example.com",
        "-",
        "%00",
        "x%2fy",
        "$host",
        "'\"<>",
        "[::1]:80",
        "cgroup.procs",
        "10.88.0.1",
    ] {
        refused(&get(odd), 404, "no such site");
    }
    refused(
        &ask("b\u{fc}cher.example.com", "/", ""),
        400,
        "not a valid host name",
    );
    assert_eq!(get("../x").status, 400);
    assert_eq!(get("a..b").status, 400);
    // The last dot of a full name, and upper case, are the same name.
    assert_eq!(get("UP.example.com.").status, 200);
    // The location that asks the agent is nobody's, and X-Vhost chooses nothing.
    assert_eq!(
        ask("up.example.com", "/.fastcontainer/dispatch", "").status,
        404
    );
    refused(
        &ask("down.example.com", "/", "X-Vhost: up.example.com\r\n"),
        503,
        not_available,
    );
    // HEAD has no page, but the same status.
    let head = send(b"HEAD / HTTP/1.1\r\nHost: down.example.com\r\nConnection: close\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (503, 0));
    // A POST is refused alike, and its body goes nowhere.
    let post = b"POST / HTTP/1.1\r\nHost: down.example.com\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";
    refused(&send(post), 503, not_available);
    // Without the agent there is the same page; with the next one there is the site, in the same container.
    let pid = host.status("up.example.com")["pid"].clone();
    host.signal_agent(libc::SIGKILL);
    refused(&get("up.example.com"), 503, not_available);
    host.start();
    assert_eq!(get("up.example.com").status, 200, "{}", nginx.log());
    assert_eq!(host.status("up.example.com")["pid"], pid);
    assert_eq!(host.verb("down.example.com", "up").status, 200);
    assert_eq!(get("down.example.com").status, 200);
    drop(nginx);
    host.finish();
}

#[test]
fn a_site_that_ends_as_it_is_asked_is_asked_again() {
    let host = Host::new("");
    let nginx = Nginx::start(&host);
    // Its first container ends at its first connection, without a word; the next ones serve.
    let script = "#!/bin/sh\n[ -e /site/once ] && exec busybox httpd -f -p 8080 -h /site\n: >/site/once\nexec busybox nc -l -p 8080 -e /bin/false\n";
    let documents = host.documents("a.example.com");
    fs::write(documents.join("run"), script).unwrap();
    fs::set_permissions(documents.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    host.site(
        "a.example.com",
        "command = [\"/site/run\"]\nlisten = \"tcp:8080\"\n",
    );
    let answer = get("a.example.com");
    assert!(documents.join("once").exists());
    assert_eq!(answer.status, 200, "{}\n{}", answer.head, nginx.log());
    drop(nginx);
    host.finish();
}
