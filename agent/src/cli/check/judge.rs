//! From what the agent tells to a Nagios state: pure.

use clap::ValueEnum;
use serde::Serialize;

use super::range::Range;
use crate::cli::units;
use crate::seeing::host::Host;

/// What can be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// The agent answers; the value is how long it took, in seconds. Draining is a warning
    Agent,
    /// Sites that failed or are stuck; the value is their number. Stuck is critical
    Sites,
    /// Definition files with mistakes; the value is their number
    Definitions,
    /// Waiting for a CPU: pressure (some, 10 s), in percent
    Cpu,
    /// Waiting for memory: pressure (some, 10 s), in percent
    Memory,
    /// Waiting for storage: pressure (some, 10 s), in percent
    Io,
    /// Memory that is available, in percent of all
    Free,
}

impl Which {
    /// What is used unless something else is asked for.
    pub(crate) fn default_ranges(self) -> (Option<Range>, Option<Range>) {
        let (warning, critical) = match self {
            Self::Agent => ("2", "10"),
            Self::Sites | Self::Definitions => ("0", ""),
            Self::Cpu => ("60", "90"),
            Self::Memory => ("10", "30"),
            Self::Io => ("40", "80"),
            Self::Free => ("10:", "5:"),
        };
        (warning.parse().ok(), critical.parse().ok())
    }
}

/// Nagios' states, worse ones later; what is not known is less than a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Level {
    Ok,
    Unknown,
    Warning,
    Critical,
}

impl Level {
    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }

    /// The word at the head of the line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// What has been asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) which: Which,
    pub(crate) warning: Option<Range>,
    pub(crate) critical: Option<Range>,
    /// `critical` is not the default.
    pub(crate) own_critical: bool,
}

/// What the agent told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) answer_s: f64,
    pub(crate) draining: bool,
    pub(crate) total: u64,
    pub(crate) running: u64,
    pub(crate) failed: u64,
    pub(crate) stuck: u64,
    /// Some of those that failed or are stuck.
    pub(crate) named: Vec<String>,
    /// Definitions that are not in force.
    pub(crate) problems: Vec<String>,
    /// None if the agent is older than this.
    pub(crate) host: Option<Host>,
}

/// One result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    pub(crate) check: Which,
    pub(crate) state: Level,
    pub(crate) text: String,
    pub(crate) value: Option<f64>,
    /// Performance data.
    #[serde(rename = "perfdata")]
    pub(crate) performance: Vec<String>,
}

/// Judges one check.
pub(crate) fn judge(asked: &Asked, facts: &Facts) -> Finding {
    let Some(seen) = see(asked.which, facts) else {
        return Finding {
            check: asked.which,
            state: Level::Unknown,
            text: format!("{}: this host does not tell", label(asked.which)),
            value: None,
            performance: Vec::new(),
        };
    };
    let alerts = |range: &Option<Range>| range.as_ref().is_some_and(|r| r.alerts(seen.value));
    let mut state = match () {
        () if alerts(&asked.critical) => Level::Critical,
        () if alerts(&asked.warning) => Level::Warning,
        () => Level::Ok,
    };
    if asked.which == Which::Agent && facts.draining {
        state = state.max(Level::Warning);
    }
    if asked.which == Which::Sites && facts.stuck > 0 && !asked.own_critical {
        state = Level::Critical;
    }
    let shown = |range: &Option<Range>| range.as_ref().map(Range::to_string).unwrap_or_default();
    let (warning, critical) = (shown(&asked.warning), shown(&asked.critical));
    let mut performance = vec![format!(
        "{}={}{};{warning};{critical};{}",
        label(asked.which),
        trimmed(seen.value),
        seen.unit,
        if seen.unit == "%" { "0;100" } else { "0" }
    )];
    if asked.which == Which::Sites {
        for (name, count) in [
            ("failed", facts.failed),
            ("stuck", facts.stuck),
            ("running", facts.running),
            ("total", facts.total),
        ] {
            performance.push(format!("{name}={count};;;0"));
        }
    }
    Finding {
        check: asked.which,
        state,
        text: seen.text,
        value: Some(seen.value),
        performance,
    }
}

struct Seen {
    value: f64,
    unit: &'static str,
    text: String,
}

fn label(which: Which) -> &'static str {
    match which {
        Which::Agent => "agent",
        Which::Sites => "broken",
        Which::Definitions => "mistakes",
        Which::Cpu => "cpu_pressure",
        Which::Memory => "memory_pressure",
        Which::Io => "io_pressure",
        Which::Free => "memory_available",
    }
}

fn see(which: Which, facts: &Facts) -> Option<Seen> {
    let pressure = facts.host.as_ref().and_then(|host| host.pressure);
    let waited = |stall: f32, what: &str| Seen {
        value: f64::from(stall),
        unit: "%",
        text: format!("waiting for {what} {stall:.0} % of the time"),
    };
    Some(match which {
        Which::Agent => Seen {
            value: facts.answer_s,
            unit: "s",
            text: format!(
                "agent {} in {}",
                if facts.draining {
                    "is draining, answered"
                } else {
                    "answered"
                },
                units::millis(facts.answer_s * 1e3)
            ),
        },
        Which::Sites => Seen {
            value: (facts.failed + facts.stuck) as f64,
            unit: "",
            text: sites(facts),
        },
        Which::Definitions => Seen {
            value: facts.problems.len() as f64,
            unit: "",
            text: match facts.problems.as_slice() {
                [] => "definitions in force".to_owned(),
                [one] => format!("not in force: {one}"),
                [one, rest @ ..] => format!("not in force: {one}, and {} more", rest.len()),
            },
        },
        Which::Cpu => waited(pressure?.cpu.some.avg10, "a CPU"),
        Which::Memory => waited(pressure?.memory.some.avg10, "memory"),
        Which::Io => waited(pressure?.io.some.avg10, "storage"),
        Which::Free => {
            let memory = facts.host.as_ref()?.memory;
            if memory.total_bytes == 0 {
                return None;
            }
            Seen {
                value: memory.available_percent(),
                unit: "%",
                text: format!(
                    "{} of {} memory available",
                    units::bytes(memory.available_bytes),
                    units::bytes(memory.total_bytes)
                ),
            }
        }
    })
}

/// `2 failed (a.example.com, b.example.com), 1 stuck` or `12 sites, 3 running`.
fn sites(facts: &Facts) -> String {
    if facts.failed + facts.stuck == 0 {
        return format!("{} sites, {} running", facts.total, facts.running);
    }
    let mut parts = Vec::new();
    for (count, word) in [(facts.failed, "failed"), (facts.stuck, "stuck")] {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    let names = match facts.named.as_slice() {
        [] => String::new(),
        names => format!(" ({})", names.join(", ")),
    };
    format!("sites: {}{names}", parts.join(", "))
}

/// Up to six digits behind the point, and no more of them than are needed.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
