//! fastctl against an agent that answers what the test says.
#![allow(clippy::unwrap_used)]
use std::path::Path;

use serde_json::{Value, json};

use super::run;
use super::screen::Screen;
use super::testing::{FakeAgent, Shared};
use super::tests_views::listing;

const PROBLEM: &str = "Content-Type: application/problem+json\r\n";

/// Exit code, output, complaints.
pub(super) fn fastctl_on(terminal: bool, socket: &Path, words: &[&str]) -> (u8, String, String) {
    let (out, err) = (Shared::default(), Shared::default());
    let mut screen = Screen::of(Box::new(out.clone()), Box::new(err.clone()), terminal);
    let all = ["fastctl", "--socket", socket.to_str().unwrap()];
    let code = run(all.iter().chain(words).copied(), &mut screen);
    (code, out.text(), err.text())
}

pub(super) fn fastctl(socket: &Path, words: &[&str]) -> (u8, String, String) {
    fastctl_on(false, socket, words)
}

#[test]
fn no_agent_is_4_and_says_where_it_should_be() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none.sock");
    let (code, out, err) = fastctl(&socket, &["list"]);
    assert_eq!((code, out.as_str()), (4, ""));
    assert!(
        err.starts_with(&format!(
            "fastctl: cannot reach the agent at {}",
            socket.display()
        )),
        "{err}"
    );
    assert!(
        err.contains("No such file") && err.contains("systemctl status fastcontainerd"),
        "{err}"
    );
    // A socket file that nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let (code, _, err) = fastctl(&socket, &["dispatch", "a.example"]);
    assert_eq!(code, 4);
    assert!(err.contains("refused"), "{err}");
}

#[test]
fn an_agent_that_dies_is_4_before_and_1_within_its_answer() {
    let agent = FakeAgent::new(1, |_, request| drop(request));
    assert_eq!(fastctl(&agent.socket, &["list"]).0, 4);
    let agent = FakeAgent::new(1, |_, mut request| {
        request.begin_chunks();
        request.chunk(b"first\n");
    });
    let (code, out, err) = fastctl(&agent.socket, &["logs", "a.example"]);
    assert_eq!((code, out.as_str()), (1, "first\n"));
    assert!(err.contains("broke off in the middle"), "{err}");
}

