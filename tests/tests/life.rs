//! Start, stop, verbs, signals: the life of one site as its operator decides it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Instant;

use harness::sites::script;
use harness::{Answer, Host, STATIC, http, rounds, seconds, wait_for};

const SITE: &str = "a.example.com";

fn kind(answer: &Answer) -> (u16, String) {
    (
        answer.status,
        answer.json()["type"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    )
}

fn state(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_request_starts_it_and_idleness_ends_it() {
    let host = Host::new("");
    host.site(SITE, &format!("{STATIC}[idle]\ntimeout = \"1s\"\n"));
    let cold = host.dispatch(SITE).json();
    assert_eq!(
        (cold["cold"].as_bool(), cold["state"].as_str()),
        (Some(true), Some("running"))
    );
    assert_eq!(host.get(SITE, "/").body, b"<h1>a.example.com</h1>\n");
    assert_eq!(host.dispatch(SITE).json()["cold"], false);
    host.wait_state(SITE, "stopped", 10);
    wait_for("its cgroup is gone", seconds(5), || {
        host.snapshot().processes.is_empty()
    });
    assert_eq!(host.dispatch(SITE).json()["cold"], true);
    host.finish();
}

#[test]
fn verbs_answer_when_their_state_is_reached() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    assert_eq!(state(&host.verb(SITE, "stop")), "stopped");
    assert_eq!(state(&host.verb(SITE, "start")), "running");
    let pid = host.status(SITE)["pid"].as_i64().unwrap();
    assert_eq!(state(&host.verb(SITE, "start")), "running");
    assert_eq!(host.status(SITE)["pid"], pid);
    assert_eq!(state(&host.verb(SITE, "restart")), "running");
    assert_ne!(host.status(SITE)["pid"], pid);
    assert_eq!(state(&host.verb(SITE, "stop")), "stopped");
    assert_eq!(host.status(SITE)["last_exit"]["cause"], "stopped");
    assert!(host.snapshot().processes.is_empty());
    assert_eq!(host.get(SITE, "/").status, 200);
    assert_eq!(host.verb(SITE, "jump").status, 404);
    assert_eq!(host.verb("nobody.example.com", "start").status, 404);
    host.finish();
}

#[test]
fn down_is_kept_across_agents_and_up_lifts_it() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    host.dispatch(SITE).upstream();
    assert_eq!(state(&host.verb(SITE, "down")), "down");
    for restarted in [false, true] {
        if restarted {
            host.crash_and_restart();
        }
        let refused = host.dispatch(SITE);
        assert_eq!(kind(&refused), (503, "down".into()));
        assert!(refused.header("retry-after").is_some());
        let status = host.status(SITE);
        assert_eq!(
            (status["state"].as_str(), status["wanted"].as_str()),
            (Some("down"), Some("down"))
        );
        assert_eq!(kind(&host.verb(SITE, "restart")), (503, "down".into()));
        assert_eq!(state(&host.verb(SITE, "stop")), "down");
    }
    assert!(host.snapshot().processes.is_empty());
    assert_eq!(state(&host.verb(SITE, "up")), "stopped");
    assert_eq!(host.dispatch(SITE).json()["cold"], true);
    // `start` lifts it as well, and starts.
    assert_eq!(state(&host.verb(SITE, "down")), "down");
    assert_eq!(state(&host.verb(SITE, "start")), "running");
    assert_eq!(host.status(SITE)["wanted"], "up");
    host.finish();
}

#[test]
fn signals_reach_the_command() {
    let host = Host::new("");
    let text =
        "trap 'echo got a hangup' HUP; busybox httpd -f -p 8080 -h /site & while :; do wait; done";
    host.site(SITE, &script(text));
    assert_eq!(
        host.request(
            "POST",
            &format!("/v1/vhosts/{SITE}/signal"),
            br#"{"signal":"HUP"}"#
        )
        .status,
        409
    );
    host.dispatch(SITE).upstream();
    let output = host.ctl(&["signal", SITE, "hup"]);
    assert!(output.status.success(), "{output:?}");
    wait_for("the signal is in the log", seconds(5), || {
        String::from_utf8_lossy(&host.ctl(&["logs", "-n", "5", SITE]).stdout)
            .contains("out got a hangup")
    });
    assert_eq!(host.state(SITE), "running");
    assert_eq!(
        host.request(
            "POST",
            &format!("/v1/vhosts/{SITE}/signal"),
            br#"{"signal":"NONSENSE"}"#
        )
        .status,
        400
    );
    host.finish();
}

#[test]
fn a_stop_asks_with_the_signal_of_the_definition() {
    let host = Host::new("");
    let text = "trap 'echo bye > /site/bye; exit 7' USR1; trap 'echo wrong > /site/wrong; exit 8' TERM; busybox httpd -f -p 8080 & while :; do wait; done";
    let documents = host.site(
        SITE,
        &format!(
            "{}[stop]\nsignal = \"USR1\"\ntimeout = \"60s\"\n",
            script(text)
        ),
    );
    host.dispatch(SITE).upstream();
    assert_eq!(state(&host.verb(SITE, "stop")), "stopped");
    assert_eq!(std::fs::read(documents.join("bye")).unwrap(), b"bye\n");
    assert!(!documents.join("wrong").exists());
    let exit = &host.status(SITE)["last_exit"];
    assert_eq!(
        (exit["code"].as_i64(), exit["cause"].as_str()),
        (Some(7), Some("stopped"))
    );
    host.finish();
}

