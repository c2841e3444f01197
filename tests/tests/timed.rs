//! Limits that are set for a time go back by themselves, whatever happens meanwhile.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::{Duration, SystemTime};

use harness::inside::site;
use harness::limits::{SITE, events, in_cgroup, patch, set, text};
use harness::{Host, seconds, wait_for};
use serde_json::{Value, json};

/// With time for an emulated machine to start with a fifth of its processor.
const DEFINED: &str =
    "[start]\ntimeout = \"60s\"\n[limits]\ncpu = \"20%\"\nmemory = \"64M\"\npids = 20\n";

/// µs of CPU time per 100 ms, as the kernel has it.
fn quota(host: &Host) -> String {
    let text = in_cgroup(host, ["cpu.max", "cpu.cfs_quota_us"]);
    text.split(' ').next().unwrap().to_owned()
}

/// A time that a test waits for, and when it is over.
fn short() -> (String, SystemTime) {
    lasting(Duration::from_secs(3))
}

fn lasting(time: Duration) -> (String, SystemTime) {
    (
        format!("{}s", time.as_secs()),
        // Counted from when the agent has read the request.
        SystemTime::now() + time + Duration::from_secs(2),
    )
}

fn wait_until(moment: SystemTime) {
    wait_for("the time is over", seconds(30), || {
        SystemTime::now() > moment
    });
}

/// What is kept on disk of the operator's changes.
fn kept(host: &Host) -> Value {
    let path = host.dir.join(format!("state/vhosts/{SITE}.json"));
    std::fs::read(path).map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap())
}

fn reverted(host: &Host) -> Vec<Value> {
    let mut all = events(host, "limits");
    all.retain(|event| event["cause"] == "their time is over");
    all
}

