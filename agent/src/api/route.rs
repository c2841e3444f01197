//! From a request line to a typed call.

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Method, Request, Response};

use super::answer::{self, Answer, Body};
use super::problem::Problem;
use super::rights::{Peer, Role};
use super::server::Server;
use super::wire::Wire;
use super::{body, dispatch, exec, host, metrics, owners, seeing, stream, usage, vhosts, whatif};
use crate::machine::Event;

/// Answers one request; never fails.
pub(super) async fn handle(
    server: &Server,
    peer: &Peer,
    wire: &Wire,
    request: Request<Incoming>,
) -> Response<Body> {
    let peer = &peer.now(|owner| server.registry.has_owner(owner));
    let (parts, incoming) = request.into_parts();
    // Read before anything is decided: a client that still writes when the answer comes and the connection goes
    // would see a broken pipe and never the answer. How much of it is kept depends on who sends it.
    let body = body::read(server, &peer.role, incoming).await;
    let answer = match body {
        _ if peer.role == Role::Nobody => Err(Problem::nobody(peer.uid)),
        Ok(bytes) => route(server, peer, wire, Request::from_parts(parts, bytes)).await,
        Err(problem) => Err(problem),
    };
    match answer {
        Ok(response) => response,
        Err(problem) => answer::problem(&problem),
    }
}

async fn route(server: &Server, peer: &Peer, wire: &Wire, request: Request<Bytes>) -> Answer {
    let path = request.uri().path().to_owned();
    // The hot path first.
    if path == "/v1/dispatch" {
        return dispatch::dispatch(server, peer, request).await;
    }
    if path == "/health.html" {
        allow(&request, &[Method::GET, Method::HEAD])?;
        return Ok(host::health(server));
    }
    if peer.role == Role::Dispatcher {
        return Err(Problem::forbidden("a proxy's user may only dispatch"));
    }
    let query = Query::parse(request.uri().query().unwrap_or_default())?;
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments.as_slice() {
        ["metrics"] => {
            allow(&request, &[Method::GET])?;
            metrics::metrics(server, peer)
        }
        ["v1", "status"] => {
            allow(&request, &[Method::GET])?;
            host::status(server, peer).await
        }
        ["v1", "capacity"] => {
            allow(&request, &[Method::GET])?;
            match query.get("vhost") {
                Some(vhost) => whatif::ask(server, peer, vhost, &query).await,
                None => seeing::capacity(server, peer, &query).await,
            }
        }
        ["v1", "diagnose"] => {
            allow(&request, &[Method::GET])?;
            seeing::diagnose(server, peer, &query).await
        }
        ["v1", "doctor"] => {
            allow(&request, &[Method::GET])?;
            host::doctor(server, peer).await
        }
        ["v1", "events"] => {
            allow(&request, &[Method::GET])?;
            stream::events(server, peer, wire, &query)
        }
        ["v1", "usage"] => {
            allow(&request, &[Method::GET])?;
            usage::usage(server, peer, &query).await
        }
        ["v1", "owners", owner] => {
            allow(&request, &[Method::GET])?;
            owners::show(server, peer, &decode(owner)?).await
        }
        ["v1", "owners", owner, "budget"] => {
            allow(&request, &[Method::PATCH])?;
            let (owner, dry_run) = (decode(owner)?, query.is_true("dry_run"));
            owners::set_budget(server, peer, &owner, dry_run, request.body()).await
        }
        ["v1", "owners", owner, "split"] => {
            allow(&request, &[Method::PATCH])?;
            let (owner, dry_run) = (decode(owner)?, query.is_true("dry_run"));
            owners::set_split(server, peer, &owner, dry_run, request.body()).await
        }
        ["v1", "vhosts"] => {
            allow(&request, &[Method::GET])?;
            vhosts::list(server, peer, &query).await
        }
        ["v1", "vhosts", name] => {
            let name = decode(name)?;
            match *request.method() {
                Method::GET => vhosts::show(server, peer, &name).await,
                Method::PUT => {
                    vhosts::put(
                        server,
                        peer,
                        &name,
                        query.is_true("dry_run"),
                        request.body(),
                    )
                    .await
                }
                Method::DELETE => vhosts::delete(server, peer, &name).await,
                _ => Err(allow(&request, &[Method::GET, Method::PUT, Method::DELETE])
                    .err()
                    .unwrap_or_else(unexpected)),
            }
        }
        ["v1", "vhosts", name, "limits"] => {
            allow(&request, &[Method::PATCH])?;
            let name = decode(name)?;
            vhosts::set_limits(server, peer, &name, &query, request.body()).await
        }
        ["v1", "vhosts", name, "logs"] => {
            allow(&request, &[Method::GET])?;
            stream::logs(server, peer, wire, &decode(name)?, &query).await
        }
        ["v1", "vhosts", name, "exec"] => {
            allow(&request, &[Method::POST])?;
            exec::exec(server, peer, &decode(name)?, request).await
        }
        ["v1", "vhosts", name, "signal"] => {
            allow(&request, &[Method::POST])?;
            vhosts::signal(server, peer, &decode(name)?, request.body()).await
        }
        ["v1", "vhosts", name, verb] => {
            let event = match *verb {
                "start" => Event::Start,
                "stop" => Event::Stop,
                "up" => Event::Up,
                "down" => Event::Down,
                "restart" => Event::Restart,
                "freeze" => Event::Freeze,
                "thaw" => Event::Thaw,
                other => {
                    return Err(Problem::not_found(format!(
                        "there is no verb {other:?} of a vhost"
                    )));
                }
            };
            allow(&request, &[Method::POST])?;
            vhosts::operate(server, peer, &decode(name)?, event).await
        }
        _ => Err(Problem::not_found(format!(
            "there is nothing at {path:?}; see the README for the API"
        ))),
    }
}

