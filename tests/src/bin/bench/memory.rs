//! What the process that stays with a container has of its own.

use harness::Host;
use serde_json::Value;

use crate::Effort;
use crate::report::{Figures, Row};

/// Private memory of a process, kB.
fn private(pid: u64) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("Private_"));
    lines
        .filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<f64>().ok())
        .sum()
}

pub(crate) fn measure(_: Effort) -> Vec<Row> {
    let host = Host::as_installed("");
    let mut sizes = Vec::new();
    for n in 0..20 {
        let name = format!("n{n}.example.com");
        host.site(&name, harness::STATIC);
        host.dispatch(&name).upstream();
    }
    for n in 0..20 {
        let path = host
            .run_dir
            .join(format!("sites/n{n}.example.com/container.json"));
        let record: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        sizes.push(private(record["pid"].as_u64().unwrap()));
    }
    host.finish();
    let figures = Figures::new("fastcontainer-shim as init", "kB", sizes);
    let max = figures.max();
    vec![
        Row::new("private memory of each of 20 idle containers' shim")
            .with(figures)
            .at_most("max kB", max, 64.0),
    ]
}
