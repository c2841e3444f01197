//! Limits: who else feels them, how long they are kept, what is refused. What each does inside is shown by the matrix.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use harness::inside::{ask, site};
use harness::limits::{SITE, events, in_cgroup, patch, set, text};
use harness::{Host, seconds, time_scale, wait_for};
use serde_json::{Value, json};

#[test]
fn forks_beyond_the_limit_fail_inside_and_nowhere_else() {
    let host = Host::new("");
    site(&host, SITE, "[limits]\npids = 32\n");
    // Its init and the server are two of them.
    assert_eq!(
        ask(&host, SITE, "fork/200", 30),
        format!("30 {}", libc::EAGAIN)
    );
    // It can again, and so can everybody else.
    assert_eq!(ask(&host, SITE, "fork/10", 30), "10 0");
    let status = host.status(SITE);
    assert!(
        status["usage"]["forks_refused"].as_u64().unwrap() >= 1,
        "{}",
        status["usage"]
    );
    site(&host, "other.example.com", "");
    assert_eq!(ask(&host, "other.example.com", "fork/100", 30), "100 0");
    assert!(
        std::process::Command::new("/bin/true")
            .status()
            .unwrap()
            .success()
    );
    host.finish();
}

#[test]
fn limits_set_while_it_sleeps_apply_at_its_start_and_survive_the_agent() {
    let host = Host::new("");
    site(&host, SITE, "[limits]\nmemory = \"64M\"\npids = 20\n");
    set(&host, &["memory=48M", "cpu=30%"]);
    assert_eq!(host.state(SITE), "stopped");
    host.crash_and_restart();
    assert_eq!(host.dispatch(SITE).status, 200);
    let check = |memory: &str, pids: u64| {
        let limits = host.status(SITE)["limits"].clone();
        assert_eq!(
            (&limits["memory"], &limits["pids"], &limits["cpu"]),
            (&json!(memory), &json!(pids), &json!("30%"))
        );
    };
    check("48M", 20);
    assert_eq!(
        in_cgroup(&host, ["memory.max", "memory.limit_in_bytes"]),
        (48u64 << 20).to_string()
    );
    // While it runs as well.
    host.crash_and_restart();
    check("48M", 20);
    // What the definition says later wins over what was set before, and only that.
    let pid = host.status(SITE)["pid"].clone();
    site(&host, SITE, "[limits]\nmemory = \"80M\"\npids = 20\n");
    wait_for("the definition's new memory", seconds(5), || {
        host.status(SITE)["limits"]["memory"] == "80M"
    });
    check("80M", 20);
    assert_eq!(
        host.status(SITE)["pid"],
        pid,
        "a change of limits needs no new start"
    );
    assert_eq!(
        in_cgroup(&host, ["memory.max", "memory.limit_in_bytes"]),
        (80u64 << 20).to_string()
    );
    host.crash_and_restart();
    check("80M", 20);
    host.finish();
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let host = Host::new("");
    site(
        &host,
        SITE,
        "[limits]\nmemory = \"128M\"\npids = 20\ncpu = \"40%\"\n",
    );
    for running in [false, true] {
        if running {
            assert_eq!(ask(&host, SITE, "allocate/1", 20), "1");
        }
        let before = host.status(SITE)["limits"].clone();
        for (body, says) in [
            (json!({"memory": "1"}), "memory"),
            (json!({"memory": "-5M"}), "memory"),
            (json!({"memory": "12Q"}), "memory"),
            (json!({"cpu": "0%"}), "cpu"),
            (json!({"cpu": "-20%"}), "cpu"),
            (json!({"cpu": "NaN%"}), "cpu"),
            (json!({"cpu": "99999999999999999999%"}), "cpu"),
            (json!({"pids": 0}), "pids"),
            (json!({"pids": 1.5}), "pids"),
            (json!({"pids": "many"}), "pids"),
            (json!({"memroy": "64M"}), "memory"),
            (json!({"io": {"wirte": "1MB/s"}}), "write"),
            (json!({"cpu_weight": 20_000}), "cpu_weight"),
            (json!({"egress": "10Kbit"}), "egress"),
            (json!({"ingress": "0"}), "ingress"),
            (json!({"disk": "5G"}), "disk"),
            (json!({"memory": ["64M"]}), "memory"),
            (json!({}), "no limit"),
            // One of them is impossible: none is applied.
            (
                json!({"pids": 25, "cpu": "20%", "memory": "nonsense"}),
                "memory",
            ),
            (json!({"pids": 25, "disk": "1G"}), "disk"),
        ] {
            let answer = patch(&host, &body);
            let problem = answer.json();
            assert!(
                (400..500).contains(&answer.status),
                "{body}: {} {problem}",
                answer.status
            );
            assert!(
                problem["detail"].as_str().unwrap().contains(says),
                "{body}: {problem}"
            );
            assert_eq!(host.status(SITE)["limits"], before, "{body}");
        }
        assert_eq!(host.status(SITE)["overrides"], json!({}));
        for word in ["cpu", "cpu=", "memory=0", "x=1", "cpu=1,5"] {
            let output = host.ctl(&["set", SITE, word]);
            if word != "cpu=" {
                assert!(!output.status.success(), "{word}: {}", text(&output));
            }
        }
        assert_eq!(host.status(SITE)["limits"], before);
    }
    let told = events(&host, "limits");
    assert!(
        !told
            .iter()
            .any(|event| event["changes"].to_string().contains("25")),
        "{told:?}"
    );
    host.finish();
}

