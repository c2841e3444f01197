//! Directory patterns: a directory is a site.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::time::Instant;

use harness::{Host, STATIC, seconds, wait_for};

/// A pattern has to be there when the agent starts; its configuration names the test's own directory.
fn with_pattern(definition: &str) -> Host {
    let host = Host::new("");
    host.signal_agent(libc::SIGTERM);
    let config = format!(
        "[[alias]]\npattern = \"*.example.net\"\ndocuments = \"{}/%h\"\ndefinition = \"php.toml\"\n",
        host.dir.join("www").display()
    );
    fs::write(host.dir.join("agent.toml"), config).unwrap();
    fs::write(host.dir.join("php.toml"), definition).unwrap();
    host.start();
    host
}

#[test]
fn a_directory_is_a_site_within_a_second() {
    let host = with_pattern(&format!("owner = \"acme\"\n{STATIC}"));
    assert_eq!(host.dispatch("new.example.net").status, 404);
    let documents = host.documents("new.example.net");
    let made = Instant::now();
    wait_for("it is known", seconds(1), || {
        host.request("GET", "/v1/vhosts/new.example.net", b"")
            .status
            == 200
    });
    assert!(made.elapsed() < seconds(1));
    assert_eq!(
        host.get("new.example.net", "/").body,
        b"<h1>new.example.net</h1>\n"
    );
    assert_eq!(host.status("new.example.net")["owner"], "acme");
    let listed = host.request("GET", "/v1/vhosts", b"").json();
    assert_eq!(listed["vhosts"][0]["vhost"], "new.example.net");
    assert_eq!(host.dispatch("no.example.net").status, 404);
    assert_eq!(
        host.dispatch("a.b.example.net").status,
        404,
        "one star is one label"
    );
    assert_eq!(
        host.request("DELETE", "/v1/vhosts/new.example.net", b"")
            .status,
        409
    );
    // A pattern's site lives on in the next agent.
    let pid = host.status("new.example.net")["pid"].clone();
    host.crash_and_restart();
    assert_eq!(host.status("new.example.net")["pid"], pid);
    fs::remove_dir_all(&documents).unwrap();
    wait_for("it ends", seconds(5), || {
        host.snapshot().processes.is_empty()
    });
    wait_for("it is unknown", seconds(5), || {
        host.dispatch("new.example.net").status == 404
    });
    host.finish();
}

#[test]
fn a_change_of_the_patterns_definition_reaches_its_sites() {
    let host = with_pattern(&format!("owner = \"acme\"\n{STATIC}"));
    host.documents("new.example.net");
    host.dispatch("new.example.net").upstream();
    let pid = host.status("new.example.net")["pid"].clone();
    fs::write(
        host.dir.join("php.toml"),
        format!("owner = \"acme\"\n{STATIC}[limits]\npids = 21\n"),
    )
    .unwrap();
    wait_for("the limit is in force", seconds(5), || {
        host.status("new.example.net")["limits"]["pids"] == 21
    });
    assert_eq!(host.status("new.example.net")["pid"], pid);
    fs::write(
        host.dir.join("php.toml"),
        "owner = \"acme\"\nnonsense = 1\n",
    )
    .unwrap();
    wait_for("the problem is reported", seconds(5), || {
        host.problems().iter().any(|p| p.contains("nonsense"))
    });
    assert_eq!(host.get("new.example.net", "/").status, 200);
    assert_eq!(host.status("new.example.net")["pid"], pid);
    host.finish();
}

#[test]
fn sites_of_a_pattern_whose_definition_is_broken_keep_their_disk_limits() {
    let host = with_pattern("this is no toml");
    host.signal_agent(libc::SIGTERM);
    let documents = host.documents("a.example.net");
    let kept = ["a.example.net", "gone.example.org"].map(|name| {
        let path = host.dir.join(format!("state/disk/{name}.json"));
        let entry =
            serde_json::json!({"project": 0x4600_0007 + name.len(), "documents": documents, "labelled": true});
        fs::write(&path, entry.to_string()).unwrap();
        path
    });
    host.start();
    assert!(kept.iter().all(|path| path.exists()));
    fs::write(
        host.dir.join("php.toml"),
        format!("owner = \"acme\"\n{STATIC}"),
    )
    .unwrap();
    wait_for("who is gone is forgotten", seconds(10), || {
        !kept[1].exists()
    });
    assert!(kept[0].exists());
    host.finish();
}
