//! Who may do what, as the kernel says who is there.

use harness::client::as_user;

use super::requests::{everything, of_owner, of_vhost};
use super::*;

const ACME: u32 = 71_001;
const BOLT: u32 = 71_002;
const STRANGER: u32 = 71_003;
const OPERATORS: u32 = 71_990;
/// The web server's user, by number: it exists on every Debian.
const FRONT: u32 = 33;

fn two_owners() -> Host {
    let config = format!(
        "operator_group = {OPERATORS}\ndispatch_users = [{FRONT}]\n[owner.acme]\nuid = {ACME}\n[owner.bolt]\nuid = {BOLT}\n"
    );
    let host = Host::new(&config);
    for (name, owner) in [("a.example.com", "acme"), ("b.example.com", "bolt")] {
        let documents = host.documents(name).display().to_string();
        host.define(
            name,
            &format!(
                "owner = {owner:?}\ndocuments = {documents:?}\n{}",
                harness::STATIC
            ),
        );
    }
    host
}

/// What a user gets.
fn ask(host: &Host, uid: u32, groups: &[u32], method: &str, path: &str, body: &Value) -> Answer {
    let socket = host.socket();
    let bytes = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    as_user(uid, uid, groups, || {
        harness::http::request(&socket, method, path, &bytes)
    })
    .unwrap()
}

#[test]
fn a_stranger_may_do_nothing() {
    let host = two_owners();
    for uid in [STRANGER, 65534] {
        let mut all = everything("a.example.com", "acme");
        all.push((
            "POST",
            "/v1/dispatch".into(),
            json!({"vhost": "a.example.com"}),
        ));
        all.push(("GET", "/health.html".into(), Value::Null));
        all.push(("GET", "/nothing/here".into(), Value::Null));
        for (method, path, body) in all {
            assert_problem(&ask(&host, uid, &[], method, &path, &body), 403);
        }
    }
    // Nor does it learn which vhosts exist.
    let known = ask(
        &host,
        STRANGER,
        &[],
        "GET",
        "/v1/vhosts/a.example.com",
        &Value::Null,
    );
    let unknown = ask(
        &host,
        STRANGER,
        &[],
        "GET",
        "/v1/vhosts/no.example.com",
        &Value::Null,
    );
    assert_eq!((known.status, known.body), (unknown.status, unknown.body));
    assert_eq!(host.state("a.example.com"), "stopped");
    host.finish();
}

#[test]
fn the_front_may_only_dispatch() {
    let host = two_owners();
    for (method, path, body) in everything("a.example.com", "acme") {
        assert_problem(&ask(&host, FRONT, &[], method, &path, &body), 403);
    }
    assert_eq!(
        ask(&host, FRONT, &[], "GET", "/health.html", &Value::Null).status,
        200
    );
    for vhost in ["a.example.com", "b.example.com"] {
        assert_eq!(
            ask(
                &host,
                FRONT,
                &[],
                "POST",
                "/v1/dispatch",
                &json!({"vhost": vhost})
            )
            .status,
            200
        );
    }
    assert_problem(
        &ask(
            &host,
            FRONT,
            &[],
            "POST",
            "/v1/dispatch",
            &json!({"vhost": "no.example.com"}),
        ),
        404,
    );
    host.finish();
}

