//! Limits of network traffic: who keeps, changes and refuses them. How exactly they hold is shown by the matrix.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Read;
use std::time::Duration;

use harness::inside::site;
use harness::limits::{SITE, patch, set, text};
use harness::traffic::{connect, egress, ingress};
use harness::{Host, seconds, wait_for};
use serde_json::{Value, json};

/// How long traffic flows each time; in the second half it is measured.
const FLOW: Duration = Duration::from_secs(3);

const fn mbit(rate: u64) -> f64 {
    (rate * 1_000_000 / 8) as f64
}

/// Within 10 % of the limit. More is never right; less only while others keep the processors busy, and then it is measured
/// again.
fn assert_rate(what: &str, limit: f64, mut measure: impl FnMut() -> f64) {
    for _ in 0..5 {
        let share = measure() / limit;
        println!("{what}: {:.1} % of {limit} B/s", share * 100.0);
        assert!(share < 1.1, "{what}: {share} of {limit} B/s");
        if share > 0.9 {
            return;
        }
    }
    panic!("this machine is too busy, or {what} of {limit} B/s is not given");
}

fn assert_rates(host: &Host, out: u64, into: u64) {
    let limits = host.status(SITE)["limits"].clone();
    assert_eq!(
        (&limits["egress"], &limits["ingress"]),
        (
            &json!(format!("{out}Mbit/s")),
            &json!(format!("{into}Mbit/s"))
        )
    );
    assert_rate("egress", mbit(out), || egress(host, FLOW));
    assert_rate("ingress", mbit(into), || ingress(host, FLOW));
}

fn processes(host: &Host) -> [Value; 2] {
    let status = host.status(SITE);
    [status["pid"].clone(), status["init_pid"].clone()]
}

#[test]
fn limits_outlive_the_agent_and_are_put_right_by_the_next() {
    let host = Host::new("");
    site(&host, SITE, "[limits]\negress = \"10Mbit\"\n");
    assert_eq!(host.dispatch(SITE).status, 200);
    set(&host, &["ingress=10Mbit"]);
    let before = processes(&host);
    host.crash_and_restart();
    assert_rates(&host, 10, 10);
    // Somebody lifts them by hand while there is no agent.
    host.signal_agent(libc::SIGKILL);
    let init = before[1].as_i64().unwrap().to_string();
    let lift = [
        "--net", "--target", &init, "tc", "qdisc", "del", "dev", "eth0", "root",
    ];
    let lifted = std::process::Command::new("nsenter")
        .args(lift)
        .output()
        .unwrap();
    assert!(lifted.status.success(), "{}", text(&lifted));
    host.start();
    wait_for("the limit is back", seconds(10), || {
        host.status(SITE)["limits"]["egress"] == "10Mbit/s"
    });
    assert_rates(&host, 10, 10);
    assert_eq!(processes(&host), before, "the same process");
    host.finish();
}

#[test]
fn a_limit_that_is_lifted_is_lifted() {
    let host = Host::new("");
    site(&host, SITE, "[limits]\negress = \"2Mbit\"\n");
    assert_eq!(host.dispatch(SITE).status, 200);
    set(&host, &["egress=max", "ingress=2Mbit"]);
    assert_eq!(host.status(SITE)["limits"].get("egress"), None);
    let free = egress(&host, FLOW);
    assert!(free > mbit(20), "{free} B/s");
    let answer = patch(&host, &json!({"egress": null, "ingress": null}));
    assert_eq!(answer.status, 200, "{}", answer.json());
    let limits = host.status(SITE)["limits"].clone();
    assert_eq!(
        (&limits["egress"], limits.get("ingress")),
        (&json!("2Mbit/s"), None),
        "as the definition says"
    );
    let free = ingress(&host, FLOW);
    assert!(free > mbit(20), "{free} B/s");
    host.finish();
}

