//! Commands in a container that is about to be ended or frozen as idle.

use super::session::*;
use super::*;
use harness::client::status;

const SITE: &str = "a.example.com";

fn echo(after: &str) -> Value {
    json!({"command": ["/bin/sh", "-c", format!("{after}echo done")]})
}

/// Asks for a command; its refusal, as it has to be, if it is one.
fn begin(host: &Host, asked: &Value) -> Result<Session, u16> {
    let (mut client, head) = Session::ask(&host.socket(), SITE, asked);
    match status(&head) {
        101 => Ok(Session::of(client)),
        503 => {
            assert!(head.to_lowercase().contains("retry-after: "), "{head}");
            let text = String::from_utf8_lossy(&client.take().unwrap()).into_owned();
            assert!(
                text.contains("not-running") && text.contains("try again"),
                "{text}"
            );
            Err(503)
        }
        other => Err(other),
    }
}

#[test]
fn a_command_runs_to_its_end_or_is_refused() {
    let host = Host::new("");
    let idle = Duration::from_millis(200) * time_scale();
    let timeout = format!("[idle]\ntimeout = \"{}ms\"\n", idle.as_millis());
    host.site(SITE, &format!("{}{timeout}", harness::STATIC));
    let (mut ran, mut refused) = (0, 0);
    // At all times around the one at which idleness ends it.
    for round in 0..harness::rounds(30, 6) {
        host.dispatch(SITE).upstream();
        std::thread::sleep(idle.saturating_sub(Duration::from_millis(15)));
        std::thread::sleep(Duration::from_millis(1) * round * time_scale());
        match begin(&host, &echo("sleep 0.1; ")) {
            Ok(session) => {
                ran += 1;
                assert_eq!(session.end(), (0, "done\n".into(), String::new()));
            }
            Err(status) => {
                refused += 1;
                assert!([409, 503].contains(&status), "{status}");
            }
        }
    }
    println!("{ran} ran, {refused} were refused");
    host.finish();
}

#[test]
fn a_command_is_refused_while_its_container_is_being_ended() {
    let host = Host::new("");
    // It takes its time to end.
    let slow = "trap 'while [ ! -e /site/end ]; do sleep 0.05; done; exit 0' TERM; busybox httpd -p 8080 -h /site; \
                while :; do sleep 0.05; done";
    let rest = format!(
        "{}[stop]\ntimeout = \"30s\"\n",
        harness::sites::script(slow)
    );
    let documents = host.site(SITE, &rest);
    host.dispatch(SITE).upstream();
    let socket = host.socket();
    let stop = std::thread::spawn(move || {
        let path = format!("/v1/vhosts/{SITE}/stop");
        harness::http::request(&socket, "POST", &path, b"")
            .unwrap()
            .status
    });
    host.wait_state(SITE, "stopping", 20);
    assert_eq!(begin(&host, &echo("")).err(), Some(503));
    harness::sites::put(&documents, "end", "");
    assert_eq!(stop.join().unwrap(), 200);
    assert_eq!(begin(&host, &echo("")).err(), Some(409));
    host.finish();
}

#[test]
fn a_command_thaws() {
    let host = host_with_site("");
    assert_eq!(host.verb(SITE, "freeze").status, 200);
    assert_eq!(host.state(SITE), "frozen");
    let session = begin(&host, &echo("")).unwrap();
    assert_eq!(session.end(), (0, "done\n".into(), String::new()));
    assert_eq!(host.state(SITE), "running");
    host.finish();
}
