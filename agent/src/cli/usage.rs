//! `usage`: what vhosts and owners have used, as a table, as graphs, or for a spreadsheet.
use hyper::Method;
use serde::Deserialize;

use super::client::{Call, Client};
use super::failure::Failure;
use super::screen::{Screen, Tint};
use super::table::{Column, Table};
use super::values::Phases;
use super::{text, units};
use crate::cli::call::segment;

/// What is asked for.
#[derive(Debug, Default)]
pub(crate) struct Asked<'a> {
    /// Only this vhost, with graphs.
    pub(crate) vhost: Option<&'a str>,
    /// Only vhosts of this owner.
    pub(crate) owner: Option<&'a str>,
    /// How far back.
    pub(crate) since: &'a str,
    /// Length of a point.
    pub(crate) step: Option<&'a str>,
    /// Comma-separated values.
    pub(crate) csv: bool,
}

/// Answer to `GET /v1/usage`.
#[derive(Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Usage {
    from: u64,
    to: u64,
    step_s: u64,
    owners: Vec<Row>,
    vhosts: Vec<Row>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct Row {
    vhost: String,
    owner: String,
    at: u64,
    cpu_seconds: f64,
    throttled_seconds: f64,
    memory_peak_bytes: u64,
    io_read_bytes: u64,
    io_write_bytes: u64,
    io_read_ops: u64,
    io_write_ops: u64,
    net_rx_bytes: u64,
    net_tx_bytes: u64,
    pids_peak: u64,
    oom_kills: u64,
    starts: u64,
    failed_starts: u64,
    dispatches: u64,
    awake_seconds: f64,
    memory_current_bytes: u64,
    memory_private_bytes: u64,
    start_times: StartTimes,
    series: Vec<Row>,
}

/// How long starts took, by part.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct StartTimes {
    starts: u64,
    mean_ms: f64,
    max_ms: f64,
    mean_phases: Phases,
    max_phases: Phases,
}

/// Prints it.
pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    asked: &Asked<'_>,
    json: bool,
) -> Result<(), Failure> {
    let mut path = format!("/v1/usage?since={}", segment(asked.since));
    for (key, value) in [
        ("vhost", asked.vhost),
        ("owner", asked.owner),
        ("step", asked.step),
    ] {
        if let Some(value) = value {
            path += &format!("&{key}={}", segment(value));
        }
    }
    let mut call = Call::host(Method::GET, &path);
    if let Some(vhost) = asked.vhost {
        call = call.about(vhost);
    }
    let answer = client.ask(call).await?;
    if json {
        return Ok(screen.json(&answer.body)?);
    }
    let usage: Usage = answer.read()?;
    let lines = match (asked.csv, asked.vhost) {
        (true, _) => csv(&usage, asked.step.is_some()),
        (false, Some(_)) => {
            let each = usage.vhosts.iter();
            each.flat_map(|row| sheet(screen, &usage, row)).collect()
        }
        (false, None) => table(screen, &usage),
    };
    for line in lines {
        screen.line(&line)?;
    }
    Ok(())
}

const fn column(title: &'static str, right: bool, flexible: bool) -> Column {
    Column {
        title,
        right,
        flexible,
    }
}

