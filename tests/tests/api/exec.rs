//! Commands inside a container, over an upgraded connection.

use std::process::{Command, Stdio};

use super::session::*;
use super::*;

fn sh(script: &str) -> Value {
    json!({"command": ["/bin/sh", "-c", script]})
}

/// Processes of the test's containers, by their command lines.
fn command_lines(host: &Host) -> Vec<String> {
    let pids = host.snapshot().processes;
    pids.iter()
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok())
        .map(|line| line.replace('\0', " "))
        .collect()
}

#[test]
fn codes_and_streams() {
    let host = host_with_site("");
    let socket = host.socket();
    let run = |script: &str| Session::begin(&socket, &sh(script)).end();
    assert_eq!(run("exit 0"), (0, String::new(), String::new()));
    assert_eq!(
        run("echo out; echo err >&2; exit 7"),
        (7, "out\n".into(), "err\n".into())
    );
    assert_eq!(run("kill -9 $$").0, 137);
    assert_eq!(run("kill -TERM $$").0, 143);
    // The site's user, in its place, with nothing of the agent's environment.
    let (code, out, _) = run("id -u; pwd; echo $VHOST; ls /proc/self/fd | tr '\\n' ' '");
    assert_eq!((code, out.lines().next()), (0, Some("1001")), "{out}");
    assert!(out.contains("/site\na.example.com\n0 1 2 "), "{out}");
    // What the site's own processes are held to holds here too.
    let (_, out, _) = run("grep -E '^(NoNewPrivs|Seccomp|CapEff|CapBnd)' /proc/self/status");
    let words: Vec<&str> = out.split_ascii_whitespace().collect();
    assert_eq!(
        words,
        [
            "CapEff:",
            "0000000000000000",
            "CapBnd:",
            "0000000000000000",
            "NoNewPrivs:",
            "1",
            "Seccomp:",
            "2",
            "Seccomp_filters:",
            "1"
        ]
    );
    // More than any buffer holds.
    let (code, out, _) = run("head -c 3000000 /dev/zero | tr '\\0' x; exit 3");
    assert_eq!((code, out.len()), (3, 3_000_000));
    let mut with_env = sh("echo $GREETING");
    with_env["env"] = json!({"GREETING": "hello"});
    assert_eq!(
        Session::begin(&socket, &with_env).end(),
        (0, "hello\n".into(), String::new())
    );
    host.finish();
}

#[test]
fn input_reaches_the_command() {
    let host = host_with_site("");
    let mut session = Session::begin(&host.socket(), &sh("cat; echo end; exit 4"));
    session.send(STDIN, b"one\n");
    session.until("one\n");
    session.send(STDIN, &vec![b'x'; 50_000]);
    session.send(STDIN_CLOSED, b"");
    let (code, out, _) = session.end();
    assert_eq!((code, out.len()), (4, 4 + 50_000 + 4));
    // Input for nobody is no error.
    let mut session = Session::begin(&host.socket(), &sh("read line; echo got $line"));
    session.send(STDIN, b"a\nb\nc\n");
    assert_eq!(session.end(), (0, "got a\n".into(), String::new()));
    host.finish();
}

#[test]
fn a_terminal() {
    let host = host_with_site("");
    let mut asked = sh(
        "trap 'stty size; exit 5' WINCH; test -t 0 && test -t 1 && echo yes; stty size; while :; do sleep 0.05; done",
    );
    asked["terminal"] = json!(true);
    asked["rows"] = json!(33);
    asked["cols"] = json!(111);
    let mut session = Session::begin(&host.socket(), &asked);
    session.until("yes\r\n33 111\r\n");
    session.send(WINDOW, &[44, 0, 222, 0]);
    let (code, out, _) = session.end();
    assert_eq!(code, 5, "{out}");
    assert!(out.contains("44 222"), "{out}");
    // Ctrl-C is a signal here.
    let asked = json!({"command": ["cat"], "terminal": true});
    let mut session = Session::begin(&host.socket(), &asked);
    session.send(STDIN, b"echo\n");
    session.until("echo\r\necho\r\n");
    session.send(STDIN, b"\x03");
    assert_eq!(session.end().0, 130);
    host.finish();
}

#[test]
fn a_client_that_vanishes_leaves_no_process() {
    let host = host_with_site("");
    let (socket, files) = (host.socket(), host.settled_descriptors());
    let before = host.snapshot().processes.len();
    let running = |text: &str| command_lines(&host).iter().any(|line| line.contains(text));
    // Silent, talking, deaf to signals, with children in the background, on a terminal.
    for (script, terminal) in [
        ("echo ready; exec sleep 4001", false),
        ("echo ready; while :; do echo more; done", false),
        (
            "trap '' HUP TERM; echo ready; while :; do sleep 4001; done",
            false,
        ),
        ("sleep 4001 & echo ready; exec sleep 4001", false),
        ("echo ready; exec sleep 4001", true),
        ("echo ready; exec cat", false),
    ] {
        let mut asked = sh(script);
        asked["terminal"] = json!(terminal);
        let mut session = Session::begin(&socket, &asked);
        session.until("ready");
        drop(session);
        harness::wait_for(&format!("nothing is left of {script}"), seconds(20), || {
            host.snapshot().processes.len() == before
        });
    }
    assert!(
        running("httpd"),
        "the site itself has ended: {:?}",
        command_lines(&host)
    );
    harness::wait_for("the descriptors are closed", seconds(10), || {
        host.descriptors() <= files + 2
    });
    host.finish();
}