#[test]
fn what_runs_goes_back_to_what_was_in_force_and_says_so() {
    let host = Host::new("");
    site(&host, SITE, DEFINED);
    assert_eq!(host.dispatch(SITE).status, 200);
    set(&host, &["cpu=30%"]);
    let before = host.status(SITE);
    let (time, _) = short();
    let words = [
        "cpu=50%",
        "cpu_weight=200",
        "memory=80M",
        "pids=30",
        "egress=10Mbit",
        "ingress=20Mbit",
    ];
    let said = set(&host, &[&words[..], &["--for", &time]].concat());
    for part in ["30% ", "→ 50%", "64M ", "→ 80M", "until 2", ", then 30%"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    // Not the definition's 20 %: what the operator has set for good.
    wait_for("the old quota is back", seconds(30), || {
        quota(&host) == "30000"
    });
    wait_for("nothing is kept of it", seconds(10), || {
        kept(&host).get("temporary").is_none()
    });
    let after = host.status(SITE);
    assert_eq!(after["temporary"], json!({}));
    for key in ["limits", "overrides", "pid", "init_pid"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    let told = reverted(&host);
    assert_eq!(told.len(), 1, "{told:?}");
    let changes = told[0]["changes"].as_array().unwrap();
    assert_eq!(
        changes[0],
        json!({"key": "cpu", "old": "50%", "new": "30%"}),
        "{changes:?}"
    );
    assert_eq!(changes.len(), words.len(), "{changes:?}");
    host.finish();
}

#[test]
fn what_nobody_has_set_for_good_is_lifted_again() {
    let host = Host::new("");
    site(&host, SITE, DEFINED);
    assert_eq!(host.dispatch(SITE).status, 200);
    let before = host.status(SITE)["limits"].clone();
    let mut put = Vec::new();
    let (time, _) = short();
    let path = format!("/v1/vhosts/{SITE}/limits?for={time}");
    for body in [
        json!({"cpu_burst": "10%"}),
        json!({"io": {"weight": 300}}),
        json!({"swap": "16M"}),
        json!({"memory_high": "48M"}),
        json!({"memory_min": "8M"}),
    ] {
        let answer = host.request("PATCH", &path, body.to_string().as_bytes());
        // Not every host has all of them; what it has not is refused.
        if answer.status == 200 {
            put.push(body);
        }
    }
    println!("{put:?}");
    assert!(put.contains(&json!({"cpu_burst": "10%"})), "{put:?}");
    wait_for("they are lifted", seconds(30), || {
        kept(&host) == Value::Null
    });
    let after = host.status(SITE);
    assert_eq!((&after["limits"], &after["drift"]), (&before, &json!([])));
    host.finish();
}

#[test]
fn an_agent_that_is_killed_changes_nothing_about_it() {
    let host = Host::new("");
    site(&host, SITE, DEFINED);
    assert_eq!(host.dispatch(SITE).status, 200);
    let said = set(&host, &["cpu=50%", "--for", "2h"]);
    // Kept before it is promised.
    assert_eq!(
        kept(&host)["temporary"][0]["limits"],
        json!({"cpu": "50%"}),
        "{said}"
    );
    let until = host.status(SITE)["temporary"]["cpu"]["until"].clone();
    let pid = host.status(SITE)["pid"].clone();
    host.crash_and_restart();
    let status = host.status(SITE);
    assert_eq!(
        (&status["temporary"]["cpu"]["until"], &status["pid"]),
        (&until, &pid)
    );
    assert_eq!(status["temporary"]["cpu"]["value"], "50%");
    assert_eq!(quota(&host), "50000");
    // Over while there is no agent, which has to be killed before: the next one sees to it.
    let (time, over) = lasting(seconds(1).max(Duration::from_secs(5)));
    set(&host, &["cpu=70%", "memory=80M", "--for", &time]);
    host.signal_agent(libc::SIGKILL);
    assert_eq!(quota(&host), "70000");
    wait_until(over);
    assert_eq!(quota(&host), "70000");
    host.start();
    wait_for("what was set before is back", seconds(30), || {
        quota(&host) == "50000"
    });
    wait_for("it is told", seconds(10), || reverted(&host).len() == 1);
    let status = host.status(SITE);
    assert_eq!(status["limits"]["memory"], "64M");
    assert_eq!(
        (
            &status["pid"],
            status["temporary"].as_object().unwrap().len()
        ),
        (&pid, 1)
    );
    host.finish();
}

#[test]
fn a_site_that_sleeps_wakes_with_what_counts_then() {
    let host = Host::new("");
    site(&host, SITE, DEFINED);
    // Not over before the agent is killed, whose successor is to tell of it.
    let (time, over) = lasting(seconds(1).max(Duration::from_secs(5)));
    let said = set(&host, &["cpu=50%", "--for", &time]);
    assert!(said.contains("→ 50%"), "{said}");
    set(&host, &["pids=25", "--for", "1h"]);
    host.signal_agent(libc::SIGKILL);
    wait_until(over);
    host.start();
    assert_eq!(
        host.status(SITE)["limits"]["cpu"],
        "20%",
        "even before it wakes"
    );
    assert_eq!(host.dispatch(SITE).status, 200);
    assert_eq!(quota(&host), "20000");
    assert_eq!(in_cgroup(&host, ["pids.max", "pids.max"]), "25");
    // Set while it runs, over while it sleeps, with an agent that sees it.
    let (time, _) = short();
    set(&host, &["cpu=60%", "--for", &time]);
    assert_eq!(host.verb(SITE, "stop").status, 200);
    wait_for("it is taken back", seconds(30), || {
        host.status(SITE)["limits"]["cpu"] == "20%" && reverted(&host).len() == 2
    });
    let told = reverted(&host);
    assert_eq!(
        told[1]["changes"],
        json!([{"key": "cpu", "old": "60%", "new": "20%"}])
    );
    assert_eq!(host.state(SITE), "stopped");
    assert_eq!(host.dispatch(SITE).status, 200);
    assert_eq!(quota(&host), "20000");
    host.finish();
}

#[test]
fn the_last_word_counts_and_what_is_temporary_is_shown() {
    let host = Host::new("");
    site(&host, SITE, DEFINED);
    for running in [false, true] {
        if running {
            assert_eq!(host.dispatch(SITE).status, 200);
        }
        set(&host, &["cpu=50%", "memory=80M", "--for", "2h"]);
        let (time, _) = short();
        set(&host, &["cpu=70%", "--for", &time]);
        wait_for("the longer one counts again", seconds(30), || {
            host.status(SITE)["temporary"]["cpu"]["value"] == "50%"
        });
        let temporary = &host.status(SITE)["temporary"];
        assert_eq!(temporary["cpu"]["then"], "20%");
        assert!(temporary["memory"]["left_s"].as_f64().unwrap() > 3600.0);
        for verb in ["status", "get"] {
            let said = text(&host.ctl(&[verb, SITE]));
            assert!(
                said.contains("50% until 2") && said.contains(", then 20%"),
                "{said}"
            );
        }
        // For good: ends what was for a time of that limit, and of that only.
        set(&host, &["cpu=40%"]);
        let temporary = host.status(SITE)["temporary"].clone();
        assert_eq!(temporary.as_object().unwrap().len(), 1, "{temporary}");
        assert_eq!(temporary["memory"]["value"], "80M");
        assert_eq!(host.status(SITE)["limits"]["cpu"], "40%");
        set(&host, &["cpu=default", "memory=default"]);
        assert_eq!(kept(&host), Value::Null);
    }
    // A definition that is printed with a remark is a definition still.
    set(&host, &["cpu=50%", "--for", "1h"]);
    let file = host.dir.join("again.toml");
    std::fs::write(&file, host.ctl(&["get", SITE]).stdout).unwrap();
    let output = host.ctl(&["apply", "-f", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    host.finish();
}

#[test]
fn what_cannot_be_for_a_time_is_refused_and_changes_nothing() {
    let host = Host::new("");
    site(&host, SITE, DEFINED);
    assert_eq!(host.dispatch(SITE).status, 200);
    set(&host, &["cpu=50%", "--for", "1h"]);
    let before = host.status(SITE);
    let path = format!("/v1/vhosts/{SITE}/limits");
    for (query, body, status, says) in [
        ("?for=0s", json!({"cpu": "60%"}), 400, "shorter"),
        ("?for=31d", json!({"cpu": "60%"}), 400, "longer"),
        ("?for=never", json!({"cpu": "60%"}), 400, "never"),
        ("?for=-5m", json!({"cpu": "60%"}), 400, "length of time"),
        ("?for", json!({"cpu": "60%"}), 400, "length of time"),
        ("?for=10m", json!({"pids": 25, "disk": "1G"}), 409, "disk"),
        // It would be more than the quota that comes back.
        ("", json!({"cpu_burst": "40%"}), 409, "as they will be from"),
    ] {
        let answer = host.request(
            "PATCH",
            &(path.clone() + query),
            body.to_string().as_bytes(),
        );
        let problem = answer.json();
        assert_eq!(answer.status, status, "{query} {body}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{query} {body}: {detail}");
    }
    for time in ["0s", "31d", "soon", ""] {
        let output = host.ctl(&["set", SITE, "cpu=60%", "--for", time]);
        assert_eq!(output.status.code(), Some(2), "{time}: {}", text(&output));
    }
    let output = host.ctl(&["set", SITE, "cpu=60%", "--for", "10m", "--dry-run"]);
    let said = text(&output);
    assert!(
        output.status.success() && said.contains("50% → 60%") && said.contains("then 50%"),
        "{said}"
    );
    let after = host.status(SITE);
    for key in ["limits", "overrides", "pid"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert_eq!(
        after["temporary"]["cpu"]["until"],
        before["temporary"]["cpu"]["until"]
    );
    // Without a time the API is as it was.
    assert_eq!(
        patch(&host, &json!({"pids": 22})).json()["limits"]["pids"],
        22
    );
    host.finish();
}
