//! What happens when a site wants more memory than it may have.
#![allow(clippy::unwrap_used, missing_docs)]

use harness::inside::{ask, site, try_ask};
use harness::limits::{SITE, events, in_cgroup, patch, set};
use harness::{Host, seconds, wait_for};
use serde_json::{Value, json};

#[test]
fn running_out_of_memory_ends_that_site_only_and_the_next_request_starts_it_again() {
    let host = Host::new("");
    site(&host, SITE, "[limits]\nmemory = \"64M\"\nswap = \"0\"\n");
    site(&host, "other.example.com", "");
    let other = ask(&host, "other.example.com", "pid", 20);
    let others_pid = host.status("other.example.com")["pid"].clone();
    let first = host.status(SITE)["pid"].clone();
    assert_eq!(first, Value::Null, "it sleeps");
    assert_eq!(ask(&host, SITE, "allocate/16", 20), "16", "what fits, fits");
    assert_eq!(
        try_ask(&host, SITE, "allocate/200", 30).filter(|answer| answer == "200"),
        None,
        "200M fit into 64M"
    );
    wait_for("its end is known", seconds(5), || {
        host.status(SITE)["last_exit"].is_object()
    });
    let status = host.status(SITE);
    assert_eq!(
        status["last_exit"]["cause"], "out of memory (limit 64M)",
        "{status}"
    );
    assert_eq!(status["last_exit"]["signal"], 9);
    let told = events(&host, "oom");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["cause"], "out of memory (limit 64M)");
    // The next request starts it again, and nobody else noticed.
    wait_for("a request starts it again", seconds(10), || {
        host.dispatch(SITE).status == 200
    });
    assert_eq!(ask(&host, SITE, "allocate/16", 20), "16");
    assert_eq!(ask(&host, "other.example.com", "pid", 20), other);
    assert_eq!(host.status("other.example.com")["pid"], others_pid);
    host.finish();
}

#[test]
fn a_child_killed_for_want_of_memory_is_told_while_the_site_goes_on() {
    let host = Host::new("");
    site(&host, SITE, "[limits]\nmemory = \"64M\"\nswap = \"0\"\n");
    let own = ask(&host, SITE, "pid", 20);
    for round in 1..=2 {
        assert_eq!(ask(&host, SITE, "allocate-in-child/200", 60), "signal 9");
        wait_for("the event", seconds(5), || {
            events(&host, "oom").len() == round
        });
        let told = events(&host, "oom").pop().unwrap();
        assert_eq!(
            told["cause"],
            "out of memory (limit 64M); its main process goes on"
        );
        assert_eq!(
            (told["killed"].as_u64(), told["oom_kills"].as_u64()),
            (Some(1), Some(round as u64)),
            "{told}"
        );
        assert_eq!(host.status(SITE)["usage"]["oom_kills"], round);
    }
    assert_eq!(ask(&host, SITE, "pid", 20), own, "the server lives on");
    assert_eq!(host.state(SITE), "running");
    // The next agent goes on telling.
    host.crash_and_restart();
    assert_eq!(ask(&host, SITE, "allocate-in-child/200", 60), "signal 9");
    wait_for("the event", seconds(5), || events(&host, "oom").len() == 1);
    assert_eq!(events(&host, "oom")[0]["killed"], 1);
    host.finish();
}

#[test]
fn memory_below_its_use_is_refused_with_the_arithmetic() {
    let host = Host::new("");
    site(&host, SITE, "[limits]\nmemory = \"128M\"\n");
    // Held by a process of its own, as the server frees what it took.
    let upstream = host.dispatch(SITE).upstream();
    let holder = std::thread::spawn(move || harness::http::get(&upstream, "/hold/60", seconds(60)));
    let used = || {
        host.status(SITE)["usage"]["memory_bytes"]
            .as_u64()
            .unwrap_or(0)
    };
    wait_for("60M are in use", seconds(20), || used() > 60 << 20);
    let answer = patch(&host, &json!({"memory": "32M", "pids": 77}));
    let problem = answer.json();
    assert_eq!(answer.status, 409, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("32M") && detail.contains("in use") && detail.contains("below the"),
        "{detail}"
    );
    println!("{detail}");
    let status = host.status(SITE);
    assert_eq!(status["limits"]["memory"], "128M");
    assert_ne!(status["limits"]["pids"], 77, "all or nothing");
    assert_eq!(
        in_cgroup(&host, ["memory.max", "memory.limit_in_bytes"]),
        (128u64 << 20).to_string()
    );
    // Above its use it is taken, and the process is still there.
    set(&host, &["memory=100M"]);
    assert_eq!(host.status(SITE)["pid"], status["pid"]);
    host.verb(SITE, "stop");
    // The connection ends with the site.
    let _ = holder.join().unwrap();
    host.finish();
}
