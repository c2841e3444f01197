//! Owners: what operators give them, and how they divide it, as the kernel enforces it.
#![allow(clippy::unwrap_used, missing_docs)]

mod cpu;
mod io;
mod promises;
mod sequences;

use std::fs;
use std::path::Path;

use harness::client::as_user;
use harness::limits::text;
use harness::{Answer, Host, cgroup_roots, inside, seconds, wait_for};
use serde_json::{Value, json};

const ACME: u32 = 71_201;
const BOLT: u32 = 71_202;

const A: &str = "a.example.com";
const B: &str = "b.example.com";
const C: &str = "c.example.com";
const OTHER: &str = "x.example.org";

fn host() -> Host {
    Host::new(&format!(
        "[owner.acme]\nuid = {ACME}\n[owner.bolt]\nuid = {BOLT}\n"
    ))
}

fn define(host: &Host, name: &str, owner: &str, rest: &str) {
    let documents = host.documents(name).display().to_string();
    host.define(
        name,
        &format!(
            "owner = {owner:?}\ndocuments = {documents:?}\n{rest}\n[idle]\ntimeout = \"1h\"\n"
        ),
    );
}

fn ctl(host: &Host, words: &[&str]) -> String {
    let output = host.ctl(words);
    assert!(output.status.success(), "{words:?}: {}", text(&output));
    text(&output)
}

fn ask(host: &Host, uid: u32, method: &str, path: &str, body: &Value) -> Answer {
    let socket = host.socket();
    let bytes = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    as_user(uid, uid, &[], || {
        harness::http::request(&socket, method, path, &bytes)
    })
    .unwrap()
}

fn owner(host: &Host, name: &str) -> Value {
    host.request("GET", &format!("/v1/owners/{name}"), b"")
        .json()
}

/// A file of a group, wherever its controller is.
fn file(host: &Host, group: &str, names: [&str; 2]) -> Option<String> {
    let group = format!("{}/{group}", host.cgroup_parent);
    let paths = cgroup_roots()
        .into_iter()
        .flat_map(|root| names.map(|name| Path::new(&root).join(&group).join(name)));
    paths
        .filter_map(|path| fs::read_to_string(path).ok())
        .next()
}

#[test]
fn owners_divide_and_operators_decide() {
    let host = host();
    for (site, of) in [(A, "acme"), (B, "acme"), (OTHER, "bolt")] {
        define(&host, site, of, harness::STATIC);
    }
    let budget = "/v1/owners/acme/budget";
    let split = "/v1/owners/acme/split";
    let shares = |shares: Value| json!({"kind": "hard", "shares": shares});
    // Nothing to divide yet.
    let answer = ask(&host, ACME, "PATCH", split, &shares(json!({A: "20%"})));
    assert_eq!(answer.status, 409);
    for (uid, method, path, body) in [
        (ACME, "PATCH", budget, json!({"cpu": "400%"})),
        (BOLT, "PATCH", budget, json!({"cpu": "1%"})),
        (BOLT, "PATCH", split, shares(json!({OTHER: "20%"}))),
        (BOLT, "GET", "/v1/owners/acme", Value::Null),
        (BOLT, "GET", "/v1/owners/nobody", Value::Null),
        (71_203, "GET", "/v1/owners/acme", Value::Null),
    ] {
        let answer = ask(&host, uid, method, path, &body);
        assert_eq!(
            answer.status,
            403,
            "{uid} {method} {path}: {}",
            answer.json()
        );
    }
    assert_eq!(owner(&host, "acme")["budget"]["cpu"], Value::Null);
    assert_eq!(host.request("GET", "/v1/owners/nobody", b"").status, 404);
    // A dry run leaves everything.
    let said = ctl(&host, &["owner", "budget", "acme", "--dry-run", "cpu=60%"]);
    assert!(said.contains("60%"), "{said}");
    assert_eq!(owner(&host, "acme")["budget"]["cpu"], Value::Null);
    assert_eq!(host.dispatch(A).status, 200);
    ctl(
        &host,
        &["owner", "budget", "acme", "cpu=60%", "memory=512M"],
    );
    let view = owner(&host, "acme");
    assert_eq!(
        view["in_force"],
        json!({"cpu": "60%", "memory": "512M", "io": null}),
        "{view}"
    );
    for (body, status, says) in [
        (shares(json!({A: "60%", B: "60%"})), 409, "60% + 60% = 120%"),
        (shares(json!({A: "20%", OTHER: "20%"})), 403, "not yours"),
        (
            shares(json!({A: "20%", "no.example.com": "20%"})),
            404,
            "no.example.com",
        ),
        (shares(json!({A: "0.5%"})), 409, "too small"),
        (shares(json!({A: "120%"})), 400, "more than the whole"),
        (shares(json!({A: "20"})), 400, "%"),
        (json!({"kind": "soft", "shares": {A: "20%"}}), 400, "soft"),
    ] {
        let answer = ask(&host, ACME, "PATCH", split, &body);
        let problem = answer.json();
        assert_eq!(answer.status, status, "{body}: {problem}");
        assert!(
            problem["detail"].as_str().unwrap().contains(says),
            "{body}: {problem}"
        );
        assert_eq!(owner(&host, "acme")["split"], Value::Null);
    }
    let dry = ask(
        &host,
        ACME,
        "PATCH",
        &format!("{split}?dry_run=true"),
        &shares(json!({A: "20%"})),
    );
    assert_eq!(
        (dry.status, owner(&host, "acme")["split"].clone()),
        (200, Value::Null)
    );
    // The owner divides; one half is of a site, the rest is the others'.
    let answer = ask(&host, ACME, "PATCH", split, &shares(json!({A: "50%"})));
    assert_eq!(answer.status, 200, "{}", answer.json());
    assert_eq!(host.status(A)["limits"]["cpu"], "30%");
    assert_eq!(host.dispatch(B).status, 200);
    assert_eq!(host.status(B)["limits"]["cpu"], "30%");
    let shown = ctl(&host, &["owner", "show", "acme"]);
    assert!(
        shown.contains("division hard, 50% left") && shown.contains("60%"),
        "{shown}"
    );
    // All that is kept.
    host.crash_and_restart();
    wait_for("taken over", seconds(5), || {
        owner(&host, "acme")["usage"]["awake"] == 2
    });
    let view = owner(&host, "acme");
    assert_eq!(
        (&view["budget"]["cpu"], &view["split"]["shares"][A]),
        (&json!("60%"), &json!("50%"))
    );
    assert_eq!(host.status(A)["limits"]["cpu"], "30%");
    // Nothing is divided any more: only the budget is left.
    ctl(&host, &["owner", "split", "acme", "--clear"]);
    assert_eq!(host.status(A)["limits"]["cpu"], Value::Null);
    assert_eq!(owner(&host, "acme")["in_force"]["cpu"], "60%");
    ctl(&host, &["owner", "budget", "acme", "cpu=max", "memory="]);
    assert_eq!(
        owner(&host, "acme")["in_force"],
        json!({"cpu": null, "memory": null, "io": null})
    );
    host.finish();
}

