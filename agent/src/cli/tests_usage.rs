//! What fastctl makes of usage.
use serde_json::json;

use super::testing::FakeAgent;
use super::tests::{fastctl, fastctl_on};

fn body() -> String {
    let of = |vhost: &str, cpu: f64| {
        json!({"vhost": vhost, "owner": "acme", "cpu_seconds": cpu, "memory_peak_bytes": 1 << 20, "io_write_bytes": 2048,
            "starts": 1, "dispatches": 9, "awake_seconds": 61.5,
            "memory_private_bytes": 300 << 10, "start_times": {"starts": 1, "mean_ms": 36.1, "max_ms": 36.1,
                "mean_phases": {"setup": 6.1, "listen": 30.0}, "max_phases": {"setup": 6.1, "listen": 30.0}},
            "series": [{"at": 1000, "cpu_seconds": cpu / 4.0}, {"at": 1300, "cpu_seconds": cpu * 3.0 / 4.0}]})
    };
    json!({"from": 1000, "to": 1600, "step_s": 100, "vhosts": [of("b.example", 2.0), of("a.example", 6.0)],
        "owners": [{"owner": "acme", "cpu_seconds": 8.0, "io_write_bytes": 4096, "starts": 2, "dispatches": 18,
            "awake_seconds": 123.0}]})
    .to_string()
}

#[test]
fn a_table_with_the_sum_of_each_owner() {
    let agent = FakeAgent::answering("200 OK", "", body());
    let (code, out, _) = fastctl(
        &agent.socket,
        &["usage", "--owner", "acme", "--since", "7d"],
    );
    assert_eq!(code, 0);
    assert_eq!(agent.asked()[0].line, "GET /v1/usage?since=7d&owner=acme");
    assert_eq!(
        out,
        "VHOST      OWNER    CPU  MEM  READ  WRITTEN  IN  OUT  STARTS  REQS  AWAKE\n\
         a.example  acme   6.00s   1M    0B       2K  0B   0B       1     9  1m02s\n\
         b.example  acme   2.00s   1M    0B       2K  0B   0B       1     9  1m02s\n\
         all        acme   8.00s    -    0B       4K  0B   0B       2    18  2m03s\n"
    );
}

#[test]
fn one_vhost_has_graphs_that_fit() {
    let agent = FakeAgent::answering("200 OK", "", body());
    let (code, out, _) = fastctl_on(true, &agent.socket, &["usage", "b.example"]);
    assert_eq!(code, 0);
    assert_eq!(
        agent.asked()[0].line,
        "GET /v1/usage?since=24h&vhost=b.example"
    );
    let cpu = out
        .lines()
        .find(|line| line.contains("CPU"))
        .unwrap_or_default();
    assert!(cpu.contains("▃▃▃▃") && cpu.contains("█"), "{out}");
    for line in [
        format!("  {:<14}  {:>12}  ", "  private", "300K"),
        format!(
            "  {:<14}  {:>12}  at most 36.1 ms",
            "a start took", "36.1 ms"
        ),
        format!("  {:<14}  {:>12}  at most 6.10 ms", "  setup", "6.10 ms"),
    ] {
        assert!(out.contains(&line), "{line}\n{out}");
    }
    let plain: Vec<usize> = out
        .lines()
        .map(|line| {
            line.replace("\x1b[36m", "")
                .replace("\x1b[0m", "")
                .chars()
                .count()
        })
        .collect();
    assert!(plain.iter().all(|length| *length <= 80), "{out}");
}

#[test]
fn csv_has_a_line_each() {
    for (words, lines) in [
        (&["usage", "--csv"][..], 3),
        (&["usage", "--csv", "--step", "1h"], 5),
    ] {
        let agent = FakeAgent::answering("200 OK", "", body());
        let (code, out, _) = fastctl(&agent.socket, words);
        assert_eq!((code, out.lines().count()), (0, lines), "{out}");
        let fields = |line: &str| line.split(',').count();
        assert!(out.lines().all(|line| fields(line) == 24), "{out}");
    }
}
