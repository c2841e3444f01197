//! `/v1/vhosts`: definitions, status, verbs, limits.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::body;
use super::dispatch::refusal;
use super::problem::Problem;
use super::rights::{Peer, Role};
use super::route::Query;
use super::server::Server;
use crate::config::Definition;
use crate::config::definition::{LimitChange, LimitPatch, Signal};
use crate::machine::{Event, State};
use crate::registry::Placed;
use crate::seeing::host::Host;
use crate::site::{Ask, Site, time};

/// The site, if it is the peer's to see and to move.
pub(super) async fn find(server: &Server, peer: &Peer, name: &str) -> Result<Arc<Site>, Problem> {
    let owns = |owner: &str| peer.role.owns(owner);
    server.registry.find(name, &owns).await
}

/// All of them, or with `state=` only those in one of these states: what sleeps then costs nothing. `host=true` adds the
/// host's own figures, with the time since the agent's start at which all were read.
pub(super) async fn list(server: &Server, peer: &Peer, query: &Query) -> Answer {
    let registry = &server.registry;
    let vhosts = match query.get("state") {
        None => registry.list(&peer.role).await,
        Some(words) => {
            let states: Vec<String> = words.split(',').map(str::to_owned).collect();
            if let Some(bad) = states.iter().find(|s| !State::WORDS.contains(&s.as_str())) {
                return Err(Problem::bad_request(format!(
                    "{bad:?} is no state; there are {}",
                    State::WORDS.join(", ")
                )));
            }
            registry.list_in(&peer.role, states).await
        }
    };
    if query.is_true("host") {
        return answer::json(&json!({
            "vhosts": vhosts,
            "at_s": registry.platform().uptime().as_secs_f64(),
            "machine": Host::now(),
        }));
    }
    let problems: Vec<Value> = if peer.role == Role::Operator {
        server.registry.problems()
    } else {
        Vec::new()
    };
    answer::json(&json!({"vhosts": vhosts, "problems": problems}))
}

pub(super) async fn show(server: &Server, peer: &Peer, name: &str) -> Answer {
    let site = find(server, peer, name).await?;
    answer::json(&site.view().await)
}

pub(super) async fn put(
    server: &Server,
    peer: &Peer,
    name: &str,
    dry_run: bool,
    content: &Bytes,
) -> Answer {
    operator(peer)?;
    let mut definition = Definition::from_json(content)
        .map_err(|p| Problem::bad_request(p.to_string()).about(name))?;
    if definition.name.is_empty() {
        definition.name = name.into();
    }
    if *definition.name != *name {
        return Err(Problem::bad_request(format!(
            "the body defines {:?}, the path names {name:?}",
            definition.name
        )));
    }
    let placed = server.registry.put(definition, dry_run).await?;
    let (result, changes) = match placed {
        Placed::Created => ("created", Vec::new()),
        Placed::Unchanged => ("unchanged", Vec::new()),
        Placed::Changed(changes) => ("changed", changes),
    };
    answer::json(&json!({"vhost": name, "result": result, "dry_run": dry_run, "changes": changes}))
}

pub(super) async fn delete(server: &Server, peer: &Peer, name: &str) -> Answer {
    operator(peer)?;
    let state = server.registry.delete(name).await?;
    answer::json(&json!({"vhost": name, "result": "removed", "state": state.word()}))
}

/// Definitions decide what runs as whom: only operators change them.
fn operator(peer: &Peer) -> Result<(), Problem> {
    if peer.role == Role::Operator {
        return Ok(());
    }
    Err(Problem::forbidden(
        "only root and the operators' group change definitions and limits",
    ))
}

