//! fastctl against an agent that takes its time.
#![allow(clippy::unwrap_used)]
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::testing::{FakeAgent, Request};
use super::tests::fastctl;

/// Long enough for a machine that does something else, short enough to wait for.
const LIMIT: &str = "300ms";
const STOPPED: &str = r#"{"vhost":"a.example","state":"stopped"}"#;

/// Connections that stay open, beyond the end of the agent's thread too.
type Kept = Arc<Mutex<Vec<Request>>>;

fn silent(words: &[&str], requests: usize) {
    let kept = Kept::default();
    let keep = kept.clone();
    let agent = FakeAgent::new(requests, move |_, request| {
        keep.lock().unwrap().push(request)
    });
    let begun = Instant::now();
    let (code, out, err) = fastctl(&agent.socket, &[&["--timeout", LIMIT], words].concat());
    assert_eq!((code, out.as_str()), (4, ""), "{words:?}: {err}");
    assert!(
        err.contains("has not answered for 0.3 s") && err.contains("systemctl status"),
        "{words:?}: {err}"
    );
    assert!(begun.elapsed() >= Duration::from_millis(300), "{words:?}");
    agent.asked();
}

#[test]
fn an_agent_that_accepts_and_never_answers_is_4() {
    for words in [
        &["list"][..],
        &["status", "a.example"],
        &["logs", "-f", "a.example"],
        &["events", "-f"],
    ] {
        silent(words, 1);
    }
    // These may take long: it is asked whether it is there, and does not answer that either.
    for words in [
        &["start", "a.example"][..],
        &["dispatch", "a.example"],
        &["stop", "a.example"],
        &["rm", "a.example"],
        &["set", "a.example", "cpu=20%"],
        &["exec", "a.example", "--", "true"],
    ] {
        silent(words, 2);
    }
}

#[test]
fn an_agent_that_does_not_even_accept_is_4() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    let mut queue: Vec<UnixStream> = Vec::new();
    // Its queue has two places; a third connect would wait for ever.
    while queue.len() < 2 {
        queue.push(UnixStream::connect(&socket).unwrap());
    }
    for words in [["list", "--json"], ["start", "a.example"]] {
        let words = [&["--timeout", LIMIT][..], &words].concat();
        let (code, _, err) = fastctl(&socket, &words);
        assert_eq!(code, 4, "{err}");
        assert!(err.contains("has not answered for 0.3 s"), "{err}");
    }
}

#[test]
fn a_verb_that_waits_for_a_site_waits_while_the_agent_is_well() {
    const PROBES: usize = 3;
    let mut held = None;
    let agent = FakeAgent::new(1 + PROBES, move |n, request| match n {
        0 => held = Some(request),
        _ => {
            request.answer("200 OK", "", "serving\n");
            if n == PROBES {
                held.take().unwrap().answer("200 OK", "", STOPPED);
            }
        }
    });
    let (code, out, err) = fastctl(&agent.socket, &["--timeout", LIMIT, "stop", "a.example"]);
    assert_eq!((code, out.as_str()), (0, "a.example: stopped\n"), "{err}");
    let lines: Vec<String> = agent.asked().into_iter().map(|asked| asked.line).collect();
    let mut expected = vec!["POST /v1/vhosts/a.example/stop".to_owned()];
    expected.extend(std::iter::repeat_n("GET /health.html".to_owned(), PROBES));
    assert_eq!(lines, expected);
}

#[test]
fn a_stream_has_no_end() {
    let agent = FakeAgent::new(1, |_, mut request| {
        request.begin_chunks();
        request.chunk(b"first\n");
        // Longer than any answer may take.
        std::thread::sleep(Duration::from_millis(900));
        request.chunk(b"last\n");
        request.chunk(b"");
    });
    let words = ["--timeout", LIMIT, "logs", "-f", "a.example"];
    let (code, out, err) = fastctl(&agent.socket, &words);
    assert_eq!((code, out.as_str()), (0, "first\nlast\n"), "{err}");
}

#[test]
fn a_body_that_stops_in_the_middle_is_4() {
    let kept = Kept::default();
    let keep = kept.clone();
    let agent = FakeAgent::new(1, move |_, mut request| {
        request.begin_chunks();
        request.chunk(b"{\"vhosts\": [");
        keep.lock().unwrap().push(request);
    });
    let (code, _, err) = fastctl(&agent.socket, &["--timeout", LIMIT, "list"]);
    assert_eq!(code, 4, "{err}");
}

#[test]
fn times_that_are_none_are_refused() {
    let nowhere = std::path::Path::new("/nonexistent/agent.sock");
    for bad in ["0", "soon", "-1s"] {
        let (code, _, err) = fastctl(nowhere, &[&format!("--timeout={bad}"), "list"]);
        assert_eq!(code, 2, "{bad}: {err}");
    }
    assert_eq!(fastctl(nowhere, &["--timeout", "never", "list"]).0, 4);
}
