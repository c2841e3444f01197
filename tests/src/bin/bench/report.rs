//! Figures, targets, the table and the JSON.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// Many measurements of one thing by one contestant.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    who: String,
    unit: &'static str,
    sorted: Vec<f64>,
}

impl Figures {
    /// Times in milliseconds.
    pub(crate) fn millis(who: &str, times: &[Duration]) -> Self {
        Self::new(
            who,
            "ms",
            times.iter().map(|t| t.as_secs_f64() * 1e3).collect(),
        )
    }

    /// Times in microseconds.
    pub(crate) fn micros(who: &str, times: &[Duration]) -> Self {
        Self::new(
            who,
            "us",
            times.iter().map(|t| t.as_secs_f64() * 1e6).collect(),
        )
    }

    /// Anything.
    pub(crate) fn new(who: &str, unit: &'static str, mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        assert!(!values.is_empty(), "nothing was measured of {who}");
        Self {
            who: who.to_owned(),
            unit,
            sorted: values,
        }
    }

    /// The value that `percent` of all do not exceed.
    pub(crate) fn at(&self, percent: usize) -> f64 {
        self.sorted[(self.sorted.len() * percent / 100).min(self.sorted.len() - 1)]
    }

    pub(crate) fn who(&self) -> &str {
        &self.who
    }

    pub(crate) fn p50(&self) -> f64 {
        self.at(50)
    }

    pub(crate) fn max(&self) -> f64 {
        self.at(100)
    }
}

/// One line of a graph: how something changes with something else. `scripts/lib/plot` draws them.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// What is counted along the graph.
    over: &'static str,
    /// The graph, with the unit: lines with the same one share it.
    graph: &'static str,
    /// Which of its lines.
    name: &'static str,
    points: Vec<(f64, f64)>,
}

impl Line {
    pub(crate) fn new(over: &'static str, graph: &'static str, name: &'static str) -> Self {
        Self {
            over,
            graph,
            name,
            points: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, over: f64, value: f64) {
        self.points.push((over, value));
    }
}

/// A target and what came of it.
#[derive(Debug, Clone)]
struct Target {
    text: String,
    measured: f64,
    pass: bool,
}

/// One row: who took how long, and what was to be reached.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    what: String,
    figures: Vec<Figures>,
    lines: Vec<Line>,
    targets: Vec<Target>,
}

impl Row {
    pub(crate) fn new(what: &str) -> Self {
        Self {
            what: what.to_owned(),
            figures: Vec::new(),
            lines: Vec::new(),
            targets: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, figures: Figures) -> Self {
        self.figures.push(figures);
        self
    }

    pub(crate) fn drawn(mut self, line: Line) -> Self {
        self.lines.push(line);
        self
    }

    /// `measured` has to be at most `limit`.
    pub(crate) fn at_most(mut self, text: &str, measured: f64, limit: f64) -> Self {
        self.targets.push(Target {
            text: format!("{text} <= {limit}"),
            measured,
            pass: measured <= limit,
        });
        self
    }

    /// `measured` has to be at least `limit`.
    pub(crate) fn at_least(mut self, text: &str, measured: f64, limit: f64) -> Self {
        self.targets.push(Target {
            text: format!("{text} >= {limit}"),
            measured,
            pass: measured >= limit,
        });
        self
    }
}

/// All rows.
pub(crate) struct Report {
    quick: bool,
    rows: Vec<Row>,
    failed: Vec<String>,
}

impl Report {
    pub(crate) fn new(quick: bool) -> Self {
        Self {
            quick,
            rows: Vec::new(),
            failed: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// A row that could not be measured.
    pub(crate) fn failed(&mut self, name: &str) {
        self.failed.push(name.to_owned());
    }

    pub(crate) fn all_pass(&self) -> bool {
        self.failed.is_empty()
            && self
                .rows
                .iter()
                .all(|row| row.targets.iter().all(|t| t.pass))
    }

    pub(crate) fn print(&self) {
        for row in &self.rows {
            println!("\n{}", row.what);
            println!(
                "  {:<34} {:>7} {:>10} {:>10} {:>10}",
                "", "n", "p50", "p99", "max"
            );
            for f in &row.figures {
                let who = format!("{} ({})", f.who, f.unit);
                println!(
                    "  {who:<34} {:>7} {:>10.3} {:>10.3} {:>10.3}",
                    f.sorted.len(),
                    f.p50(),
                    f.at(99),
                    f.max()
                );
            }
            for t in &row.targets {
                println!(
                    "  {} {}: {:.3}",
                    if t.pass { "PASS" } else { "MISS" },
                    t.text,
                    t.measured
                );
            }
        }
        for name in &self.failed {
            println!("\n{name}\n  FAIL could not be measured");
        }
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "row": row.what,
                "figures": row.figures.iter().map(|f| json!({
                    "who": f.who, "unit": f.unit, "n": f.sorted.len(),
                    "min": f.at(0), "p50": f.p50(), "p90": f.at(90), "p99": f.at(99), "max": f.max(),
                })).collect::<Vec<_>>(),
                "lines": row.lines.iter().map(|line| json!({
                    "over": line.over, "graph": line.graph, "name": line.name, "points": line.points,
                })).collect::<Vec<_>>(),
                "targets": row.targets.iter().map(|t| json!({
                    "target": t.text, "measured": t.measured, "pass": t.pass,
                })).collect::<Vec<_>>(),
            })
        });
        let uname = rustix::system::uname();
        json!({
            "kernel": uname.release().to_string_lossy(),
            "machine": uname.machine().to_string_lossy(),
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "quick": self.quick,
            "failed": self.failed,
            "rows": rows.collect::<Vec<_>>(),
        })
    }

    pub(crate) fn write(&self, path: &Path) {
        let text = serde_json::to_string_pretty(&self.json()).expect("a report is JSON");
        if let Err(error) = std::fs::write(path, text + "\n") {
            eprintln!("cannot write {}: {error}", path.display());
            std::process::exit(1);
        }
        println!("\nwritten to {}", path.display());
    }
}