#[test]
fn sites_and_starts_are_counted() {
    let host = host();
    for site in [A, B] {
        define(&host, site, "acme", harness::STATIC);
    }
    let output = host.ctl(&["owner", "budget", "acme", "sites=1"]);
    assert!(
        !output.status.success() && text(&output).contains("2 sites are defined"),
        "{}",
        text(&output)
    );
    ctl(&host, &["owner", "budget", "acme", "sites=2", "starts=1"]);
    let definition = |owner: &str| {
        json!({"owner": owner, "documents": host.documents(C), "command": ["/usr/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/site"],
               "listen": "tcp:8080"})
    };
    let put = |owner: &str| {
        host.request(
            "PUT",
            &format!("/v1/vhosts/{C}"),
            definition(owner).to_string().as_bytes(),
        )
    };
    let answer = put("acme");
    assert_eq!(answer.status, 409, "{}", answer.json());
    assert!(
        answer.json()["detail"]
            .as_str()
            .unwrap()
            .contains("2 + 1 > 2"),
        "{}",
        answer.json()
    );
    assert_eq!(put("bolt").status, 200);
    // By a file, which only operators write, there can be more; then they cannot all be awake.
    define(&host, "d.example.com", "acme", harness::STATIC);
    std::thread::scope(|scope| {
        for site in [A, B] {
            let socket = host.socket();
            scope.spawn(move || {
                let body = json!({"vhost": site}).to_string();
                let answer =
                    harness::http::request(&socket, "POST", "/v1/dispatch", body.as_bytes())
                        .unwrap();
                assert_eq!(answer.status, 200, "{}", answer.json());
            });
        }
    });
    let refused = host.dispatch("d.example.com");
    assert_eq!(refused.status, 503);
    assert!(
        refused.json()["detail"]
            .as_str()
            .unwrap()
            .contains("budget of acme is 2 sites"),
        "{}",
        refused.json()
    );
    assert_eq!(host.dispatch(C).status, 200, "another owner's");
    assert_eq!(host.verb(A, "stop").status, 200);
    assert_eq!(host.verb("d.example.com", "start").status, 200);
    host.finish();
}

