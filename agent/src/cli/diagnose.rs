//! `diagnose`: who and what makes this host slow, and the figures that say so.
use hyper::Method;
use serde::Deserialize;

use super::client::{Call, Client};
use super::failure::Failure;
use super::progress::watch;
use super::screen::{Screen, Tint};
use super::table::{Column, Table};
use super::{text, units};
use crate::config::units::Span;
use crate::seeing::judge::{Kind, Verdict};
use crate::seeing::sample::{Sample, SiteSample};

/// How many sites are shown as evidence.
const SHOWN: usize = 10;

#[derive(Debug, Deserialize)]
struct Report {
    verdicts: Vec<Verdict>,
    sample: Sample,
}

/// Prints verdicts, then the evidence.
pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    window: Span,
    json: bool,
) -> Result<(), Failure> {
    let millis = window.millis().unwrap_or(u64::MAX);
    let path = format!("/v1/diagnose?window={millis}ms");
    let call = Call::host(Method::GET, &path);
    let answer = watch(screen, "measuring", client.ask(call)).await?;
    if json {
        return Ok(screen.json(&answer.body)?);
    }
    let report: Report = answer.read()?;
    for verdict in &report.verdicts {
        let tint = match verdict.kind {
            kind if kind.is_slow() => Tint::Bad,
            Kind::Idle => Tint::Good,
            _ => Tint::Warn,
        };
        let word = screen.paint(tint, &format!("{}:", verdict.kind.word()));
        screen.line(&format!("{word} {}", text::clean(&verdict.text)))?;
    }
    screen.line("")?;
    for line in host(&report.sample) {
        screen.line(&line)?;
    }
    if !report.sample.sites.is_empty() {
        screen.line("")?;
        for line in table(&report.sample).lines(screen) {
            screen.line(&line)?;
        }
    }
    if report.sample.partial {
        let line =
            "Not all processes of all sites were looked at: I/O and memory are at least this.";
        screen.line(&screen.paint(Tint::Dim, line))?;
    }
    Ok(())
}

/// A rate of bytes.
fn rate(n: f64) -> String {
    units::bytes(n.max(0.0) as u64) + "/s"
}

/// The host's own figures.
fn host(sample: &Sample) -> Vec<String> {
    let mut lines = Vec::new();
    let [one, five, fifteen] = sample.load;
    lines.push(format!(
        "load      {one:.2} {five:.2} {fifteen:.2}; {} runnable, {} blocked",
        sample.runnable, sample.blocked
    ));
    // The busiest: those that are free make nothing slow.
    let mut cpus: Vec<(usize, _)> = sample.cpus.iter().enumerate().collect();
    cpus.sort_by(|a, b| b.1.busy().total_cmp(&a.1.busy()));
    for (number, cpu) in cpus.into_iter().take(8) {
        lines.push(format!(
            "cpu{number:<6} {:3.0} % user, {:3.0} % system, {:3.0} % waiting for I/O, {:3.0} % stolen, {:3.0} % idle",
            cpu.user, cpu.system, cpu.iowait, cpu.steal, cpu.idle
        ));
    }
    let memory = &sample.memory;
    lines.push(format!(
        "memory    {} of {} used (page cache not counted), {} available",
        units::bytes(memory.used_bytes()),
        units::bytes(memory.total_bytes),
        units::bytes(memory.available_bytes)
    ));
    lines.push(format!(
        "swap      {} of {} used, {:.0} pages/s in, {:.0} pages/s out",
        units::bytes(memory.swap_used_bytes),
        units::bytes(memory.swap_total_bytes),
        sample.swapped_in,
        sample.swapped_out
    ));
    lines.push(match &sample.stalled {
        Some(stalled) => format!(
            "waiting   {:.0} % of the time for a CPU, {:.0} % for memory, {:.0} % for storage",
            stalled.cpu, stalled.memory, stalled.io
        ),
        None => "waiting   unknown: this kernel has no pressure information".to_owned(),
    });
    lines
}

fn table(sample: &Sample) -> Table {
    let column = |title, right| Column {
        title,
        right,
        flexible: !right,
    };
    let mut table = Table::new(&[
        column("VHOST", false),
        column("OWNER", false),
        column("CPU", true),
        column("LIMIT", true),
        column("HELD", true),
        column("READ", true),
        column("WRITE", true),
        column("MEM", true),
        column("BLOCKED", true),
    ]);
    let mut sites: Vec<&SiteSample> = sample.sites.iter().collect();
    let weight = |site: &SiteSample| {
        (
            site.cpu + site.throttled,
            site.moved() + site.major_faults * 4096.0,
        )
    };
    sites.sort_by(|a, b| {
        let (a, b) = (weight(a), weight(b));
        // One percent of a CPU weighs as much as a megabyte a second.
        (b.0 + b.1 / 1e6).total_cmp(&(a.0 + a.1 / 1e6))
    });
    for site in sites.into_iter().take(SHOWN) {
        let percent = |n: f64| format!("{n:.0}%");
        let cells = [
            site.vhost.clone(),
            site.owner.clone(),
            percent(site.cpu),
            site.cpu_limit.map(percent).unwrap_or_default(),
            percent(site.throttled),
            rate(site.read),
            rate(site.written),
            units::bytes(site.memory_bytes),
            site.blocked.len().to_string(),
        ];
        let cells: Vec<(&str, Tint)> = cells.iter().map(|c| (c.as_str(), Tint::Plain)).collect();
        table.row(&cells);
    }
    table
}