#[test]
fn a_limit_is_not_changed_when_another_is_refused() {
    let host = Host::new("");
    site(&host, SITE, "[limits]\negress = \"10Mbit\"\n");
    // It does not answer, and keeps the memory.
    let _held = connect(&host, "hold/64");
    wait_for("64 MB are in use", seconds(20), || {
        host.status(SITE)["usage"]["memory_bytes"].as_u64() > Some(64 << 20)
    });
    let before = host.status(SITE);
    // The memory is refused by the kernel's figures, when the traffic has been limited already.
    let answer = patch(
        &host,
        &json!({"egress": "1Mbit", "ingress": "1Mbit", "memory": "20M"}),
    );
    assert!((400..500).contains(&answer.status), "{}", answer.json());
    assert!(answer.json()["detail"].as_str().unwrap().contains("memory"));
    let after = host.status(SITE);
    assert_eq!(after["limits"], before["limits"]);
    assert_eq!(after["overrides"], json!({}));
    host.finish();
}

#[test]
fn a_site_without_a_link_is_told_so_before_anything_is_done() {
    // The host's default is for those that have one.
    let host = Host::new("[limits]\negress = \"50Mbit\"\n");
    let private = "listen = \"unix:/run/site/app.sock\"\n[network]\nmode = \"private\"\n";
    let command = "command = [\"python3\", \"-c\", \"\"\"\nimport socket, time\ns = socket.socket(socket.AF_UNIX)\n\
                   s.bind('/run/site/app.sock')\ns.listen()\ntime.sleep(3600)\n\"\"\"]\n";
    host.site(SITE, &format!("{command}{private}"));
    for running in [false, true] {
        if running {
            assert_eq!(host.dispatch(SITE).status, 200);
        }
        let answer = patch(&host, &json!({"egress": "10Mbit"}));
        let said = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!((400..500).contains(&answer.status), "{said}");
        assert!(
            said.contains("egress") && said.contains("mode = \"address\""),
            "{said}"
        );
        assert_eq!(host.status(SITE)["overrides"], json!({}));
        assert_eq!(host.status(SITE)["limits"].get("egress"), None);
        set(&host, &["pids=40"]);
        patch(&host, &json!({"pids": null}));
    }
    let usage = host.status(SITE)["usage"].clone();
    assert_eq!(usage["net_rx_bytes"], Value::Null);
    let definition = format!(
        "name = \"b.example.com\"\nowner = \"acme\"\n{command}{private}[limits]\ningress = \"1Mbit\"\n"
    );
    let file = host.dir.join("refused.toml");
    std::fs::write(&file, definition).unwrap();
    let output = host.ctl(&["apply", "-f", file.to_str().unwrap()]);
    let said = text(&output);
    assert!(
        !output.status.success() && said.contains("ingress"),
        "{said}"
    );
    assert!(said.contains("mode = \"address\""), "{said}");
    assert_eq!(
        host.request("GET", "/v1/vhosts/b.example.com", b"").status,
        404
    );
    host.finish();
}

#[test]
fn bytes_are_counted_and_survive_the_agent() {
    let host = Host::new("[limits]\negress = \"400Mbit\"\n");
    site(&host, SITE, "");
    assert_eq!(host.dispatch(SITE).status, 200);
    assert_eq!(
        host.status(SITE)["limits"]["egress"],
        "400Mbit/s",
        "the host's default"
    );
    let counted = || {
        let usage = host.status(SITE)["usage"].clone();
        ["net_rx_bytes", "net_tx_bytes"].map(|key| usage[key].as_u64().unwrap())
    };
    let before = counted();
    let mut stream = connect(&host, "send/5000");
    let mut taken = vec![0; 20_000_000];
    stream.read_exact(&mut taken).unwrap();
    drop(stream);
    let after = counted();
    assert!(after[1] - before[1] >= 20_000_000, "{before:?} {after:?}");
    assert!(
        after[0] > before[0] && after[0] - before[0] < 5_000_000,
        "{before:?} {after:?}"
    );
    host.crash_and_restart();
    let later = counted();
    assert!(
        later[0] >= after[0] && later[1] >= after[1],
        "{after:?} {later:?}"
    );
    host.finish();
}
