//! Answers that go on: events and logs.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::answer::{self, Answer, Body};
use super::problem::Problem;
use super::rights::Peer;
use super::route::Query;
use super::server::Server;
use super::vhosts;
use super::wire::{HangUp, Wire};
use crate::events::Event;
use crate::logs::{self, Follower};

/// How often a followed log is looked at; only while somebody follows it.
const FOLLOW_STEP: Duration = Duration::from_millis(100);
/// Lines without `lines=`.
const DEFAULT_LINES: usize = 100;

fn body(receiver: mpsc::Receiver<Bytes>) -> Body {
    use tokio_stream::StreamExt;
    let frames = ReceiverStream::new(receiver).map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    StreamBody::new(frames).boxed_unsync()
}

fn line(event: &Event) -> Bytes {
    let mut bytes = serde_json::to_vec(event).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

/// What ends a stream that has nothing to say: without it a follower that has gone would keep its place until then.
fn hang_up(wire: &Wire) -> Result<HangUp, Problem> {
    wire.hang_up().map_err(|e| {
        Problem::unavailable(
            "overloaded",
            "Overloaded",
            format!("cannot watch this connection, and so not begin a stream: {e}"),
            Duration::from_secs(1),
        )
    })
}

pub(super) fn events(server: &Server, peer: &Peer, wire: &Wire, query: &Query) -> Answer {
    let events = &server.registry.platform().events;
    let role = peer.role.clone();
    let vhost = query.get("vhost").map(str::to_owned);
    // What is about no vhost is the operators' matter.
    let visible = move |event: &Event| {
        let mine = match &event.owner {
            Some(owner) => role.owns(owner),
            None => role == super::rights::Role::Operator,
        };
        mine && vhost
            .as_deref()
            .is_none_or(|wanted| event.vhost.as_deref() == Some(wanted))
    };
    let mut live = events.follow();
    let recent: Vec<u8> = events
        .recent()
        .iter()
        .filter(|e| visible(e))
        .flat_map(|e| line(e))
        .collect();
    // A stream unless the asker says that the past is enough.
    if query.is_false("follow") {
        return Ok(answer::with_type(recent, "application/x-ndjson"));
    }
    let gone = hang_up(wire)?;
    let (sender, receiver) = mpsc::channel(64);
    let registry = server.registry.clone();
    tokio::spawn(async move {
        loop {
            let bytes = tokio::select! {
                () = sender.closed() => return,
                () = gone.wait() => return,
                () = registry.drained() => return,
                received = live.recv() => match received {
                    Ok(event) if visible(&event) => line(&event),
                    Ok(_) => continue,
                    Err(RecvError::Lagged(lost)) => Bytes::from(format!("{{\"event\":\"lost\",\"count\":{lost}}}\n")),
                    Err(RecvError::Closed) => return,
                },
            };
            if sender.send(bytes).await.is_err() {
                return;
            }
        }
    });
    Ok(answer::stream(body(receiver), "application/x-ndjson"))
}

pub(super) async fn logs(
    server: &Server,
    peer: &Peer,
    wire: &Wire,
    name: &str,
    query: &Query,
) -> Answer {
    let site = vhosts::find(server, peer, name).await?;
    let lines = match query.get("lines") {
        None => DEFAULT_LINES,
        Some(text) => text
            .parse()
            .map_err(|_| Problem::bad_request(format!("lines={text:?} is not a number")))?,
    };
    let dir = site.platform.log_dir(&site.name);
    let follow = query.is_true("follow");
    let failed = |e: &dyn std::fmt::Display| {
        Problem::internal(format!("cannot read the log: {e}")).about(name)
    };
    let (past, follower) = tokio::task::spawn_blocking(move || {
        // The follower's position first: a line between the two would else be lost; one may come twice instead.
        let mut follower = follow.then(|| Follower::new(&dir));
        if let Some(follower) = &mut follower {
            follower.read()?;
        }
        logs::tail(&dir, lines).map(|past| (past, follower))
    })
    .await
    .map_err(|e| failed(&e))?
    .map_err(|e| failed(&e))?;
    let Some(mut follower) = follower else {
        return Ok(answer::with_type(past, "text/plain; charset=utf-8"));
    };
    let gone = hang_up(wire)?;
    let (sender, receiver) = mpsc::channel(16);
    let registry = server.registry.clone();
    tokio::spawn(async move {
        if sender.send(past.into()).await.is_err() {
            return;
        }
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let bytes = follower.read();
                (follower, bytes)
            });
            let Ok((back, Ok(bytes))) = read.await else {
                return;
            };
            follower = back;
            if bytes.is_empty() {
                tokio::select! {
                    () = sender.closed() => return,
                    () = gone.wait() => return,
                    () = registry.drained() => return,
                    () = tokio::time::sleep(FOLLOW_STEP) => {}
                }
            } else if sender.send(bytes.into()).await.is_err() {
                return;
            }
        }
    });
    Ok(answer::stream(body(receiver), "text/plain; charset=utf-8"))
}
