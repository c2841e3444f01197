//! `GET /v1/capacity?vhost=V&limit=cpu=20%`: what other limits would have done to a site, by what is recorded of it.

use serde_json::json;

use super::answer::{self, Answer};
use super::problem::Problem;
use super::rights::Peer;
use super::route::Query;
use super::server::Server;
use super::{usage, vhosts};
use crate::accounts::report::Window;
use crate::config::definition::LimitPatch;
use crate::seeing::whatif::what_if;

pub(super) async fn ask(server: &Server, peer: &Peer, vhost: &str, query: &Query) -> Answer {
    let site = vhosts::find(server, peer, vhost).await?;
    let limits = LimitPatch::parse(query.all("limit")).map_err(Problem::bad_request)?;
    if limits.0.is_empty() {
        let what = "limit: the limits to judge are missing, such as limit=cpu=20%";
        return Err(Problem::bad_request(what));
    }
    let since = usage::since(query)?;
    let now = crate::time::unix_now() as u64;
    let window = Window::coarse(now, since);
    let (name, owner) = (site.name.to_string(), site.owner());
    let platform = server.registry.platform().clone();
    let work = move || {
        let wanted = |vhost: &str, of: &str| vhost == name && *of == *owner;
        let lines = platform.accounts.read(window.ring, window.from, &wanted)?;
        let steps = lines.into_iter().flat_map(|line| line.series);
        let steps: Vec<_> = steps.map(|(_, bucket)| bucket).collect();
        anyhow::Ok(what_if(window.step(), &steps, &limits).map(|mut told| {
            (told.vhost, told.from, told.to) = (name, window.begins(), now);
            told
        }))
    };
    let told = tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Problem::internal(format!("the accounts cannot be read: {e}")))?
        .map_err(|e| Problem::internal(format!("the accounts cannot be read: {e:#}")))?
        .map_err(Problem::bad_request)?;
    answer::json(&json!({"what_if": told}))
}