/// One line a vhost, and one for each owner of several.
fn table(screen: &Screen, usage: &Usage) -> Vec<String> {
    let mut table = Table::new(&[
        column("VHOST", false, true),
        column("OWNER", false, true),
        column("CPU", true, false),
        column("MEM", true, false),
        column("READ", true, false),
        column("WRITTEN", true, false),
        column("IN", true, false),
        column("OUT", true, false),
        column("STARTS", true, false),
        column("REQS", true, false),
        column("AWAKE", true, false),
    ]);
    let mut row = |row: &Row, name: &str, tint| {
        let memory = match row.memory_peak_bytes {
            0 => String::new(),
            bytes => units::bytes(bytes),
        };
        table.row(&[
            (name, tint),
            (&row.owner, tint),
            (&units::seconds(row.cpu_seconds), tint),
            (&memory, tint),
            (&units::bytes(row.io_read_bytes), tint),
            (&units::bytes(row.io_write_bytes), tint),
            (&units::bytes(row.net_rx_bytes), tint),
            (&units::bytes(row.net_tx_bytes), tint),
            (&row.starts.to_string(), tint),
            (&row.dispatches.to_string(), tint),
            (&units::seconds(row.awake_seconds), tint),
        ]);
    };
    let mut vhosts: Vec<&Row> = usage.vhosts.iter().collect();
    vhosts.sort_by(|a, b| (&a.owner, &a.vhost).cmp(&(&b.owner, &b.vhost)));
    for one in vhosts {
        row(one, &one.vhost, Tint::Plain);
    }
    for owner in &usage.owners {
        let theirs = usage.vhosts.iter().filter(|v| v.owner == owner.owner);
        if theirs.count() > 1 {
            row(owner, "all", Tint::Bold);
        }
    }
    table.lines(screen)
}

/// Eight heights.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Characters of a graph where the terminal does not say.
const GRAPH: usize = 60;
/// Beside a graph: its name, its sum, and space.
const BESIDE: usize = 34;

/// Everything about one vhost, with graphs over the time.
fn sheet(screen: &Screen, usage: &Usage, row: &Row) -> Vec<String> {
    let width = screen
        .width
        .map_or(GRAPH, |width| width.saturating_sub(BESIDE));
    let width = width.clamp(10, GRAPH);
    let title = format!(
        "{} of {}, last {}",
        text::clean(&row.vhost),
        text::clean(&row.owner),
        units::seconds(usage.to.saturating_sub(usage.from) as f64)
    );
    let mut lines = vec![screen.paint(Tint::Bold, &title)];
    let mut line = |name: &str, value: String, of: Option<&dyn Fn(&Row) -> f64>| {
        let graph = of.map_or_else(String::new, |of| graph(usage, row, width, of));
        let line = format!(
            "  {name:<14}  {value:>12}  {}",
            screen.paint(Tint::Rest, &graph)
        );
        lines.push(line.trim_end().to_owned());
    };
    line(
        "CPU",
        units::seconds(row.cpu_seconds),
        Some(&|p| p.cpu_seconds),
    );
    line(
        "throttled",
        units::seconds(row.throttled_seconds),
        Some(&|p| p.throttled_seconds),
    );
    line(
        "memory, peak",
        units::bytes(row.memory_peak_bytes),
        Some(&|p| p.memory_peak_bytes as f64),
    );
    line(
        "  when read",
        units::bytes(row.memory_current_bytes),
        Some(&|p| p.memory_current_bytes as f64),
    );
    if row.memory_private_bytes > 0 {
        line(
            "  private",
            units::bytes(row.memory_private_bytes),
            Some(&|p| p.memory_private_bytes as f64),
        );
    }
    line(
        "read",
        units::bytes(row.io_read_bytes),
        Some(&|p| p.io_read_bytes as f64),
    );
    line(
        "written",
        units::bytes(row.io_write_bytes),
        Some(&|p| p.io_write_bytes as f64),
    );
    line(
        "received",
        units::bytes(row.net_rx_bytes),
        Some(&|p| p.net_rx_bytes as f64),
    );
    line(
        "sent",
        units::bytes(row.net_tx_bytes),
        Some(&|p| p.net_tx_bytes as f64),
    );
    line(
        "requests",
        row.dispatches.to_string(),
        Some(&|p| p.dispatches as f64),
    );
    line(
        "awake",
        units::seconds(row.awake_seconds),
        Some(&|p| p.awake_seconds),
    );
    line("processes, most", row.pids_peak.to_string(), None);
    let failed = match row.failed_starts {
        0 => String::new(),
        failed => format!(" ({failed} failed)"),
    };
    line("starts", format!("{}{failed}", row.starts), None);
    line("killed for want of memory", row.oom_kills.to_string(), None);
    lines.extend(times(&row.start_times));
    lines
}

