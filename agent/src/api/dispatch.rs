//! `POST /v1/dispatch` (JSON) and `GET /v1/dispatch` (header X-Vhost, as nginx `auth_request` sends it).

use bytes::Bytes;
use std::time::Duration;

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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    vhost: String,
}

#[derive(Serialize)]
struct Told<'a> {
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
    let site = server.registry.find(&name, &dispatches).await?;
    match site.dispatch().await {
        Ok(ready) => told(&site, &ready),
        Err(refused) => Err(refusal(&site, &refused)),
    }
}

fn told(site: &Site, ready: &Ready) -> Answer {
    let phases = ready.start.as_deref();
    let mut response = answer::json(&Told {
        vhost: &site.name,
        upstream: &ready.upstream,
        state: "running",
        cold: phases.is_some(),
        start_ms: phases.map_or(0.0, |phases| phases.total),
        phases,
    })?;
    let upstream =
        HeaderValue::from_str(&ready.upstream).map_err(|e| Problem::internal(e.to_string()))?;
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
