//! What `top` shows, from two readings of the agent's counters: pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::cli::{text, units};
use crate::config::units::Cpu;
use crate::seeing::host::Host;

/// Answer to `GET /v1/vhosts?state=…&host=true`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Reading {
    vhosts: Vec<Vhost>,
    /// When it was read, by the agent's clock.
    at_s: f64,
    machine: Host,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Vhost {
    vhost: String,
    owner: String,
    state: String,
    pid: Option<i64>,
    limits: Map<String, Value>,
    usage: Usage,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    cpu_seconds: Option<f64>,
    memory_bytes: Option<u64>,
    pids: Option<u64>,
    io_read_bytes: Option<u64>,
    io_write_bytes: Option<u64>,
}

impl Usage {
    fn moved(&self) -> u64 {
        let (read, written) = (self.io_read_bytes, self.io_write_bytes);
        read.unwrap_or(0).saturating_add(written.unwrap_or(0))
    }
}

/// One line: a vhost, or all of an owner's.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Line {
    /// Clean.
    pub(crate) name: String,
    /// Clean.
    pub(crate) owner: String,
    /// As the API names it; of an owner, the number of sites.
    pub(crate) state: String,
    /// Percent of one CPU.
    pub(crate) cpu: f64,
    pub(crate) cpu_limit: Option<f64>,
    pub(crate) memory: u64,
    pub(crate) memory_limit: Option<u64>,
    /// Bytes a second, both ways.
    pub(crate) io: f64,
    pub(crate) pids: u64,
}

/// By what the lines are sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    #[default]
    Cpu,
    Memory,
    Io,
    Name,
    Owner,
}

impl Sort {
    fn compare(self, a: &Line, b: &Line) -> Ordering {
        let order = match self {
            Self::Cpu => b.cpu.total_cmp(&a.cpu),
            Self::Memory => b.memory.cmp(&a.memory),
            Self::Io => b.io.total_cmp(&a.io),
            Self::Name => Ordering::Equal,
            Self::Owner => a.owner.cmp(&b.owner),
        };
        order.then_with(|| a.name.cmp(&b.name))
    }
}

/// Everything that is on the screen.
#[derive(Debug, Default)]
pub(crate) struct Model {
    before: Option<Reading>,
    lines: Vec<Line>,
    pub(crate) host: Host,
    pub(crate) sort: Sort,
    pub(crate) reverse: bool,
    pub(crate) owners: bool,
    /// Lines above the first that is shown.
    pub(crate) offset: usize,
    /// Why there is nothing newer.
    pub(crate) trouble: Option<String>,
}

impl Model {
    /// Takes the next reading.
    pub(crate) fn take(&mut self, now: Reading) {
        self.lines = lines(&now, self.before.as_ref());
        self.host = now.machine.clone();
        self.before = Some(now);
        self.trouble = None;
    }

    /// Vhosts that are live.
    pub(crate) fn live(&self) -> usize {
        self.lines.len()
    }

    /// What all vhosts together use, in percent of one CPU.
    pub(crate) fn cpu(&self) -> f64 {
        self.lines.iter().map(|line| line.cpu).sum()
    }

    /// The lines in order.
    pub(crate) fn shown(&self) -> Vec<Line> {
        let mut lines = match self.owners {
            true => by_owner(&self.lines),
            false => self.lines.clone(),
        };
        lines.sort_by(|a, b| self.sort.compare(a, b));
        if self.reverse {
            lines.reverse();
        }
        lines
    }
}

fn lines(now: &Reading, before: Option<&Reading>) -> Vec<Line> {
    let seconds = before.map_or(0.0, |before| now.at_s - before.at_s);
    let known: HashMap<(&str, Option<i64>), &Usage> = before
        .map(|before| before.vhosts.iter())
        .into_iter()
        .flatten()
        .map(|v| ((v.vhost.as_str(), v.pid), &v.usage))
        .collect();
    now.vhosts
        .iter()
        .map(|v| {
            // Another container's counters begin anew, as do those of another agent's clock.
            let then = known.get(&(v.vhost.as_str(), v.pid));
            let then = then.filter(|_| seconds > 0.0);
            let rate = |of: &dyn Fn(&Usage) -> f64| {
                then.map_or(0.0, |then| (of(&v.usage) - of(then)).max(0.0) / seconds)
            };
            Line {
                name: text::clean(&v.vhost).into_owned(),
                owner: text::clean(&v.owner).into_owned(),
                state: text::clean(&v.state).into_owned(),
                cpu: rate(&|u| u.cpu_seconds.unwrap_or(0.0)) * 100.0,
                cpu_limit: v.limits.get("cpu").and_then(cpu_limit),
                memory: v.usage.memory_bytes.unwrap_or(0),
                memory_limit: v.limits.get("memory").and_then(memory_limit),
                io: rate(&|u| u.moved() as f64),
                pids: v.usage.pids.unwrap_or(0),
            }
        })
        .collect()
}

fn cpu_limit(value: &Value) -> Option<f64> {
    let cpu: Cpu = match value {
        Value::String(text) => text.parse().ok()?,
        other => other.to_string().parse().ok()?,
    };
    cpu.permyriad().map(|permyriad| permyriad as f64 / 100.0)
}

fn memory_limit(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| units::parse_bytes(value.as_str()?))
}

/// The sums of each owner's vhosts; a limit only where each of them has one.
fn by_owner(lines: &[Line]) -> Vec<Line> {
    let mut owners: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
    for line in lines {
        owners.entry(&line.owner).or_default().push(line);
    }
    owners
        .into_iter()
        .map(|(owner, theirs)| Line {
            name: owner.to_owned(),
            owner: owner.to_owned(),
            state: theirs.len().to_string(),
            cpu: theirs.iter().map(|l| l.cpu).sum(),
            cpu_limit: theirs.iter().map(|l| l.cpu_limit).sum(),
            memory: theirs.iter().map(|l| l.memory).sum(),
            memory_limit: theirs.iter().map(|l| l.memory_limit).sum(),
            io: theirs.iter().map(|l| l.io).sum(),
            pids: theirs.iter().map(|l| l.pids).sum(),
        })
        .collect()
}