#[test]
fn a_container_that_ends_ends_its_commands() {
    let host = host_with_site("");
    let mut session = Session::begin(&host.socket(), &sh("echo ready; exec sleep 4001"));
    session.until("ready");
    assert_eq!(
        host.verb("a.example.com", "stop").json()["state"],
        "stopped"
    );
    assert_eq!(session.end().0, 137);
    host.finish();
}

#[test]
fn what_cannot_be_run_is_refused() {
    let host = host_with_site("");
    host.site("asleep.example.com", harness::STATIC);
    let socket = host.socket();
    let refused = |vhost: &str, asked: &Value, status: u16, says: &str| {
        let (mut client, head) = Session::ask(&socket, vhost, asked);
        assert_eq!(harness::client::status(&head), status, "{asked}: {head}");
        let text = String::from_utf8_lossy(&client.take().unwrap()).into_owned();
        assert!(text.contains(says), "{asked}: {text}");
    };
    refused(
        "a.example.com",
        &json!({"command": ["/no/such/program"]}),
        400,
        "No such file",
    );
    refused("a.example.com", &json!({"command": []}), 400, "command");
    refused("a.example.com", &json!({"command": ["a\0b"]}), 400, "NUL");
    refused("a.example.com", &json!({"command": "ls"}), 400, "expected");
    refused(
        "a.example.com",
        &json!({"command": ["ls"], "surprise": 1}),
        400,
        "surprise",
    );
    refused(
        "asleep.example.com",
        &json!({"command": ["ls"]}),
        409,
        "not running",
    );
    refused(
        "no.example.com",
        &json!({"command": ["ls"]}),
        404,
        "no.example.com",
    );
    assert_problem(
        &host.request("POST", "/v1/vhosts/a.example.com/exec", &body(&sh("true"))),
        400,
    );
    // Frames that are none end the session, not the agent.
    let mut session = Session::begin(&socket, &sh("echo ready; exec sleep 4001"));
    session.until("ready");
    session.client.stream().write_all(&[99; 50]).unwrap();
    harness::wait_for("the command has ended", seconds(10), || {
        !command_lines(&host)
            .iter()
            .any(|line| line.contains("4001"))
    });
    assert_eq!(host.state("a.example.com"), "running");
    host.finish();
}

#[test]
fn fastctl_exec() {
    let host = host_with_site("");
    let output = host.ctl(&[
        "exec",
        "a.example.com",
        "--",
        "/bin/sh",
        "-c",
        "echo out; echo err >&2; exit 9",
    ]);
    assert_eq!(
        (output.status.code(), &output.stdout[..], &output.stderr[..]),
        (Some(9), &b"out\n"[..], &b"err\n"[..])
    );
    let mut child = Command::new(&harness::programs().ctl)
        .arg("--socket")
        .arg(host.socket())
        .args(["exec", "a.example.com", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(0), &b"through\n"[..])
    );
    host.finish();
}

#[test]
fn commands_have_a_bound() {
    const ACME: u32 = 71_201;
    let host = Host::new(&format!("[owner.acme]\nuid = {ACME}\n"));
    let vhosts = ["a.example.com", "b.example.com", "c.example.com"];
    for vhost in vhosts {
        host.site(vhost, harness::STATIC);
        host.dispatch(vhost).upstream();
    }
    let socket = host.socket();
    let command = sh("exec sleep 4001");
    let ask = |uid: u32, vhost: &str| {
        harness::client::as_user(uid, uid, &[], || Session::ask(&socket, vhost, &command))
    };
    let refused = |(mut client, head): (Client, String)| {
        assert!(head.to_lowercase().contains("retry-after: "), "{head}");
        let text = String::from_utf8_lossy(&client.take().unwrap()).into_owned();
        assert!(text.contains("too-many-commands"), "{text}");
        harness::client::status(&head)
    };
    // As many as run before one is refused.
    let fill = |vhost: &str| {
        let mut running = Vec::new();
        loop {
            let (client, head) = ask(ACME, vhost);
            if harness::client::status(&head) != 101 {
                assert_eq!(refused((client, head)), 503);
                return running;
            }
            running.push(client);
            assert!(running.len() < 100, "there is no bound");
        }
    };
    let mut running: Vec<Vec<Client>> = vhosts.map(fill).into();
    let counts: Vec<usize> = running.iter().map(Vec::len).collect();
    assert_eq!(counts, [16, 16, 0], "16 of a vhost, 32 of an owner");
    // The operators get in everywhere.
    for vhost in vhosts {
        let (_client, head) = ask(0, vhost);
        assert_eq!(harness::client::status(&head), 101, "{vhost}: {head}");
    }
    // One that ends makes room for another, elsewhere too.
    running[0].pop();
    harness::wait_for("a place is free", seconds(20), || {
        harness::client::status(&ask(ACME, "c.example.com").1) == 101
    });
    drop(running);
    harness::wait_for("all commands have ended", seconds(30), || {
        !command_lines(&host)
            .iter()
            .any(|line| line.contains("4001"))
    });
    host.finish();
}
