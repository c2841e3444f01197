//! `GET /v1/usage`: what everyone used.

use super::answer::{self, Answer};
use super::problem::Problem;
use super::rights::Peer;
use super::route::Query;
use super::server::Server;
use super::vhosts;
use crate::accounts::report::{self, Window};
use crate::config::units::Span;

/// `since` where none is given.
const SINCE: &str = "24h";

pub(super) async fn usage(server: &Server, peer: &Peer, query: &Query) -> Answer {
    let owner = query.get("owner").map(str::to_owned);
    if let Some(owner) = &owner
        && !peer.role.owns(owner)
    {
        return Err(Problem::forbidden(format!("owner {owner:?} is not you")));
    }
    let since = since(query)?;
    let step = query
        .get("step")
        .map(|text| span("step", text))
        .transpose()?;
    let asked = query.get("vhost").map(str::to_owned);
    let (vhost, missing) = match &asked {
        None => (None, None),
        Some(name) => match vhosts::find(server, peer, name).await {
            Ok(site) => (Some((site.name.to_string(), Some(site.owner()))), None),
            // One that is not defined any more still has its history.
            Err(problem) if problem.status == 404 => (Some((name.clone(), None)), Some(problem)),
            Err(problem) => return Err(problem),
        },
    };
    let now = crate::time::unix_now() as u64;
    let window = Window::new(now, since, step, vhost.is_none()).map_err(Problem::bad_request)?;
    let platform = server.registry.platform().clone();
    let role = peer.role.clone();
    let work = move || {
        let wanted = |name: &str, of: &str| {
            role.owns(of)
                && owner.as_ref().is_none_or(|owner| owner == of)
                && vhost.as_ref().is_none_or(|(vhost, _)| vhost == name)
        };
        let mut lines = platform.accounts.read(window.ring, window.from, &wanted)?;
        if let Some((name, Some(of))) = &vhost
            && lines.is_empty()
            && wanted(name, of)
        {
            lines.push(crate::accounts::Line::empty(name, of));
        }
        anyhow::Ok(report::answer(window, now, &lines))
    };
    let told = tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Problem::internal(format!("the accounts cannot be read: {e}")))?
        .map_err(|e| Problem::internal(format!("the accounts cannot be read: {e:#}")))?;
    match missing {
        Some(problem) if told["vhosts"].as_array().is_none_or(Vec::is_empty) => Err(problem),
        _ => answer::json(&told),
    }
}

/// How far back is asked for, seconds.
pub(super) fn since(query: &Query) -> Result<u64, Problem> {
    span("since", query.get("since").unwrap_or(SINCE))
}

/// Whole seconds.
fn span(key: &str, text: &str) -> Result<u64, Problem> {
    let span: Span = text
        .parse()
        .map_err(|e| Problem::bad_request(format!("{key}: {e}")))?;
    match span.millis() {
        Some(ms) if ms >= 1000 => Ok(ms / 1000),
        Some(_) => Err(Problem::bad_request(format!("{key}: a second at least"))),
        None => Ok(u64::from(u32::MAX)),
    }
}