fn unexpected() -> Problem {
    Problem::internal("the method is allowed and yet was not handled")
}

fn allow(request: &Request<Bytes>, methods: &[Method]) -> Result<(), Problem> {
    if methods.contains(request.method()) {
        return Ok(());
    }
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    Err(Problem::method(format!(
        "{} is not possible here; use {}",
        request.method(),
        names.join(", ")
    )))
}

/// Percent-decoding of a path segment, to UTF-8 without control characters.
fn decode(segment: &str) -> Result<String, Problem> {
    let bad = || {
        Problem::bad_request("the name in the path is not valid: percent-encoded UTF-8 is expected")
    };
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| {
            b.and_then(|b| char::from(b).to_digit(16))
                .and_then(|d| u8::try_from(d).ok())
        };
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) => bytes.push(high << 4 | low),
            _ => return Err(bad()),
        }
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|name| !name.contains(char::is_control))
        .ok_or_else(bad)
}

/// Query parameters.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Result<Self, Problem> {
        let pairs = text.split('&').filter(|part| !part.is_empty());
        let pairs = pairs.map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, "true"));
            Ok((decode(key)?, decode(value)?))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }

    /// The value of a parameter.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, value)| value.as_str())
    }

    /// All values of a parameter that may come more than once.
    pub(super) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let pairs = self.0.iter().filter(move |(known, _)| known == key);
        pairs.map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on.
    pub(super) fn is_true(&self, key: &str) -> bool {
        matches!(self.get(key), Some("true" | "1"))
    }

    /// Whether a switch that is on by default is off.
    pub(super) fn is_false(&self, key: &str) -> bool {
        matches!(self.get(key), Some("false" | "0"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decodes() {
        assert_eq!(decode("example.com").unwrap(), "example.com");
        assert_eq!(decode("%2e%2E%2fx").unwrap(), "../x");
        for bad in ["%", "%g1", "%00", "%ff", "%0a"] {
            assert!(decode(bad).is_err(), "{bad}");
        }
        let query = Query::parse("a=1&follow&b=x%20y").unwrap();
        assert_eq!(
            (query.get("b"), query.is_true("a"), query.is_true("follow")),
            (Some("x y"), true, true)
        );
        assert!(
            Query::parse("follow=false").unwrap().is_false("follow")
                && !query.is_false("follow")
                && !query.is_false("c")
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = decode(&text);
            let _ = Query::parse(&text);
        }
    }
}
