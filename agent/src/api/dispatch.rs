//! `POST /v1/dispatch` (JSON) and `GET /v1/dispatch` (header X-Vhost, as nginx `auth_request` sends it).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request};
use serde::{Deserialize, Serialize};

use super::answer::{self, Answer};
use super::body;
use super::problem::Problem;
use super::rights::Peer;
use super::server::Server;
use crate::container::Phases;
use crate::site::{Ready, Refused, Site};

static X_VHOST: HeaderName = HeaderName::from_static("x-vhost");
static X_UPSTREAM: HeaderName = HeaderName::from_static("x-upstream");

/// What is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    pub(super) vhost: String,
}

/// What is answered.
#[derive(Serialize)]
pub(super) struct Told<'a> {
    /// Where nothing else says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    vhost: &'a str,
    upstream: &'a str,
    state: &'static str,
    cold: bool,
    start_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    phases: Option<&'a Phases>,
}

pub(super) async fn dispatch(server: &Server, peer: &Peer, request: Request<Bytes>) -> Answer {
    let name = match *request.method() {
        Method::GET | Method::HEAD => {
            let value = request.headers().get(&X_VHOST).ok_or_else(|| {
                Problem::bad_request(
                    "a GET needs the header X-Vhost; or POST {\"vhost\": \"example.com\"}",
                )
            })?;
            let text = value
                .to_str()
                .map_err(|_| Problem::bad_request("X-Vhost is not a host name"))?;
            text.to_owned()
        }
        Method::POST => body::json::<Asked>(request.body())?.vhost,
        ref other => {
            return Err(Problem::method(format!(
                "{other} is not possible here; use POST or GET"
            )));
        }
    };
    let site = find(server, peer, &name).await?;
    // Nobody is woken for a visitor that cannot get there.
    if site.definition().has_loopback_only() {
        return Err(Problem::unreachable(&site.name));
    }
    match site.dispatch().await {
        Ok(ready) => told(&site, &ready),
        Err(refused) => Err(refusal(&site, &refused)),
    }
}

/// The vhost that the peer asks for.
pub(super) async fn find(server: &Server, peer: &Peer, name: &str) -> Result<Arc<Site>, Problem> {
    if server.registry.draining() {
        let detail = "this agent is ending; its successor takes requests in a moment";
        return Err(Problem::unavailable(
            "draining",
            "Draining",
            detail,
            Duration::from_secs(1),
        ));
    }
    let dispatches = |owner: &str| peer.role.dispatches(owner);
    server.registry.find(name, &dispatches).await
}

impl<'a> Told<'a> {
    pub(super) fn new(status: Option<u16>, ready: &'a Ready) -> Self {
        let container = &ready.container;
        let phases = ready.cold.then_some(&*container.phases);
        Self {
            status,
            vhost: &container.vhost,
            upstream: &container.upstream,
            state: "running",
            cold: ready.cold,
            start_ms: phases.map_or(0.0, |phases| phases.total),
            phases,
        }
    }
}

fn told(site: &Site, ready: &Ready) -> Answer {
    // Its definition may have changed since it was started, or since it was asked for.
    let upstream = ready.container.reachable();
    let upstream = upstream.ok_or_else(|| Problem::unreachable(&site.name))?;
    let mut response = answer::json(&Told::new(None, ready))?;
    let upstream = HeaderValue::from_str(upstream).map_err(|e| Problem::internal(e.to_string()))?;
    response.headers_mut().insert(X_UPSTREAM.clone(), upstream);
    Ok(response)
}

/// A refusal as a problem; a start that ran out of time is a 504.
pub(super) fn refusal(site: &Site, refused: &Refused) -> Problem {
    let because = refused.because.as_deref();
    if refused.timed_out {
        let why = because.map(|b| format!(": {b}")).unwrap_or_default();
        return Problem::start_timeout(format!("{} did not become ready{why}", site.name))
            .about(&site.name);
    }
    Problem::refused(&site.name, refused.refusal, because)
}