#[test]
fn memory_is_counted_over_all_sites_and_the_budget_is_there_with_the_first_of_them() {
    let host = host();
    for site in [A, B] {
        inside::put(&host.documents(site));
        define(&host, site, "acme", inside::CHECKER);
    }
    ctl(&host, &["owner", "budget", "acme", "memory=96M"]);
    // Nothing was awake when it was set.
    assert_eq!(inside::ask(&host, A, "allocate/64", 30), "64");
    assert_eq!(owner(&host, "acme")["in_force"]["memory"], "96M");
    let memory = ["memory.max", "memory.limit_in_bytes"];
    assert_eq!(
        file(&host, "acme", memory).unwrap().trim(),
        (96u64 << 20).to_string()
    );
    assert_eq!(
        inside::ask(&host, A, "allocate-in-child/120", 30),
        "signal 9"
    );
    // What one holds, the other cannot have.
    let socket = host.dispatch(A).upstream();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // It answers only with its end.
            let _ = harness::http::get(&socket, "/hold/60", seconds(60));
        });
        wait_for("a holds its memory", seconds(20), || {
            owner(&host, "acme")["usage"]["memory_bytes"]
                .as_u64()
                .unwrap_or(0)
                > 60 << 20
        });
        assert_eq!(inside::ask(&host, B, "allocate-in-child/20", 30), "code 0");
        let lower = host.ctl(&["owner", "budget", "acme", "memory=16M"]);
        assert!(!lower.status.success(), "{}", text(&lower));
        assert_eq!(
            file(&host, "acme", memory).unwrap().trim(),
            (96u64 << 20).to_string()
        );
        assert_eq!(owner(&host, "acme")["budget"]["memory"], "96M");
        assert_eq!(host.verb(A, "stop").status, 200);
    });
    // The owner's group goes with its last site, and comes back with its budget.
    assert_eq!(host.verb(B, "stop").status, 200);
    wait_for("acme's group is gone", seconds(20), || {
        file(&host, "acme", memory).is_none()
    });
    assert_eq!(host.dispatch(A).status, 200);
    assert_eq!(
        file(&host, "acme", memory).unwrap().trim(),
        (96u64 << 20).to_string()
    );
    host.finish();
}

#[test]
fn agent_toml_gives_budgets_and_operators_go_before_it() {
    let host = Host::new(&format!(
        "[budget]\ncpu = \"90%\"\nsites = 3\n[owner.acme]\nuid = {ACME}\nbudget = {{ cpu = \"50%\", memory = \"512M\" }}\n"
    ));
    for (site, of) in [(A, "acme"), (OTHER, "bolt")] {
        define(&host, site, of, harness::STATIC);
        assert_eq!(host.dispatch(site).status, 200);
    }
    let in_force = |name: &str| owner(&host, name)["in_force"].clone();
    // The owner's own, and everybody's for what that leaves out.
    assert_eq!(
        owner(&host, "acme")["budget"],
        json!({"cpu": "50%", "memory": "512M", "io": null, "sites": 3, "starts": null})
    );
    assert_eq!(
        in_force("acme"),
        json!({"cpu": "50%", "memory": "512M", "io": null})
    );
    assert_eq!(
        in_force("bolt"),
        json!({"cpu": "90%", "memory": null, "io": null})
    );
    assert_eq!(host.request("GET", "/v1/owners/nobody", b"").status, 404);
    // It can be divided like one that an operator has set, and more sites than it has room for are refused.
    let split = json!({"kind": "hard", "shares": {A: "50%"}});
    let answer = ask(&host, ACME, "PATCH", "/v1/owners/acme/split", &split);
    assert_eq!(answer.status, 200, "{}", answer.json());
    assert_eq!(host.status(A)["limits"]["cpu"], "25%");
    assert!(
        !host
            .ctl(&["owner", "budget", "acme", "sites=0"])
            .status
            .success()
    );
    // An operator's word goes before it, also "max"; taken back, the file's counts again.
    ctl(&host, &["owner", "budget", "acme", "cpu=80%", "memory=max"]);
    assert_eq!(
        in_force("acme"),
        json!({"cpu": "80%", "memory": null, "io": null})
    );
    assert_eq!(host.status(A)["limits"]["cpu"], "40%");
    host.crash_and_restart();
    wait_for("it is as before", seconds(10), || {
        in_force("acme") == json!({"cpu": "80%", "memory": null, "io": null})
            && in_force("bolt") == json!({"cpu": "90%", "memory": null, "io": null})
    });
    let said = ctl(
        &host,
        &["owner", "budget", "acme", "cpu=", "memory=default"],
    );
    assert!(said.contains("80% → 50%"), "{said}");
    assert_eq!(
        in_force("acme"),
        json!({"cpu": "50%", "memory": "512M", "io": null})
    );
    // What the file says is read at the agent's start, and reaches containers that live on.
    fs::write(host.dir.join("agent.toml"), "[budget]\ncpu = \"70%\"\n").unwrap();
    host.crash_and_restart();
    wait_for("the new budgets are in force", seconds(10), || {
        in_force("acme") == json!({"cpu": "70%", "memory": null, "io": null})
            && in_force("bolt") == json!({"cpu": "70%", "memory": null, "io": null})
    });
    wait_for("the part is one of it", seconds(10), || {
        host.status(A)["limits"]["cpu"] == "35%"
    });
    fs::write(host.dir.join("agent.toml"), "").unwrap();
    host.crash_and_restart();
    wait_for("nothing is limited any more", seconds(10), || {
        host.status(OTHER)["limits"]["cpu"] == Value::Null && in_force("bolt")["cpu"] == Value::Null
    });
    host.finish();
}
