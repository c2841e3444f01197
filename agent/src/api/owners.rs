//! `/v1/owners/{owner}`: an owner's budget, which operators set, and its division, which the owner makes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::{self, Answer};
use super::body;
use super::problem::Problem;
use super::rights::{Peer, Role};
use super::server::Server;
use crate::config::definition::LimitKey;
use crate::config::units::{Cpu, Percent, Unit as _};
use crate::owners::{Account, Budget, BudgetChange, Kind, Overview, Split, io_budget};

/// 403 for owners that are not the peer's, whether there are such or not.
fn permitted(peer: &Peer, owner: &str) -> Result<(), Problem> {
    if peer.role.owns(owner) {
        return Ok(());
    }
    Err(Problem::forbidden(format!(
        "the owner {owner:?} is not you"
    )))
}

pub(super) async fn show(server: &Server, peer: &Peer, owner: &str) -> Answer {
    permitted(peer, owner)?;
    let platform = server.registry.platform().clone();
    let defined = server.registry.sites_of(owner);
    let name = owner.to_owned();
    let overview = blocking(move || platform.owners.overview(&name)).await?;
    let platform = server.registry.platform();
    let configured = platform.config.owner.contains_key(owner);
    let unknown = !platform.owners.is_kept(owner) && overview.awake.is_empty();
    if unknown && !configured && !server.registry.has_owner(owner) {
        return Err(Problem::not_found(format!(
            "no vhost has an owner {owner:?}, and nobody has given them a budget"
        )));
    }
    let configured = platform.owners.configured(owner);
    answer::json(&view(owner, &overview, &defined, &configured))
}

pub(super) async fn set_budget(
    server: &Server,
    peer: &Peer,
    owner: &str,
    dry_run: bool,
    content: &Bytes,
) -> Answer {
    permitted(peer, owner)?;
    if peer.role != Role::Operator {
        return Err(Problem::forbidden(
            "only root and the operators' group set budgets; yours is what they have given you",
        ));
    }
    crate::config::host::check_owner(owner).map_err(|e| Problem::bad_request(e.to_string()))?;
    let asked: Map<String, Value> = body::json(content)?;
    let changes = flat(asked)
        .map(|(key, value)| {
            BudgetChange::parse(&key, &text(&key, &value)?).map_err(Problem::bad_request)
        })
        .collect::<Result<Vec<_>, _>>()?;
    if changes.is_empty() {
        return Err(Problem::bad_request(
            "there is nothing in the body; for example {\"cpu\": \"100%\", \"memory\": \"2G\"}",
        ));
    }
    let defined = server.registry.sites_of(owner).len() as u64;
    let platform = server.registry.platform();
    let configured = platform.owners.configured(owner);
    let change = move |own: &Account, _: &Account| {
        let mut new = own.clone();
        changes
            .into_iter()
            .for_each(|change| change.apply(&mut new.budget));
        let budget = new.budget.over(&configured);
        if let Some(most) = budget.sites.filter(|sites| sites.raw() < defined) {
            anyhow::bail!(
                "{defined} sites are defined, {} more than {most}; remove some first",
                defined - most.raw()
            );
        }
        Ok(new)
    };
    let (old, new) = changed(server, owner, dry_run, change).await?;
    let changes: Vec<Value> = old
        .budget
        .shown()
        .into_iter()
        .zip(new.budget.shown())
        .filter(|((_, old), (_, new))| old != new)
        .map(|((key, old), (_, new))| difference(key, old, new))
        .collect();
    finish(server, owner, dry_run, changes).await
}

/// `{"io": {"read": …}}` as `io.read`, which may be said as well.
fn flat(asked: Map<String, Value>) -> impl Iterator<Item = (String, Value)> {
    asked.into_iter().flat_map(|(key, value)| match value {
        Value::Object(table) if key == "io" => table
            .into_iter()
            .map(|(name, value)| (format!("io.{name}"), value))
            .collect(),
        value => vec![(key, value)],
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SplitBody {
    #[serde(default)]
    kind: Option<Kind>,
    shares: BTreeMap<String, Value>,
}

pub(super) async fn set_split(
    server: &Server,
    peer: &Peer,
    owner: &str,
    dry_run: bool,
    content: &Bytes,
) -> Answer {
    permitted(peer, owner)?;
    let asked: SplitBody = body::json(content)?;
    let mut shares: BTreeMap<String, Percent> = BTreeMap::new();
    for (name, value) in &asked.shares {
        // Of a stranger's site nobody learns more than that it is a stranger's.
        let site = server.registry.find(name, &|of| of == owner).await?;
        let share: Percent = text(name, value)?
            .parse()
            .map_err(|e| Problem::bad_request(format!("{name}: {e}")).about(name))?;
        if shares.insert(site.name.to_string(), share).is_some() {
            return Err(Problem::bad_request(format!("{} is named twice", site.name)).about(name));
        }
    }
    let change = move |own: &Account, old: &Account| {
        let kind = asked.kind.or(old.split.as_ref().map(|split| split.kind));
        let split = Split {
            kind: kind.unwrap_or_default(),
            shares,
        };
        old.check_split(&split).map_err(anyhow::Error::msg)?;
        Ok(Account {
            split: Some(split).filter(|split| !split.shares.is_empty()),
            ..own.clone()
        })
    };
    let (old, new) = changed(server, owner, dry_run, change).await?;
    finish(server, owner, dry_run, differences(&old, &new)).await
}

/// `kind` and shares that differ.
fn differences(old: &Account, new: &Account) -> Vec<Value> {
    let none = Split::default();
    let kind = |account: &Account| {
        account
            .split
            .as_ref()
            .map(|split| word(split.kind).to_owned())
    };
    let (was, is) = (
        old.split.as_ref().unwrap_or(&none),
        new.split.as_ref().unwrap_or(&none),
    );
    let mut changes = Vec::new();
    if kind(old) != kind(new) {
        changes.push(difference("kind", kind(old), kind(new)));
    }
    let names: BTreeSet<&String> = was.shares.keys().chain(is.shares.keys()).collect();
    for name in names {
        let share = |split: &Split| split.shares.get(name).map(ToString::to_string);
        if share(was) != share(is) {
            changes.push(difference(name, share(was), share(is)));
        }
    }
    changes
}

fn difference(key: &str, old: Option<String>, new: Option<String>) -> Value {
    json!({"key": key, "old": old, "new": new})
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Hard => "hard",
        Kind::Lending => "lending",
    }
}

fn text(key: &str, value: &Value) -> Result<String, Problem> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null => Ok(String::new()),
        _ => Err(Problem::bad_request(format!(
            "the value of {key} must be a text or a number, such as \"20%\""
        ))),
    }
}

