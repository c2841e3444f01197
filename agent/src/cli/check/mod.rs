//! `check`: one line and an exit code for Nagios and its like.

mod judge;
pub(crate) mod range;

use std::ffi::OsString;
use std::time::Instant;

use hyper::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub(crate) use judge::Which;
use judge::{Asked, Facts, Finding, Level};
pub(crate) use range::Range;

use super::client::{Call, Client};
use super::failure::Failure;
use super::list::FileProblem;
use super::screen::Screen;
use super::text;
use crate::seeing::host::Host;

/// How many broken sites are named.
const NAMED: usize = 3;

/// All checks, in the order of the line.
const ALL: [Which; 7] = [
    Which::Agent,
    Which::Sites,
    Which::Definitions,
    Which::Cpu,
    Which::Memory,
    Which::Io,
    Which::Free,
];

/// What was typed.
pub(crate) struct Request<'a> {
    pub(crate) warning: Option<&'a Range>,
    pub(crate) critical: Option<&'a Range>,
    pub(crate) checks: &'a [Which],
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    draining: bool,
    vhosts: Map<String, Value>,
    problems: Vec<FileProblem>,
    machine: Option<Host>,
}

/// Whether the words are a `check`: its wrong usage is UNKNOWN, as a 2 would be CRITICAL.
pub(crate) fn is_meant(words: &[OsString]) -> bool {
    let mut words = words.iter().skip(1).filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        match word {
            "--socket" | "--timeout" => drop(words.next()),
            word if word.starts_with('-') => {}
            verb => return verb == "check",
        }
    }
    false
}

/// The line and the exit code of a `check` that could not be made.
pub(crate) fn unknown(screen: &mut Screen, why: &str) -> u8 {
    // Nobody reads: the exit code is what is left.
    let _ = line(screen, Level::Unknown, why, "").and_then(|()| Ok(screen.flush()?));
    Level::Unknown.code()
}

/// Prints the line; the failure is the exit code.
pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    request: &Request<'_>,
    json: bool,
) -> Result<(), Failure> {
    let own = request.warning.is_some() || request.critical.is_some();
    if own && request.checks.len() != 1 {
        let why = "-w and -c need exactly one check to be named, such as: check -w 50 -c 80 io";
        return Err(Failure::Exit(unknown(screen, why)));
    }
    let facts = match look(client).await {
        Ok(facts) => facts,
        Err(failure) => {
            // Without an agent no site wakes up. Who is not let in knows nothing about it.
            let level = match failure {
                Failure::Unreachable { .. } => Level::Critical,
                _ => Level::Unknown,
            };
            let why = failure.to_string();
            if json {
                screen.json(
                    json!({"state": level, "text": why, "checks": []})
                        .to_string()
                        .as_bytes(),
                )?;
            } else {
                line(screen, level, &why, "")?;
            }
            return Err(Failure::Exit(level.code()));
        }
    };
    let checks = match request.checks {
        [] => &ALL[..],
        some => some,
    };
    let findings: Vec<Finding> = checks
        .iter()
        .map(|which| {
            let (warning, critical) = which.default_ranges();
            let asked = Asked {
                which: *which,
                own_critical: own,
                warning: if own {
                    request.warning.cloned()
                } else {
                    warning
                },
                critical: if own {
                    request.critical.cloned()
                } else {
                    critical
                },
            };
            judge::judge(&asked, &facts)
        })
        .collect();
    let worst = findings.iter().map(|f| f.state).max();
    let worst = worst.unwrap_or(Level::Unknown);
    if json {
        screen.json(
            json!({"state": worst, "checks": findings})
                .to_string()
                .as_bytes(),
        )?;
    } else {
        // What is wrong alone, the worst first; when all is well, all.
        let mut told: Vec<&Finding> = findings
            .iter()
            .filter(|f| worst == Level::Ok || f.state != Level::Ok)
            .collect();
        told.sort_by_key(|f| std::cmp::Reverse(f.state));
        let texts: Vec<&str> = told.iter().map(|f| f.text.as_str()).collect();
        let data: Vec<&str> = findings
            .iter()
            .flat_map(|f| f.performance.iter().map(String::as_str))
            .collect();
        line(screen, worst, &texts.join("; "), &data.join(" "))?;
    }
    match worst {
        Level::Ok => Ok(()),
        worse => Err(Failure::Exit(worse.code())),
    }
}

fn line(screen: &mut Screen, level: Level, text: &str, data: &str) -> Result<(), Failure> {
    // What stands behind a bar are numbers.
    let text = text::clean(text).replace('|', "/");
    let data = match data {
        "" => String::new(),
        data => format!(" | {data}"),
    };
    Ok(screen.line(&format!("FASTCONTAINER {}: {text}{data}", level.word()))?)
}

async fn look(client: &Client) -> Result<Facts, Failure> {
    let begin = Instant::now();
    let answer = client.ask(Call::host(Method::GET, "/v1/status")).await?;
    let answer_s = begin.elapsed().as_secs_f64();
    let status: Status = answer.read()?;
    let count = |state: &str| status.vhosts.get(state).and_then(Value::as_u64);
    let (failed, stuck) = (
        count("failed").unwrap_or_default(),
        count("stuck").unwrap_or_default(),
    );
    let named = match failed + stuck {
        0 => Vec::new(),
        _ => names(client).await?,
    };
    Ok(Facts {
        answer_s,
        draining: status.draining,
        total: count("total").unwrap_or_default(),
        running: count("running").unwrap_or_default(),
        failed,
        stuck,
        named,
        problems: status.problems.iter().map(FileProblem::line).collect(),
        host: status.machine,
    })
}

/// Some of the sites that are broken.
async fn names(client: &Client) -> Result<Vec<String>, Failure> {
    let call = Call::host(Method::GET, "/v1/vhosts?state=failed,stuck");
    let all: Value = client.ask(call).await?.read()?;
    let names = all["vhosts"].as_array().into_iter().flatten();
    let mut names: Vec<String> = names
        .filter_map(|v| v["vhost"].as_str().map(str::to_owned))
        .collect();
    if names.len() > NAMED {
        names.truncate(NAMED);
        names.push("…".to_owned());
    }
    Ok(names)
}