#[test]
fn an_owner_sees_and_moves_only_what_is_theirs() {
    let host = two_owners();
    host.dispatch("a.example.com").upstream();
    host.dispatch("b.example.com").upstream();
    let acme = |method: &str, path: &str, body: &Value| ask(&host, ACME, &[], method, path, body);
    let list = acme("GET", "/v1/vhosts", &Value::Null).json();
    let names: Vec<&str> = list["vhosts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["vhost"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["a.example.com"]);
    assert_eq!(
        acme("GET", "/v1/status", &Value::Null).json()["vhosts"]["total"],
        1
    );
    let events =
        String::from_utf8(acme("GET", "/v1/events?follow=false", &Value::Null).body).unwrap();
    assert!(
        events.contains("a.example.com") && !events.contains("b.example.com"),
        "{events}"
    );
    assert!(!events.contains("bolt"), "{events}");
    // Somebody else's vhost is not theirs, whatever is asked of it; one that nobody has is unknown.
    for (method, path, body) in of_vhost("b.example.com") {
        assert_problem(&acme(method, &path, &body), 403);
        let changes_definition = matches!(method, "PUT" | "DELETE");
        let none = path.replace("b.example.com", "no.example.com");
        let status = if changes_definition { 403 } else { 404 };
        assert_problem(&acme(method, &none, &body), status);
    }
    // Nor is another owner, whether there is one of that name or not; nor their own budget.
    for owner in ["bolt", "nobody-has-this-name"] {
        for (method, path, body) in of_owner(owner) {
            assert_problem(&acme(method, &path, &body), 403);
        }
    }
    assert_problem(
        &acme("PATCH", "/v1/owners/acme/budget", &json!({"cpu": "900%"})),
        403,
    );
    for (vhost, status) in [("b.example.com", 403), ("no.example.com", 404)] {
        assert_problem(
            &acme("POST", "/v1/dispatch", &json!({"vhost": vhost})),
            status,
        );
    }
    assert_eq!(host.state("b.example.com"), "running");
    // Their own: everything but the definition and the shares, which are the operators'.
    assert_eq!(
        acme("GET", "/v1/vhosts/a.example.com", &Value::Null).json()["owner"],
        "acme"
    );
    assert_eq!(
        acme("GET", "/v1/vhosts/a.example.com/logs", &Value::Null).status,
        200
    );
    assert_eq!(
        acme("POST", "/v1/dispatch", &json!({"vhost": "a.example.com"})).status,
        200
    );
    for (method, rest) in [("PUT", ""), ("DELETE", ""), ("PATCH", "/limits")] {
        let limit = if rest.is_empty() {
            Value::Null
        } else {
            json!({"cpu": "1000%"})
        };
        assert_problem(
            &acme(method, &format!("/v1/vhosts/a.example.com{rest}"), &limit),
            403,
        );
    }
    for path in ["/metrics", "/v1/doctor"] {
        assert_problem(&acme("GET", path, &Value::Null), 403);
    }
    for (verb, state) in [
        ("freeze", "frozen"),
        ("thaw", "running"),
        ("down", "down"),
        ("up", "stopped"),
        ("start", "running"),
        ("stop", "stopped"),
    ] {
        let answer = acme(
            "POST",
            &format!("/v1/vhosts/a.example.com/{verb}"),
            &Value::Null,
        );
        assert_eq!(answer.json()["state"], state, "{verb}");
    }
    host.finish();
}

#[test]
fn the_group_of_operators_may_do_everything() {
    let host = two_owners();
    // By its supplementary groups, whoever it is otherwise.
    for uid in [STRANGER, FRONT, BOLT] {
        let operator = |method: &str, path: &str, body: &Value| {
            ask(&host, uid, &[5, OPERATORS], method, path, body)
        };
        assert_eq!(
            operator("GET", "/v1/vhosts", &Value::Null).json()["vhosts"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
        assert_eq!(operator("GET", "/metrics", &Value::Null).status, 200);
        assert_eq!(
            operator("POST", "/v1/vhosts/a.example.com/start", &Value::Null).status,
            200
        );
        let set = operator(
            "PATCH",
            "/v1/vhosts/a.example.com/limits",
            &json!({"pids": 50}),
        );
        assert_eq!(
            set.json()["limits"]["pids"].to_string().trim_matches('"'),
            "50"
        );
        let definition = json!({"owner": "acme", "documents": host.documents("c"), "command": ["/bin/true"], "listen": "tcp:80"});
        assert_eq!(
            operator("PUT", "/v1/vhosts/c.example.com", &definition).json()["result"],
            "created"
        );
        assert_eq!(
            operator("DELETE", "/v1/vhosts/c.example.com", &Value::Null).json()["result"],
            "removed"
        );
    }
    // A process that has the group by its primary gid.
    let socket = host.socket();
    let answer = as_user(STRANGER, OPERATORS, &[], || {
        harness::http::request(&socket, "GET", "/v1/status", b"")
    })
    .unwrap();
    assert_eq!(answer.status, 200);
    host.finish();
}

#[test]
fn rights_are_those_of_whoever_connected() {
    let host = two_owners();
    let socket = host.socket();
    // Handed over to root, a stranger's connection stays a stranger's.
    let mut client = as_user(STRANGER, STRANGER, &[], || Client::connect(&socket)).unwrap();
    assert_problem(&client.request("GET", "/v1/status", b"").unwrap(), 403);
    // Headers say nothing about who somebody is.
    client
        .send(
            "GET",
            "/v1/status",
            "X-Remote-User: root\r\nAuthorization: Basic cm9vdDo=\r\nX-Uid: 0\r\n",
            b"",
        )
        .unwrap();
    assert_problem(&client.answer().unwrap(), 403);
    host.finish();
}