#[test]
fn wrong_usage_is_2_without_asking() {
    let nowhere = Path::new("/nonexistent/agent.sock");
    assert_eq!(fastctl(nowhere, &["frobnicate"]).0, 2);
    assert_eq!(fastctl(nowhere, &["set", "a.example", "cpu"]).0, 2);
    let (code, _, err) = fastctl(nowhere, &["set", "a.example", "cpu=1", "cpu=2"]);
    assert_eq!((code, err.as_str()), (2, "fastctl: cpu is given twice\n"));
    let (code, out, err) = fastctl(nowhere, &["--help"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.contains("Exit status:") && out.contains("dispatch"),
        "{out}"
    );
}

#[test]
fn problems_are_told_with_their_code() {
    for (status, headers, body, code, message) in [
        (
            "404 Not Found",
            PROBLEM,
            r#"{"title":"Unknown vhost","detail":"no vhost a.example","status":404}"#,
            3,
            "no vhost a.example",
        ),
        (
            "403 Forbidden",
            PROBLEM,
            r#"{"title":"Not yours"}"#,
            1,
            "a.example: Not yours",
        ),
        (
            "503 Service Unavailable",
            "Content-Type: application/problem+json\r\nRetry-After: 8\r\n",
            r#"{"detail":"a.example is backing off","vhost":"a.example"}"#,
            1,
            "a.example is backing off (try again in 8 s)",
        ),
        (
            "500 Internal Server Error",
            "",
            "<html>",
            1,
            "the agent answered with HTTP status 500 and no reason",
        ),
        (
            "409 Conflict",
            PROBLEM,
            r#"{"detail":"a.example\u001b]0;x\u0007\nroot# "}"#,
            1,
            "a.example\\x1b]0;x\\x07\\nroot# ",
        ),
    ] {
        for verb in [
            &["dispatch", "a.example"][..],
            &["start", "a.example"],
            &["exec", "a.example", "--", "id"],
        ] {
            let agent = FakeAgent::answering(status, headers, body);
            let (got, out, err) = fastctl(&agent.socket, verb);
            assert_eq!(
                (got, out.as_str(), err),
                (code, "", format!("fastctl: {message}\n")),
                "{verb:?}"
            );
        }
    }
}

#[test]
fn a_verb_goes_on_after_a_failure() {
    let agent = FakeAgent::new(3, |n, request| match n {
        0 => request.answer("404 Not Found", PROBLEM, r#"{"detail":"no vhost a"}"#),
        1 => request.answer("200 OK", "", r#"{"vhost":"b","state":"running","pid":71}"#),
        _ => request.answer("404 Not Found", PROBLEM, "{}"),
    });
    let (code, out, err) = fastctl(&agent.socket, &["once", "a", "b", "../c"]);
    assert_eq!((code, out.as_str()), (3, "b: running (pid 71)\n"));
    assert_eq!(err, "fastctl: no vhost a\nfastctl: ../c: no such vhost\n");
    let lines: Vec<String> = agent.asked().into_iter().map(|a| a.line).collect();
    assert_eq!(
        lines,
        [
            "POST /v1/vhosts/a/start",
            "POST /v1/vhosts/b/start",
            "POST /v1/vhosts/..%2Fc/start"
        ]
    );
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let agent = FakeAgent::answering("200 OK", "", listing());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let err = Shared::default();
    let mut screen = Screen::of(Box::new(writer), Box::new(err.clone()), false);
    let code = run(
        [
            "fastctl",
            "--socket",
            agent.socket.to_str().unwrap(),
            "list",
        ],
        &mut screen,
    );
    assert_eq!(code, 0);
    assert!(!err.text().contains("write"), "{}", err.text());
}

#[test]
fn logs_come_as_they_are_written() {
    let out = Shared::default();
    let seen = out.clone();
    let agent = FakeAgent::new(1, move |_, mut request| {
        request.begin_chunks();
        request.chunk(b"one\n");
        // The second line is only written after the first has been printed.
        seen.wait_for("one\n");
        request.chunk(b"\x1b[2Jtw\xc3");
        request.chunk(b"\xb6\n");
        request.chunk(b"");
    });
    let mut screen = Screen::of(Box::new(out.clone()), Box::new(Shared::default()), true);
    let socket = agent.socket.to_str().unwrap().to_owned();
    assert_eq!(
        run(
            ["fastctl", "--socket", &socket, "logs", "-f", "-n", "5", "a"],
            &mut screen
        ),
        0
    );
    assert_eq!(out.text(), "one\n\\x1b[2Jtwö\n");
    assert_eq!(
        agent.asked()[0].line,
        "GET /v1/vhosts/a/logs?lines=5&follow=true"
    );
}

#[test]
fn logs_into_a_pipe_are_not_changed() {
    let agent = FakeAgent::answering("200 OK", "", "\x1b[31mred\x1b[0m");
    assert_eq!(
        fastctl(&agent.socket, &["logs", "a"]).1,
        "\x1b[31mred\x1b[0m"
    );
}

#[test]
fn events_cut_anywhere_are_whole_lines() {
    let agent = FakeAgent::new(1, |_, mut request| {
        request.begin_chunks();
        request
            .chunk(b"{\"time\":\"T1\",\"vhost\":\"a\",\"event\":\"state\",\"from\":\"stopped\",");
        request.chunk(b"\"to\":\"starting\"}\n{\"time\":\"T2\",\"vhost\":\"a\",\"ev");
        request.chunk(b"ent\":\"oom\"}\n");
        request.chunk(b"");
    });
    let (code, out, _) = fastctl(&agent.socket, &["events", "-f", "--vhost", "a"]);
    assert_eq!(
        (code, out.as_str()),
        (0, "T1  a  stopped → starting\nT2  a  oom\n")
    );
    assert_eq!(agent.asked()[0].line, "GET /v1/events?follow=true&vhost=a");
}

#[test]
fn nothing_is_applied_when_one_definition_is_bad() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("name = '{name}'")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good, bad) = (file("good"), file("bad"));
    // A third request would not be answered, and asked() would find it missing.
    let agent = FakeAgent::new(2, |n, request| match n {
        0 => request.answer("200 OK", "", r#"{"result":"created"}"#),
        _ => request.answer(
            "400 Bad Request",
            PROBLEM,
            r#"{"detail":"bad: unknown key cpus"}"#,
        ),
    });
    let (code, out, err) = fastctl(&agent.socket, &["apply", "-f", &good, &bad]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(
        err,
        format!("fastctl: {bad}: bad: unknown key cpus\nfastctl: nothing was applied\n")
    );
    let lines: Vec<String> = agent.asked().into_iter().map(|a| a.line).collect();
    assert_eq!(
        lines,
        [
            "PUT /v1/vhosts/good?dry_run=true",
            "PUT /v1/vhosts/bad?dry_run=true"
        ]
    );
    let (code, _, err) = fastctl(
        Path::new("/nonexistent/agent.sock"),
        &["apply", "-f", "/nonexistent/x.toml"],
    );
    assert_eq!(code, 1);
    assert!(err.contains("/nonexistent/x.toml: cannot read"), "{err}");
}

#[test]
fn exec_passes_output_and_code() {
    use super::frames::Frame;
    use std::io::Write;
    let agent = FakeAgent::new(1, |_, mut request| {
        let mut bytes = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: fastcontainer-exec\r\n\r\n".to_vec();
        Frame::Stdout(b"uid=1000\n".to_vec()).encode(&mut bytes);
        Frame::Stderr(b"careful\n".to_vec()).encode(&mut bytes);
        Frame::Exit(42).encode(&mut bytes);
        request.stream.write_all(&bytes).unwrap();
    });
    let (code, out, err) = fastctl(&agent.socket, &["exec", "-T", "a", "--", "id", "-u"]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (42, "uid=1000\n", "careful\n")
    );
    let asked = agent.asked();
    assert_eq!(asked[0].line, "POST /v1/vhosts/a/exec");
    let sent: Value = serde_json::from_str(&asked[0].body).unwrap();
    assert_eq!(sent, json!({"command": ["id", "-u"], "terminal": false}));
}