#[test]
fn a_dry_run_changes_nothing() {
    let host = Host::new("");
    site(&host, SITE, "[limits]\nmemory = \"64M\"\ncpu = \"20%\"\n");
    for running in [false, true] {
        if running {
            assert_eq!(host.dispatch(SITE).status, 200);
        }
        let before = host.status(SITE);
        let output = host.ctl(&["set", SITE, "--dry-run", "cpu=50%", "memory=32M"]);
        let said = text(&output);
        assert!(
            output.status.success() && said.contains("50%") && said.contains("32M"),
            "{said}"
        );
        let after = host.status(SITE);
        assert_eq!(
            (&before["limits"], &before["overrides"], &before["pid"]),
            (&after["limits"], &after["overrides"], &after["pid"])
        );
        assert!(events(&host, "limits").is_empty());
        if running {
            assert_eq!(
                in_cgroup(&host, ["memory.max", "memory.limit_in_bytes"]),
                (64u64 << 20).to_string()
            );
        }
        assert!(
            !host
                .ctl(&["set", SITE, "--dry-run", "memory=nonsense"])
                .status
                .success()
        );
    }
    assert!(!host.dir.join(format!("state/vhosts/{SITE}.json")).exists());
    host.finish();
}

#[test]
fn a_limit_that_is_lifted_is_lifted() {
    let host = Host::new("");
    site(&host, SITE, "[limits]\nmemory = \"64M\"\npids = 20\n");
    assert_eq!(host.dispatch(SITE).status, 200);
    set(&host, &["pids=max", "memory=max"]);
    assert_eq!(in_cgroup(&host, ["pids.max", "pids.max"]), "max");
    assert_eq!(ask(&host, SITE, "fork/100", 30), "100 0");
    // Back to what the definition says.
    let answer = patch(&host, &json!({"pids": null, "memory": null}));
    assert_eq!(answer.status, 200, "{}", answer.json());
    assert_eq!(in_cgroup(&host, ["pids.max", "pids.max"]), "20");
    assert_eq!(host.status(SITE)["overrides"], json!({}));
    // The kernel tells nothing of a disk without limits.
    set(&host, &["io.write=5MB/s"]);
    let answer = patch(&host, &json!({"io.write": "max"})).json();
    let change = json!({"key": "io.write", "old": "5MB/s", "new": "max"});
    assert_eq!(answer["changes"], json!([change]), "{answer}");
    assert_eq!(answer["limits"]["io.write"], Value::Null, "{answer}");
    let pause = Duration::from_millis(50) * time_scale();
    wait_for("its children are gone", seconds(5) + pause, || {
        host.status(SITE)["usage"]["pids"] == 2
    });
    host.finish();
}