async fn changed(
    server: &Server,
    owner: &str,
    dry_run: bool,
    change: impl FnOnce(&Account, &Account) -> anyhow::Result<Account> + Send + 'static,
) -> Result<(Account, Account), Problem> {
    let (platform, name) = (server.registry.platform().clone(), owner.to_owned());
    blocking(move || platform.owners.change(&name, dry_run, change))
        .await?
        .map_err(|e| Problem::conflict(format!("{owner}: {e:#}")))
}

/// The answer to a change: what differs, and the owner as it is now.
async fn finish(server: &Server, owner: &str, dry_run: bool, changes: Vec<Value>) -> Answer {
    let platform = server.registry.platform().clone();
    if !dry_run && !changes.is_empty() {
        platform
            .events
            .emit("owner", None, json!({"owner": owner, "changes": changes}));
    }
    let defined = server.registry.sites_of(owner);
    let configured = platform.owners.configured(owner);
    let name = owner.to_owned();
    let overview = blocking(move || platform.owners.overview(&name)).await?;
    let mut view = view(owner, &overview, &defined, &configured);
    view["dry_run"] = json!(dry_run);
    view["changes"] = json!(changes);
    answer::json(&view)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Problem::internal(e.to_string()))
}

fn view(owner: &str, overview: &Overview, defined: &[Arc<str>], configured: &Budget) -> Value {
    let account = &overview.account;
    let shares = account.split.as_ref().map(|split| &split.shares);
    let names: BTreeSet<&str> = defined
        .iter()
        .map(|name| &**name)
        .chain(overview.awake.iter().map(|(name, _)| &**name))
        .chain(shares.into_iter().flatten().map(|(name, _)| &**name))
        .collect();
    let awake: BTreeMap<&str, _> = overview
        .awake
        .iter()
        .map(|(name, awake)| (&**name, awake))
        .collect();
    let core = |permyriad: Option<u64>| permyriad.map(|p| Cpu::from_raw(p).to_string());
    let sites: Vec<Value> = names
        .into_iter()
        .map(|name| {
            let awake = awake.get(name);
            json!({
                "vhost": name,
                "defined": defined.iter().any(|d| &**d == name),
                "share": shares.and_then(|shares| shares.get(name)),
                "awake": awake.is_some(),
                "without_io": awake.and_then(|awake| awake.without_io.as_deref()),
                "guaranteed": core(awake.and_then(|awake| awake.guarantee)),
                "cpu": core(awake.and_then(|awake| awake.quota)),
                "cpu_seconds": awake.map(|awake| awake.used as f64 / 1e6),
            })
        })
        .collect();
    json!({
        "owner": owner,
        "budget": budget(&account.budget),
        "configured": budget(configured),
        "split": account.split.as_ref().map(|split| json!({
            "kind": word(split.kind),
            "shares": split.shares,
            "rest": Percent::from_raw(split.rest()),
        })),
        "sites": sites,
        "in_force": overview.in_force.as_ref().map(|limits| {
            let limits = crate::container::in_force(limits);
            let shown = |key: LimitKey| limits.get(key).map(|raw| key.show(raw));
            let rates = io_budget::KEYS.map(|key| (key, shown(key)));
            json!({"cpu": shown(LimitKey::Cpu), "memory": shown(LimitKey::Memory), "io": io(rates)})
        }),
        "usage": {
            "sites": defined.len(),
            "awake": overview.awake.len(),
            "starting": overview.starting,
            "cpu_seconds": overview.usage.as_ref().and_then(|u| u.cpu_usec).map(|usec| usec as f64 / 1e6),
            "throttled_seconds": overview.usage.as_ref().and_then(|u| u.throttled_usec).map(|usec| usec as f64 / 1e6),
            "memory_bytes": overview.usage.as_ref().and_then(|u| u.memory_current),
        },
    })
}

fn budget(budget: &Budget) -> Value {
    let rates = io_budget::KEYS.into_iter().zip(budget.io.shown());
    json!({
        "cpu": budget.cpu,
        "memory": budget.memory,
        "io": io(rates),
        "sites": budget.sites,
        "starts": budget.starts,
    })
}

/// The table of those that are limited; null for none.
fn io(rates: impl IntoIterator<Item = (LimitKey, Option<String>)>) -> Value {
    let named = rates.into_iter().filter_map(|(key, value)| {
        let name = key.name().strip_prefix("io.")?;
        let value = value?;
        // Counts are numbers, as in a site's limits.
        let value = value.parse::<u64>().map_or(Value::from(value), Value::from);
        Some((name.to_owned(), value))
    });
    let table: Map<String, Value> = named.collect();
    match table.is_empty() {
        true => Value::Null,
        false => Value::Object(table),
    }
}