pub(super) async fn operate(server: &Server, peer: &Peer, name: &str, event: Event) -> Answer {
    let site = find(server, peer, name).await?;
    match site
        .operate(event)
        .await
        .map_err(|e| Problem::internal(format!("{e:#}")).about(name))?
    {
        Ok(_) => answer::json(&site.view().await),
        Err(refused) => Err(refusal(&site, &refused)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignalBody {
    signal: String,
}

pub(super) async fn signal(server: &Server, peer: &Peer, name: &str, content: &Bytes) -> Answer {
    let site = find(server, peer, name).await?;
    let asked: SignalBody = body::json(content)?;
    let signal: Signal = asked.signal.parse().map_err(Problem::bad_request)?;
    let Some(container) = site.container() else {
        return Err(Problem::conflict(format!(
            "{} is not running: there is nobody to signal",
            site.name
        ))
        .about(name));
    };
    container
        .signal_main(signal.number())
        .map_err(|e| Problem::internal(format!("{e:#}")).about(name))?;
    answer::json(
        &json!({"vhost": &*site.name, "signal": signal.to_string(), "pid": container.record.main_pid}),
    )
}

pub(super) async fn set_limits(
    server: &Server,
    peer: &Peer,
    name: &str,
    query: &Query,
    content: &Bytes,
) -> Answer {
    // Within a budget an owner could; until owners have budgets only operators hand out shares.
    let site = find(server, peer, name).await?;
    operator(peer)?;
    if query.is_true("mend") {
        return mend(&site, query, content).await;
    }
    let asked: Value = body::json(content)?;
    let words = flatten(&asked)?;
    let patch = LimitPatch::parse(words).map_err(|e| Problem::bad_request(e).about(name))?;
    if patch.0.is_empty() {
        return Err(Problem::bad_request(
            "there is no limit in the body; for example {\"cpu\": \"20%\"}",
        )
        .about(name));
    }
    let time = query.get("for").map(time).transpose();
    let ask = Ask {
        patch,
        dry_run: query.is_true("dry_run"),
        time: time.map_err(|e| Problem::bad_request(format!("for: {e}")).about(name))?,
    };
    let changed = site
        .set_limits(&ask)
        .await
        .map_err(|e| Problem::conflict(format!("{e:#}")).about(name))?;
    let changes: Vec<Value> = changed.changes.iter().map(change).collect();
    answer::json(&json!({
        "vhost": &*site.name,
        "dry_run": ask.dry_run,
        "changes": changes,
        "limits": changed.in_force,
        "temporary": changed.temporary,
        "applied_ms": (changed.applied.as_secs_f64() * 1e6).round() / 1e3,
    }))
}

/// Writes again what is in force by definition and operator, where somebody has changed it by hand.
async fn mend(site: &Arc<Site>, query: &Query, content: &Bytes) -> Answer {
    let name = &*site.name;
    if !matches!(content.trim_ascii(), b"" | b"{}") || query.get("for").is_some() {
        return Err(Problem::bad_request(
            "mend writes the limits that are in force again; change limits, or for how long, by another request",
        )
        .about(name));
    }
    let dry_run = query.is_true("dry_run");
    let mended = site.mend(dry_run).await;
    let (drift, in_force) = mended.map_err(|e| Problem::conflict(format!("{e:#}")).about(name))?;
    let changes: Vec<Value> = drift.iter().map(crate::site::change).collect();
    answer::json(&json!({
        "vhost": name,
        "dry_run": dry_run,
        "changes": changes,
        "limits": in_force,
    }))
}

/// `{"key","old","new"}`; no limit is `max`.
fn change((key, old, new): &LimitChange) -> Value {
    let text = |value: &Option<u64>| value.map_or_else(|| "max".to_owned(), |raw| key.show(raw));
    json!({"key": key.name(), "old": text(old), "new": text(new)})
}

/// `{"cpu": "20%", "io": {"write": 5}}` as `cpu=20%`, `io.write=5`.
fn flatten(asked: &Value) -> Result<Vec<String>, Problem> {
    let bad = |key: &str| {
        Problem::bad_request(format!(
            "the value of {key} must be a text or a number, such as {{\"cpu\": \"20%\"}}"
        ))
    };
    let Value::Object(map) = asked else {
        return Err(bad("the body"));
    };
    let mut words = Vec::new();
    for (key, value) in map {
        match value {
            Value::String(text) => words.push(format!("{key}={text}")),
            Value::Number(number) => words.push(format!("{key}={number}")),
            Value::Null => words.push(format!("{key}=default")),
            Value::Object(inner) if key == "io" => {
                for (part, value) in inner {
                    let text = match value {
                        Value::String(text) => text.clone(),
                        Value::Number(number) => number.to_string(),
                        Value::Null => "default".to_owned(),
                        _ => return Err(bad(part)),
                    };
                    words.push(format!("io.{part}={text}"));
                }
            }
            _ => return Err(bad(key)),
        }
    }
    Ok(words)
}
