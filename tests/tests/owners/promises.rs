//! What an owner's sites are promised, within the budget: whoever asks, however, and for how long.

use std::time::Duration;

use harness::time_scale;

use super::*;

const GUARANTEED: &str = "class = \"guaranteed\"";

fn limited(host: &Host, name: &str, owner: &str, limits: &str) -> String {
    let documents = host.documents(name).display().to_string();
    format!(
        "name = {name:?}\nowner = {owner:?}\ndocuments = {documents:?}\n{}\n[limits]\n{limits}\n[idle]\ntimeout = \"1h\"\n",
        harness::STATIC
    )
}

/// By a file, whatever the agent makes of it.
fn write(host: &Host, name: &str, text: &str) {
    let (new, file) = (host.dir.join("new.tmp"), format!("vhosts.d/{name}.toml"));
    fs::write(&new, text).unwrap();
    fs::rename(&new, host.dir.join(file)).unwrap();
}

fn promised(host: &Host, site: &str) -> Value {
    host.status(site)["promised"]["cpu"].clone()
}

fn put(host: &Host, name: &str, number: u32, limits: &Value) -> Answer {
    let body = json!({
        "owner": "acme", "documents": host.documents(name), "listen": "tcp:8080", "limits": limits,
        "command": ["/usr/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/site"], "env": {"N": number.to_string()},
    });
    let path = format!("/v1/vhosts/{name}");
    host.request("PUT", &path, body.to_string().as_bytes())
}

#[test]
fn definitions_by_file_are_promised_no_more_than_the_budget_of_their_owner() {
    let host = host();
    for owner in ["acme", "bolt"] {
        ctl(&host, &["owner", "budget", owner, "cpu=50%"]);
    }
    let forty = format!("{GUARANTEED}\ncpu = \"40%\"");
    for (site, of) in [(A, "acme"), (OTHER, "bolt")] {
        write(&host, site, &limited(&host, site, of, &forty));
        wait_for("it is promised", seconds(10), || {
            host.request("GET", &format!("/v1/vhosts/{site}"), b"")
                .status
                == 200
                && promised(&host, site) == "40%"
        });
    }
    let twenty = format!("{GUARANTEED}\ncpu = \"20%\"");
    write(&host, B, &limited(&host, B, "acme", &twenty));
    wait_for("it is too much", seconds(10), || {
        host.problems()
            .iter()
            .any(|p| p.contains("the CPU budget of acme is 50%") && p.contains("40% + 20% = 60%"))
    });
    assert_eq!(promised(&host, B), Value::Null);
    // So it is with the next agent.
    host.crash_and_restart();
    assert_eq!(host.problems().len(), 1, "{:?}", host.problems());
    assert_eq!(
        [A, B, OTHER].map(|site| promised(&host, site)),
        [json!("40%"), Value::Null, json!("40%")]
    );
    // Once the budget has room it is kept, and then the budget stays.
    ctl(&host, &["owner", "budget", "acme", "cpu=60%"]);
    assert!(host.problems().is_empty(), "{:?}", host.problems());
    assert_eq!(promised(&host, B), "20%");
    for dry_run in [true, false] {
        let words = ["owner", "budget", "acme", "cpu=59%", "--dry-run"];
        let output = host.ctl(&words[..if dry_run { 5 } else { 4 }]);
        assert!(
            !output.status.success()
                && text(&output).contains("promised 60% CPU, 1% more than 59%"),
            "{}",
            text(&output)
        );
    }
    assert_eq!(owner(&host, "acme")["budget"]["cpu"], "60%");
    // Who comes from another owner takes nothing out of the sum.
    assert_eq!(host.dispatch(A).status, 200);
    write(&host, A, &limited(&host, A, "bolt", &forty));
    wait_for("it is too much for bolt", seconds(20), || {
        host.problems()
            .iter()
            .any(|p| p.contains("the CPU budget of bolt is 50%") && p.contains("40% + 40% = 80%"))
    });
    assert_eq!(
        [A, B, OTHER].map(|site| promised(&host, site)),
        [Value::Null, json!("20%"), json!("40%")]
    );
    host.finish();
}

#[test]
fn what_is_given_up_for_a_time_is_promised_to_nobody_else() {
    let host = host();
    ctl(&host, &["owner", "budget", "acme", "cpu=50%"]);
    let limits = format!("{GUARANTEED}\ncpu = \"40%\"");
    write(&host, A, &limited(&host, A, "acme", &limits));
    write(&host, B, &limited(&host, B, "acme", "cpu = \"20%\""));
    wait_for("both are there", seconds(10), || {
        [A, B].iter().all(|site| {
            let answer = host.request("GET", &format!("/v1/vhosts/{site}"), b"");
            answer.status == 200
        })
    });
    let refused = |host: &Host| {
        let output = host.ctl(&["set", B, "class=guaranteed"]);
        !output.status.success() && text(&output).contains("40% + 20% = 60%")
    };
    for words in [["cpu=10%"], ["class=best-effort"]] {
        ctl(&host, &["set", A, "--for", "1h", words[0]]);
        assert!(refused(&host), "{words:?}");
    }
    assert_eq!(promised(&host, A), Value::Null);
    host.crash_and_restart();
    assert!(refused(&host));
    assert_eq!(promised(&host, A), Value::Null);
    // Its time is over: it has what it had.
    ctl(&host, &["set", A, "cpu=default", "class=default"]);
    ctl(&host, &["set", A, "--for", "1s", "cpu=10%"]);
    wait_for("it has its own back", seconds(20), || {
        promised(&host, A) == "40%"
    });
    assert!(host.problems().is_empty());
    // Given up for good it is another's.
    ctl(&host, &["set", A, "cpu=30%"]);
    ctl(&host, &["set", B, "class=guaranteed"]);
    assert_eq!(
        [promised(&host, A), promised(&host, B)],
        [json!("30%"), json!("20%")]
    );
    host.finish();
}

#[test]
fn a_definition_that_comes_while_limits_are_set_forgets_no_promise() {
    let host = host();
    let limits = json!({"cpu": "20%"});
    assert_eq!(put(&host, A, 0, &limits).status, 200);
    for round in 1..=harness::rounds(60, 6) {
        let class = if round % 2 == 1 {
            "guaranteed"
        } else {
            "best-effort"
        };
        let socket = host.socket();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let (path, body) = (format!("/v1/vhosts/{A}/limits"), json!({"class": class}));
                let answer =
                    harness::http::request(&socket, "PATCH", &path, body.to_string().as_bytes());
                assert_eq!(answer.unwrap().status, 200);
            });
            // At another moment of the change each time: whatever comes after it would mend what was lost.
            std::thread::sleep(Duration::from_micros(u64::from(round) * 150) * time_scale());
            assert_eq!(put(&host, A, round, &limits).status, 200);
        });
        let status = host.status(A);
        assert_eq!(status["class"], class, "{status}");
        assert_eq!(
            status["promised"].is_object(),
            class == "guaranteed",
            "round {round}: {status}"
        );
    }
    host.finish();
}

#[test]
fn the_group_of_an_owner_of_whom_nobody_has_said_anything_is_left_alone() {
    let host = host();
    define(&host, A, "acme", harness::STATIC);
    assert_eq!(host.dispatch(A).status, 200);
    let names = ["memory.max", "memory.limit_in_bytes"];
    let bytes = (512u64 << 20).to_string();
    harness::limits::by_hand(&host, "acme", names, &bytes);
    ctl(&host, &["set", A, "pids=100"]);
    assert_eq!(file(&host, "acme", names).unwrap().trim(), bytes);
    host.finish();
}
