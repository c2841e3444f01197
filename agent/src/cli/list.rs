//! `list`: all vhosts, one a line.
use hyper::Method;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Call, Client};
use super::failure::Failure;
use super::screen::{Screen, Tint};
use super::table::{Column, Table};
use super::units;

/// Answer to `GET /v1/vhosts`.
#[derive(Debug, Deserialize)]
struct Listing {
    vhosts: Vec<Row>,
    #[serde(default)]
    problems: Vec<FileProblem>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Row {
    vhost: String,
    owner: Option<String>,
    state: Option<String>,
    class: Option<String>,
    uptime_s: Option<f64>,
    upstream: Option<String>,
    usage: Option<Usage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    cpu_seconds: Option<f64>,
    memory_bytes: Option<u64>,
    pids: Option<u64>,
}

/// A definition file that is not in force, or a vhost without its own.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct FileProblem {
    file: String,
    vhost: String,
    message: String,
}

impl FileProblem {
    /// One warning.
    pub(crate) fn line(&self) -> String {
        if self.file.is_empty() {
            return format!("{}: {}", self.vhost, self.message);
        }
        // With a line and column the message names the file itself.
        match self.message.strip_prefix(&self.file) {
            Some(rest) if rest.starts_with(':') => self.message.clone(),
            _ => format!("{}: {}", self.file, self.message),
        }
    }
}

/// Which vhosts are shown.
#[derive(Debug)]
pub(crate) struct Filter<'a> {
    /// Of this owner.
    pub(crate) owner: Option<&'a str>,
    /// In this state.
    pub(crate) state: Option<&'a str>,
}

impl Filter<'_> {
    fn admits(&self, owner: Option<&str>, state: Option<&str>) -> bool {
        self.owner.is_none_or(|o| owner == Some(o)) && self.state.is_none_or(|s| state == Some(s))
    }
}

/// Prints the list.
pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    filter: &Filter<'_>,
    json: bool,
) -> Result<(), Failure> {
    let answer = client.ask(Call::host(Method::GET, "/v1/vhosts")).await?;
    if json {
        if filter.owner.is_none() && filter.state.is_none() {
            return Ok(screen.json(&answer.body)?);
        }
        let mut all: Value = answer.read()?;
        if let Some(vhosts) = all.get_mut("vhosts").and_then(Value::as_array_mut) {
            vhosts.retain(|v| filter.admits(v["owner"].as_str(), v["state"].as_str()));
        }
        return Ok(screen.json(all.to_string().as_bytes())?);
    }
    let mut listing: Listing = answer.read()?;
    listing
        .vhosts
        .retain(|v| filter.admits(v.owner.as_deref(), v.state.as_deref()));
    listing.vhosts.sort_by(|a, b| a.vhost.cmp(&b.vhost));
    for line in table(&listing.vhosts).lines(screen) {
        screen.line(&line)?;
    }
    for problem in &listing.problems {
        screen.complain(&format!("not in force: {}", problem.line()));
    }
    Ok(())
}

fn table(rows: &[Row]) -> Table {
    let column = |title, right, flexible| Column {
        title,
        right,
        flexible,
    };
    // Where all are best effort there is nothing to tell.
    let classes = rows
        .iter()
        .any(|row| row.class.as_deref() == Some("guaranteed"));
    let mut columns = vec![
        column("VHOST", false, true),
        column("OWNER", false, true),
        column("STATE", false, false),
        column("UP", true, false),
        column("CPU", true, false),
        column("MEM", true, false),
        column("PIDS", true, false),
        column("UPSTREAM", false, true),
    ];
    if classes {
        columns.insert(3, column("CLASS", false, false));
    }
    let mut table = Table::new(&columns);
    let none = Usage::default();
    for row in rows {
        let usage = row.usage.as_ref().unwrap_or(&none);
        let state = row.state.as_deref().unwrap_or_default();
        // What a site that does not run has used is history: it does not belong into this column.
        let runs = row.uptime_s.is_some();
        let up = row.uptime_s.map(units::uptime).unwrap_or_default();
        let cpu = usage
            .cpu_seconds
            .filter(|_| runs)
            .map(units::seconds)
            .unwrap_or_default();
        let memory = usage
            .memory_bytes
            .filter(|_| runs)
            .map(units::bytes)
            .unwrap_or_default();
        let pids = usage
            .pids
            .filter(|_| runs)
            .map(|n| n.to_string())
            .unwrap_or_default();
        let mut cells = vec![
            (row.vhost.as_str(), Tint::Plain),
            (row.owner.as_deref().unwrap_or_default(), Tint::Plain),
            (state, Tint::of_state(state)),
            (&up, Tint::Plain),
            (&cpu, Tint::Plain),
            (&memory, Tint::Plain),
            (&pids, Tint::Plain),
            (row.upstream.as_deref().unwrap_or_default(), Tint::Plain),
        ];
        if classes {
            let class = row.class.as_deref().unwrap_or_default();
            cells.insert(3, (class, Tint::Plain));
        }
        table.row(&cells);
    }
    table
}
