//! Users whose names are those of owners: owners as long as a vhost is theirs.

use std::fs;

use harness::client::as_user;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::*;

const ACME: u32 = 71_101;
const BOLT: u32 = 71_102;
const EVE: u32 = 71_103;

/// A user database of this thread and the agent that it starts, which knows owners by their names.
fn users() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("passwd");
    let mut text = fs::read_to_string("/etc/passwd").unwrap();
    for (name, uid) in [("acme", ACME), ("bolt", BOLT), ("eve", EVE)] {
        text += &format!("{name}:x:{uid}:{uid}::/nonexistent:/usr/sbin/nologin\n");
    }
    fs::write(&file, text).unwrap();
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).unwrap();
    mount(Some(&file), "/etc/passwd", none, MsFlags::MS_BIND, none).unwrap();
    dir
}

fn ask(host: &Host, uid: u32, method: &str, path: &str) -> Answer {
    let socket = host.socket();
    as_user(uid, uid, &[], || {
        harness::http::request(&socket, method, path, b"")
    })
    .unwrap()
}

fn names(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.head);
    let all = answer.json();
    let vhosts = all["vhosts"].as_array().unwrap();
    let names = vhosts.iter().map(|v| v["vhost"].as_str().unwrap());
    names.map(str::to_owned).collect()
}

/// Vhosts that the agent has made something of.
fn woken(host: &Host) -> Vec<String> {
    let metrics = host.request("GET", "/metrics", b"").body;
    let text = String::from_utf8(metrics).unwrap();
    let states = text
        .lines()
        .filter(|l| l.starts_with("fastcontainer_vhosts{"));
    states.map(str::to_owned).collect()
}

#[test]
fn a_user_is_an_owner_while_a_vhost_is_theirs() {
    let users = users();
    let host = Host::new("");
    host.site("a.example.com", harness::STATIC);
    // Known to the host, and the owner of nothing.
    for path in [
        "/v1/status",
        "/v1/vhosts",
        "/v1/events?follow=false",
        "/v1/vhosts/a.example.com",
        "/v1/vhosts/no.example.com",
    ] {
        assert_problem(&ask(&host, EVE, "GET", path), 403);
        assert_problem(&ask(&host, BOLT, "GET", path), 403);
    }
    assert_eq!(
        names(&ask(&host, ACME, "GET", "/v1/vhosts")),
        ["a.example.com"]
    );
    assert_eq!(
        ask(&host, ACME, "POST", "/v1/vhosts/a.example.com/start").status,
        200
    );
    // On one connection: what somebody may do changes with what is theirs.
    let socket = host.socket();
    let mut bolt = as_user(BOLT, BOLT, &[], || Client::connect(&socket)).unwrap();
    assert_problem(&bolt.request("GET", "/v1/status", b"").unwrap(), 403);
    let definition = |owner: &str| {
        let documents = host.documents("b.example.com").display().to_string();
        format!(
            "owner = {owner:?}\ndocuments = {documents:?}\n{}",
            harness::STATIC
        )
    };
    host.define("b.example.com", &definition("bolt"));
    let status = bolt.request("GET", "/v1/status", b"").unwrap();
    assert_eq!(status.json()["vhosts"]["total"], 1);
    assert_eq!(status.json()["vhosts"]["running"], 0, "that of acme");
    let text = String::from_utf8(status.body).unwrap();
    assert!(
        !text.contains("acme") && !text.contains("a.example.com"),
        "{text}"
    );
    let theirs = bolt
        .request("GET", "/v1/vhosts/a.example.com", b"")
        .unwrap();
    assert_problem(&theirs, 403);
    let none = bolt
        .request("GET", "/v1/vhosts/no.example.com", b"")
        .unwrap();
    assert_problem(&none, 404);
    // Given to somebody else: the old owner is nobody from now on.
    fs::write(
        host.dir.join("vhosts.d/b.example.com.toml"),
        format!("name = \"b.example.com\"\n{}", definition("acme")),
    )
    .unwrap();
    harness::wait_for("it is of acme", seconds(5), || {
        host.status("b.example.com")["owner"] == "acme"
    });
    assert_problem(&bolt.request("GET", "/v1/status", b"").unwrap(), 403);
    assert_eq!(
        names(&ask(&host, ACME, "GET", "/v1/vhosts")),
        ["a.example.com", "b.example.com"]
    );
    host.finish();
    drop(users);
}

#[test]
fn vhosts_of_patterns_have_owners_too() {
    let users = users();
    let host = Host::new("");
    let documents = host.dir.join("www/%h");
    let definition = format!("owner = \"bolt\"\n{}", harness::STATIC);
    fs::write(host.dir.join("pattern.toml"), definition).unwrap();
    let config = format!(
        "[[alias]]\npattern = \"*.example.net\"\ndocuments = {:?}\ndefinition = \"pattern.toml\"\n",
        documents.display().to_string()
    );
    fs::write(host.dir.join("agent.toml"), config).unwrap();
    host.signal_agent(libc::SIGTERM);
    host.start();
    host.site("a.example.com", harness::STATIC);
    for name in ["x.example.net", "y.example.net"] {
        host.documents(name);
    }
    assert_problem(&ask(&host, EVE, "GET", "/v1/vhosts"), 403);
    assert_eq!(
        names(&ask(&host, BOLT, "GET", "/v1/vhosts")),
        ["x.example.net", "y.example.net"]
    );
    assert_eq!(
        names(&ask(&host, ACME, "GET", "/v1/vhosts")),
        ["a.example.com"]
    );
    let before = woken(&host);
    for (name, status) in [("x", 403), ("y", 403), ("none", 404)] {
        let path = format!("/v1/vhosts/{name}.example.net");
        assert_problem(&ask(&host, ACME, "GET", &path), status);
        assert_problem(&ask(&host, ACME, "POST", &format!("{path}/start")), status);
    }
    assert_eq!(woken(&host), before, "the names that acme tried are kept");
    assert_eq!(
        ask(&host, BOLT, "GET", "/v1/vhosts/x.example.net").status,
        200
    );
    assert_ne!(woken(&host), before);
    host.finish();
    drop(users);
}
