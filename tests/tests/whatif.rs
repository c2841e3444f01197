//! What other limits would have done to a site, by what is recorded of it.
#![allow(clippy::unwrap_used, missing_docs)]

use harness::client::as_user;
use harness::inside::{ask, site};
use harness::{Answer, Host, STATIC, http};
use serde_json::Value;

const SITE: &str = "a.example.com";
const ACME: u32 = 71_301;
const BOLT: u32 = 71_302;

fn asked(host: &Host, uid: u32, query: &str) -> Answer {
    let socket = host.socket();
    let path = format!("/v1/capacity?{query}");
    as_user(uid, uid, &[], || http::request(&socket, "GET", &path, b"")).unwrap()
}

#[test]
fn limits_are_held_against_what_was_recorded() {
    let host = Host::new(&format!(
        "[owner.acme]\nuid = {ACME}\n[owner.bolt]\nuid = {BOLT}\n"
    ));
    site(&host, SITE, "");
    ask(&host, SITE, "burn/2000", 120);
    assert_eq!(host.verb(SITE, "stop").status, 200);
    // 2 s in a minute, or where one ends in two of them: one holds a second at least.
    let output = host.ctl(&[
        "--json",
        "capacity",
        "--vhost",
        SITE,
        "--since",
        "1h",
        "cpu=1%",
        "cpu=200%",
        "memory=4K",
        "pids=4000",
    ]);
    assert!(output.status.success(), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let told = &told["what_if"];
    assert_eq!(
        (&told["vhost"], &told["step_s"]),
        (&SITE.into(), &60.into())
    );
    assert!(told["recorded"].as_u64().unwrap() >= 1, "{told}");
    let effect = |key: &str| {
        let all = told["effects"].as_array().unwrap();
        all.iter().find(|effect| effect["key"] == key).unwrap()
    };
    // Of a limit that is given twice the last counts.
    assert_eq!(effect("cpu")["limit"], "200%");
    assert_eq!(effect("cpu")["over"], 0);
    assert!(effect("memory")["over"].as_u64().unwrap() >= 1, "{told}");
    assert_eq!(effect("pids")["over"], 0);
    let page = host.ctl(&["capacity", "--vhost", SITE, "cpu=1%"]);
    let text = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(
        page.status.success() && text.contains("cpu=1%  over in ") && !text.contains("over in 0"),
        "{text}"
    );
    host.finish();
}

#[test]
fn owners_ask_about_their_own_sites() {
    let host = Host::new(&format!(
        "[owner.acme]\nuid = {ACME}\n[owner.bolt]\nuid = {BOLT}\n"
    ));
    host.site(SITE, STATIC);
    let documents = host.documents("b.example.com").display().to_string();
    host.define(
        "b.example.com",
        &format!("owner = \"bolt\"\ndocuments = {documents:?}\n{STATIC}"),
    );
    for (uid, query, status) in [
        (ACME, "vhost=a.example.com&limit=cpu=20%25", 200),
        (BOLT, "vhost=a.example.com&limit=cpu=20%25", 403),
        (BOLT, "vhost=b.example.com&limit=memory=1G&since=400d", 200),
        (ACME, "vhost=a.example.com", 400),
        (ACME, "vhost=a.example.com&limit=cpu", 400),
        (ACME, "vhost=a.example.com&limit=cpu_weight=100", 400),
        (ACME, "vhost=a.example.com&limit=cpu=20%25&since=soon", 400),
        // How many more sites fit is about all of them.
        (ACME, "", 403),
    ] {
        let answer = asked(&host, uid, query);
        assert_eq!(answer.status, status, "{query}: {answer:?}");
    }
    let nothing = asked(&host, ACME, "vhost=a.example.com&limit=cpu=20%25").json();
    assert_eq!(nothing["what_if"]["recorded"], 0);
    host.finish();
}
