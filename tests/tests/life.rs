//! Start, stop, idleness, crash: the life of one site.
#![allow(clippy::unwrap_used, missing_docs)]

use harness::{Host, STATIC, seconds, wait_for};

#[test]
fn a_request_starts_it_and_idleness_ends_it() {
    let host = Host::new("");
    host.site("a.example.com", &format!("{STATIC}[idle]\ntimeout = \"1s\"\n"));
    let cold = host.dispatch("a.example.com").json();
    assert_eq!((cold["cold"].as_bool(), cold["state"].as_str()), (Some(true), Some("running")));
    assert_eq!(host.get("a.example.com", "/").body, b"<h1>a.example.com</h1>\n");
    assert_eq!(host.dispatch("a.example.com").json()["cold"], false);
    host.wait_state("a.example.com", "stopped", 10);
    wait_for("its cgroup is gone", seconds(5), || host.snapshot().processes.is_empty());
    assert_eq!(host.dispatch("a.example.com").json()["cold"], true);
    host.finish();
}
