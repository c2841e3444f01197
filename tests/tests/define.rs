//! Definitions over the API and by fastctl, and names that are none.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::time::{Duration, Instant};

use harness::{Host, STATIC, seconds};
use serde_json::json;

const SITE: &str = "a.example.com";

fn text(host: &Host, rest: &str) -> String {
    let documents = host.dir.join("www").join(SITE);
    format!("name = {SITE:?}\nowner = \"acme\"\ndocuments = {documents:?}\n{rest}")
}

#[test]
fn the_api_writes_files() {
    let host = Host::new("");
    let documents = host.documents(SITE);
    let path = format!("/v1/vhosts/{SITE}");
    let definition = |timeout: &str| {
        json!({"owner": "acme", "documents": documents, "command": ["/usr/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/site"],
            "listen": "tcp:8080", "idle": {"timeout": timeout}})
        .to_string()
    };
    let put = |query: &str, timeout: &str| {
        host.request(
            "PUT",
            &format!("{path}{query}"),
            definition(timeout).as_bytes(),
        )
    };
    let file = host.dir.join("vhosts.d/a.example.com.toml");
    let dry = put("?dry_run=1", "60s");
    assert_eq!(
        (dry.status, dry.json()["result"].as_str()),
        (200, Some("created")),
        "{dry:?}"
    );
    assert!(!file.exists());
    assert_eq!(host.dispatch(SITE).status, 404);
    assert_eq!(put("", "60s").json()["result"], "created");
    assert!(
        fs::read_to_string(&file)
            .unwrap()
            .contains("name = \"a.example.com\"")
    );
    assert_eq!(host.get(SITE, "/").status, 200);
    assert_eq!(put("", "60s").json()["result"], "unchanged");
    let changed = put("?dry_run=1", "90s").json();
    assert_eq!(
        changed["changes"],
        json!([{"key": "idle.timeout", "old": "1m", "new": "1m30s"}]),
        "{changed}"
    );
    assert!(!fs::read_to_string(&file).unwrap().contains("30s"));
    assert_eq!(put("", "90s").json()["result"], "changed");
    assert_eq!(host.status(SITE)["definition"]["idle"]["timeout"], "1m30s");
    // What is not valid changes nothing.
    let bad = definition("60s").replace("tcp:8080", "tcp:99999");
    assert_eq!(host.request("PUT", &path, bad.as_bytes()).status, 400);
    let unknown = definition("60s").replace("\"owner\"", "\"ower\"");
    let answer = host.request("PUT", &path, unknown.as_bytes());
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        answer.status == 400 && detail.contains("ower") && detail.contains("owner"),
        "{detail}"
    );
    let other =
        definition("60s").replace("{\"command", "{\"aliases\":[\"a.example.com\"],\"command");
    assert_eq!(
        host.request("PUT", "/v1/vhosts/b.example.com", other.as_bytes())
            .status,
        409
    );
    assert_eq!(
        host.request("PUT", "/v1/vhosts/..%2fx", definition("60s").as_bytes())
            .status,
        400
    );
    assert_eq!(fs::read_dir(host.dir.join("vhosts.d")).unwrap().count(), 1);
    // Away with it.
    assert_eq!(host.request("DELETE", &path, b"").status, 200);
    assert!(!file.exists());
    assert_eq!(host.dispatch(SITE).status, 404);
    assert_eq!(host.request("DELETE", &path, b"").status, 404);
    assert!(host.snapshot().processes.is_empty());
    host.finish();
}

#[test]
fn fastctl_applies_shows_and_removes() {
    let host = Host::new("");
    host.documents(SITE);
    let file = host.dir.join("mine.toml");
    fs::write(&file, text(&host, STATIC)).unwrap();
    let file = file.to_str().unwrap();
    let dry = host.ctl(&["apply", "--dry-run", "-f", file]);
    assert!(dry.status.success(), "{dry:?}");
    assert_eq!(host.ctl(&["get", SITE]).status.code(), Some(3));
    let apply = host.ctl(&["apply", "-f", file]);
    assert!(apply.status.success(), "{apply:?}");
    let get = host.ctl(&["get", SITE]);
    let shown = String::from_utf8(get.stdout).unwrap();
    assert!(get.status.success() && shown.contains("busybox"), "{shown}");
    assert!(host.ctl(&["dispatch", SITE]).status.success());
    // What `get` shows can be applied again, without any change.
    let pid = host.status(SITE)["pid"].clone();
    fs::write(host.dir.join("again.toml"), &shown).unwrap();
    let again = host.ctl(&["apply", "-f", host.dir.join("again.toml").to_str().unwrap()]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(host.status(SITE)["pid"], pid);
    assert_eq!(host.state(SITE), "running");
    let broken = shown.replace("owner", "ownr");
    fs::write(host.dir.join("again.toml"), broken).unwrap();
    let refused = host.ctl(&["apply", "-f", host.dir.join("again.toml").to_str().unwrap()]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && error.contains("ownr") && error.contains("owner"),
        "{error}"
    );
    assert!(host.ctl(&["rm", SITE]).status.success());
    assert_eq!(host.ctl(&["rm", SITE]).status.code(), Some(3));
    assert!(host.snapshot().processes.is_empty());
    host.finish();
}

#[test]
fn names_are_sorted_out_before_anything_else() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    for name in [
        "../x",
        "a..b",
        "",
        ".",
        "x\u{0}y",
        &"a".repeat(300),
        "-a.example.com",
        "a example.com",
        "*.example.com",
    ] {
        let answer = host.dispatch(name);
        assert!(matches!(answer.status, 400 | 404), "{name:?}: {answer:?}");
        assert!(
            answer.json()["detail"]
                .as_str()
                .is_some_and(|detail| detail.len() < 1000)
        );
    }
    let began = Instant::now();
    assert_eq!(host.dispatch(SITE).status, 200);
    assert!(began.elapsed() < seconds(2) + Duration::from_secs(1));
    host.finish();
}