/// How long starts took, on average and at most, with their parts.
fn times(times: &StartTimes) -> Vec<String> {
    if times.starts == 0 {
        return Vec::new();
    }
    let line = |name: &str, mean: f64, most: f64| {
        let (mean, most) = (units::millis(mean), units::millis(most));
        format!("  {name:<14}  {mean:>12}  at most {most}")
    };
    let mut lines = vec![line("a start took", times.mean_ms, times.max_ms)];
    for (name, mean) in &times.mean_phases.0 {
        let most = times.max_phases.0.iter().find(|(known, _)| known == name);
        let name = format!("  {}", text::clean(name));
        lines.push(line(&name, *mean, most.map_or(0.0, |(_, ms)| *ms)));
    }
    lines
}

/// A line of bars from the beginning to now; the highest is the most there was.
fn graph(usage: &Usage, row: &Row, width: usize, of: &dyn Fn(&Row) -> f64) -> String {
    let length = usage.to.saturating_sub(usage.from).max(1);
    let mut columns = vec![0f64; width];
    let column = |at: u64| {
        let part = at.saturating_sub(usage.from) as f64 / length as f64;
        ((part * width as f64) as usize).min(width - 1)
    };
    for point in &row.series {
        // A point longer than a column fills all of those it covers.
        let last = column(point.at + usage.step_s.max(1) - 1);
        for slot in &mut columns[column(point.at)..=last] {
            *slot = slot.max(of(point));
        }
    }
    let most = columns.iter().copied().fold(0f64, f64::max);
    if most <= 0.0 {
        return String::new();
    }
    let bar = |value: f64| match value {
        0.0 => ' ',
        value => BARS[((value / most * 7.0).round() as usize).min(7)],
    };
    columns.into_iter().map(bar).collect()
}

/// One line a vhost, or one a vhost and point.
fn csv(usage: &Usage, points: bool) -> Vec<String> {
    let mut lines = vec![
        "vhost,owner,from,seconds,cpu_seconds,throttled_seconds,memory_peak_bytes,io_read_bytes,io_write_bytes,\
         io_read_ops,io_write_ops,net_rx_bytes,net_tx_bytes,pids_peak,oom_kills,starts,failed_starts,dispatches,\
         awake_seconds,memory_current_bytes,memory_private_bytes,timed_starts,start_mean_ms,start_max_ms"
            .to_owned(),
    ];
    let line = |of: &Row, from: u64, seconds: u64, p: &Row| {
        format!(
            "{},{},{from},{seconds},{:.6},{:.6},{},{},{},{},{},{},{},{},{},{},{},{},{:.3},{},{},{},{:.3},{:.3}",
            text::clean(&of.vhost),
            text::clean(&of.owner),
            p.cpu_seconds,
            p.throttled_seconds,
            p.memory_peak_bytes,
            p.io_read_bytes,
            p.io_write_bytes,
            p.io_read_ops,
            p.io_write_ops,
            p.net_rx_bytes,
            p.net_tx_bytes,
            p.pids_peak,
            p.oom_kills,
            p.starts,
            p.failed_starts,
            p.dispatches,
            p.awake_seconds,
            p.memory_current_bytes,
            p.memory_private_bytes,
            p.start_times.starts,
            p.start_times.mean_ms,
            p.start_times.max_ms,
        )
    };
    for row in &usage.vhosts {
        if points {
            let each = row.series.iter();
            lines.extend(each.map(|point| line(row, point.at, usage.step_s, point)));
        } else {
            let seconds = usage.to.saturating_sub(usage.from);
            lines.push(line(row, usage.from, seconds, row));
        }
    }
    lines
}
