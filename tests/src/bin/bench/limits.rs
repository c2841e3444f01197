//! Changes of limits, one after the other, on a PHP site that is under load all the while.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::Host;
use harness::client::Client;
use serde_json::Value;

use crate::Effort;
use crate::report::{Figures, Row};

const SITE: &str = "php.example.com";
/// Each is changed in turn, and stays enough for the load.
const CHANGES: [&str; 8] = [
    r#"{"cpu":"150%"}"#,
    r#"{"memory":"300M"}"#,
    r#"{"pids":200}"#,
    r#"{"cpu_weight":300}"#,
    r#"{"cpu":"180%"}"#,
    r#"{"memory":"256M"}"#,
    r#"{"pids":128}"#,
    r#"{"cpu_weight":100}"#,
];

/// Asks again and again on a few connections, until it is told to stop.
fn load(upstream: &str) -> Child {
    Command::new("wrk")
        .args(["-t", "1", "-c", "8", "-d", "10m"])
        .arg(format!("http://{upstream}/"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("wrk runs: apt-get install wrk")
}

/// Ends the load; what it says of requests that failed.
fn failures(load: Child) -> (u64, String) {
    harness::send_signal(load.id(), libc::SIGINT);
    let output = load.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let failed = text
        .lines()
        .filter(|line| line.contains("Non-2xx") || line.contains("Socket errors"))
        .flat_map(|line| {
            line.split([' ', ','])
                .filter_map(|word| word.parse::<u64>().ok())
        })
        .sum();
    (failed, text)
}

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let host = Host::as_installed("");
    harness::sites::apache(
        &host,
        SITE,
        "[limits]\ncpu = \"150%\"\nmemory = \"256M\"\npids = 128\n",
    );
    let upstream = host.dispatch(SITE).upstream();
    let pid = host.status(SITE)["pid"].clone();
    let load = load(&upstream);
    let mut client = Client::connect(&host.socket()).unwrap();
    let (mut answered, mut applied) = (Vec::new(), Vec::new());
    for change in CHANGES.iter().cycle().take(effort.rounds(1000)) {
        let began = Instant::now();
        let path = format!("/v1/vhosts/{SITE}/limits");
        let answer = client.request("PATCH", &path, change.as_bytes()).unwrap();
        answered.push(began.elapsed());
        let body: Value = answer.json();
        assert_eq!(answer.status, 200, "{body}");
        applied.push(Duration::from_secs_f64(
            body["applied_ms"].as_f64().unwrap() / 1e3,
        ));
    }
    let (failed, text) = failures(load);
    println!("{text}");
    assert_eq!(host.status(SITE)["pid"], pid, "another process");
    host.finish();
    let applied = Figures::millis("in force, read back", &applied);
    let p99 = applied.at(99);
    vec![
        Row::new("limits of a PHP site under wrk, changed one after the other, same process")
            .with(applied)
            .with(Figures::millis("answered: kept on disk as well", &answered))
            .at_most("p99 ms of applying", p99, 1.0)
            .at_most("failed requests", failed as f64, 0.0),
    ]
}
