//! `/v1/diagnose` and `/v1/capacity`: what costs something is measured on request only, one measurement at a time.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Mutex;

use super::answer::{self, Answer};
use super::problem::Problem;
use super::rights::{Peer, Role};
use super::route::Query;
use super::server::Server;
use crate::config::units::{Bytes, Span};
use crate::seeing::capacity;
use crate::seeing::collect::Counters;
use crate::seeing::judge;
use crate::seeing::private::measure;
use crate::site::Site;

/// The window unless another is asked for, and its bounds.
const WINDOW: Duration = Duration::from_secs(1);
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// How long one measurement may take beside its window, and those before it.
const LIMIT: Duration = Duration::from_secs(15);

/// Held by whoever measures.
static ONE: Mutex<()> = Mutex::const_new(());

fn operator(peer: &Peer) -> Result<(), Problem> {
    match peer.role {
        Role::Operator => Ok(()),
        _ => Err(Problem::forbidden(
            "what all sites do is shown to root and the operators' group only",
        )),
    }
}

fn busy() -> Problem {
    Problem::unavailable(
        "busy",
        "Busy",
        "another measurement is under way and does not end".to_owned(),
        Duration::from_secs(1),
    )
}

/// Runs `work` on a thread of its own, alone; what hangs keeps others from hanging too.
async fn alone<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let one = tokio::time::timeout(LIMIT, ONE.lock()).await;
    let one = one.map_err(|_| busy())?;
    let work = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(one);
        done
    });
    match tokio::time::timeout(LIMIT, work).await {
        Ok(done) => done.map_err(|e| Problem::internal(format!("the measurement failed: {e}"))),
        Err(_) => Err(busy()),
    }
}

/// Who and what makes this host slow.
pub(super) async fn diagnose(server: &Server, peer: &Peer, query: &Query) -> Answer {
    operator(peer)?;
    let window = match query.get("window") {
        None => WINDOW,
        Some(text) => {
            let span: Span = text
                .parse()
                .map_err(|e| Problem::bad_request(format!("window: {e}")))?;
            let span = span.finite().filter(|s| (SHORTEST..=LONGEST).contains(s));
            span.ok_or_else(|| {
                Problem::bad_request(format!("window: {text:?} is not between 100ms and 10s"))
            })?
        }
    };
    let live = Arc::new(server.registry.live_for(&peer.role));
    let first = counters(live.clone()).await?;
    tokio::time::sleep(window).await;
    let second = counters(live).await?;
    let sample = second.since(&first);
    let verdicts = judge::judge(&sample);
    answer::json(&json!({"verdicts": verdicts, "sample": sample}))
}

/// How many more sites like those that live fit.
pub(super) async fn capacity(server: &Server, peer: &Peer, query: &Query) -> Answer {
    operator(peer)?;
    let reserve = query.get("reserve").map(str::parse::<Bytes>).transpose();
    let reserve = reserve.map_err(|e| Problem::bad_request(format!("reserve: {e}")))?;
    let live = server.registry.live_for(&peer.role);
    let division = server.registry.platform().promises.divided();
    let measured = alone(move || measure(&live, division)).await?;
    let capacity = capacity::capacity(&measured, reserve.map(|reserve| reserve.0));
    let promises = server.registry.platform().promises.view();
    answer::json(&json!({"capacity": capacity, "measured": measured, "promises": promises}))
}

async fn counters(live: Arc<Vec<Arc<Site>>>) -> Result<Counters, Problem> {
    alone(move || Counters::read(&live)).await
}