#[test]
fn who_ignores_the_signal_is_killed_with_all_children() {
    let host = Host::new("");
    let text = "trap '' TERM; setsid busybox httpd -f -p 8080 & setsid sleep 1000 & while :; do wait; done";
    host.site(SITE, &format!("{}[stop]\ntimeout = \"1s\"\n", script(text)));
    host.dispatch(SITE).upstream();
    assert!(host.snapshot().processes.len() >= 3);
    let began = Instant::now();
    assert_eq!(state(&host.verb(SITE, "stop")), "stopped");
    let took = began.elapsed();
    assert!(
        took >= seconds(1) / harness::time_scale() && took < seconds(5),
        "{took:?}"
    );
    assert!(host.snapshot().processes.is_empty());
    host.finish();
}

/// As many as that end at a time many times over, and all of them take all the time that they have.
#[test]
fn who_takes_its_time_to_end_holds_up_nobody_else() {
    let host = Host::new("");
    let text = "trap '' TERM; exec busybox httpd -f -p 8080 -h /site";
    // For as long as everybody else takes.
    let limit = 8 + harness::time_scale();
    let slow: Vec<_> = (0..8).map(|n| format!("slow{n}.example.com")).collect();
    for name in &slow {
        host.site(
            name,
            &format!("{}[stop]\ntimeout = \"{limit}s\"\n", script(text)),
        );
        host.dispatch(name).upstream();
    }
    host.site(SITE, STATIC);
    host.dispatch(SITE).upstream();
    let socket = host.socket();
    let stop = |name: &str| {
        let path = format!("/v1/vhosts/{name}/stop");
        state(&http::request(&socket, "POST", &path, b"").unwrap())
    };
    std::thread::scope(|scope| {
        let stops: Vec<_> = slow.iter().map(|name| scope.spawn(|| stop(name))).collect();
        for name in &slow {
            host.wait_state(name, "stopping", 5);
        }
        assert_eq!(stop(SITE), "stopped");
        for name in &slow {
            assert_eq!(host.state(name), "stopping");
        }
        for stop in stops {
            assert_eq!(stop.join().unwrap(), "stopped");
        }
    });
    host.finish();
}

#[test]
fn a_stop_ends_a_start_under_way() {
    let host = Host::new("");
    host.site(SITE, &script("sleep 1000"));
    let socket = host.socket();
    let waiting = std::thread::spawn(move || {
        let body = format!("{{\"vhost\":\"{SITE}\"}}");
        harness::http::request(&socket, "POST", "/v1/dispatch", body.as_bytes()).unwrap()
    });
    host.wait_state(SITE, "starting", 5);
    assert_eq!(state(&host.verb(SITE, "stop")), "stopped");
    assert_eq!(kind(&waiting.join().unwrap()), (503, "stopped".into()));
    assert!(host.snapshot().processes.is_empty());
    host.finish();
}

#[test]
fn what_came_before_does_not_undo_a_freeze() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    // It rests first: only then the kernel tells of what comes.
    host.dispatch(SITE).upstream();
    for round in 0..rounds(200, 20) {
        assert_eq!(state(&host.verb(SITE, "freeze")), "frozen");
        assert_eq!(host.state(SITE), "frozen", "freeze {round}");
        assert_eq!(host.get(SITE, "/").status, 200);
    }
    host.finish();
}

#[test]
fn frozen_sites_thaw_with_a_request() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    assert_eq!(host.verb(SITE, "freeze").status, 409);
    host.dispatch(SITE).upstream();
    let pid = host.status(SITE)["pid"].as_i64().unwrap();
    assert_eq!(state(&host.verb(SITE, "freeze")), "frozen");
    let warm = host.dispatch(SITE).json();
    assert_eq!(
        (warm["cold"].as_bool(), warm["state"].as_str()),
        (Some(false), Some("running"))
    );
    assert_eq!(host.get(SITE, "/").status, 200);
    assert_eq!(host.status(SITE)["pid"], pid);
    assert_eq!(state(&host.verb(SITE, "freeze")), "frozen");
    assert_eq!(state(&host.verb(SITE, "thaw")), "running");
    assert_eq!(host.get(SITE, "/").status, 200);
    // Frozen over a restart of the agent, and stopped from there.
    assert_eq!(state(&host.verb(SITE, "freeze")), "frozen");
    host.crash_and_restart();
    assert_eq!(host.state(SITE), "frozen");
    assert_eq!(host.status(SITE)["pid"], pid);
    assert_eq!(state(&host.verb(SITE, "stop")), "stopped");
    host.finish();
}
