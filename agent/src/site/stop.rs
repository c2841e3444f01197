//! Ending a container: gracefully, then by force, then patiently if not even force helps.

use std::sync::Arc;
use std::time::Duration;

use shim::protocol::ExitRecord;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::{Hit, Site};
use crate::container::{Container, KILL_LIMIT, LastExit, Remains};
use crate::machine::Event;
use crate::persist;

/// How often a stuck container is tried again; not a timer of sleeping vhosts, only of stuck ones.
const STUCK_RETRY: Duration = Duration::from_secs(10);

/// How long a retry waits for the end.
const GLANCE: Duration = Duration::from_millis(20);

/// How long a container that is to be replaced may go on with the requests that it has.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How often it is asked whether it still has any.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// Containers whose processes end, and that are removed, at a time: the runtime's threads do the latter, and where a
/// thousand were due at once a start would wait for its turn among them.
static TURNS: Semaphore = Semaphore::const_new(1);
/// For how long one whose turn it is lets starts go first: they are what somebody waits for.
const AFTER_STARTS: Duration = Duration::from_millis(25);
/// The same, where starts without a pause have kept it waiting for [`PATIENT`].
const HURRIED: Duration = Duration::from_millis(5);
const PATIENT: Duration = Duration::from_secs(2);
/// Somebody who starts sites one after the other does not leave so much time between them.
const PAUSE: Duration = Duration::from_millis(1);
/// Who takes longer to end than this does so without a turn: an end by itself takes a millisecond or two.
const QUICK: Duration = Duration::from_millis(5);

/// Who has waited longer than this for a turn may have been connected to since it was found unused.
const AT_ONCE: Duration = Duration::from_millis(50);

/// A stop has an end even where the definition sets none.
const LONGEST_STOP: Duration = Duration::from_secs(300);

/// Whether there is anybody to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// The stop signal first, and time to act on it.
    Gracefully,
    /// As that; it was found unused, and who has connected since is not cut off.
    Unused,
    /// As that, but once nobody uses it any more (or has used it for too long).
    Replaced,
    /// Its init is gone.
    AlreadyDead,
}

/// Starts the task, which feeds `Ended` when everything is gone.
pub(super) fn spawn(site: Arc<Site>, container: Option<Arc<Container>>, how: How) {
    tokio::spawn(async move {
        let Some(container) = container else {
            site.feed(Event::Ended);
            return;
        };
        if how == How::Replaced {
            // Elapsed: a connection that stays open for longer is cut.
            let _ = tokio::time::timeout(DRAIN_LIMIT, unused(&site, &container)).await;
        }
        let began = Instant::now();
        let mut turn = turn(&site).await;
        if how == How::Unused && began.elapsed() > AT_ONCE && connections(&container).await > 0 {
            // Who has connected meanwhile without asking is not cut off; who asks is held for the next container.
            drop(turn.take());
            let _ = tokio::time::timeout(DRAIN_LIMIT, unused(&site, &container)).await;
        }
        if how != How::AlreadyDead {
            let stop = site.definition().stop;
            if let Err(error) = container.signal(stop.signal.number()) {
                tracing::warn!("{error:#}");
            }
            let patience = stop.timeout.finite().unwrap_or(LONGEST_STOP);
            let quick = QUICK.min(patience);
            if tokio::time::timeout(quick, container.ended())
                .await
                .is_err()
            {
                drop(turn.take());
                // Elapsed: it has had its time and is killed with its cgroup.
                let _ = tokio::time::timeout(patience - quick, container.ended()).await;
                turn = self::turn(&site).await;
            }
        }
        note_exit(&site, &container, how != How::AlreadyDead);
        let mut remains = container.remains();
        site.lock().container = None;
        drop(container);
        let gone = remains.remove_at_once(&site.platform, &site.name);
        drop(turn);
        if gone {
            site.feed(Event::Ended);
        } else {
            // It is killed, and may be stuck: nobody else waits for that.
            remove_until_gone(&site, remains, Some(Event::Ended)).await;
        }
    });
}

/// A turn to end; at once, and without one, where requests wait for the end or begin to.
async fn turn(site: &Site) -> Option<SemaphorePermit<'static>> {
    let came = Instant::now();
    let turn = async {
        // Err: they are never closed.
        let turn = TURNS.acquire().await.ok();
        let admission = &site.platform.admission;
        let patience = match came.elapsed() > PATIENT {
            true => HURRIED,
            false => AFTER_STARTS,
        };
        // Elapsed: starts without a pause do not keep anything from ending.
        let _ = tokio::time::timeout(patience, admission.quiet(PAUSE)).await;
        turn
    };
    tokio::select! {
        biased;
        () = site.until_held() => None,
        turn = turn => turn,
    }
}

/// How many are open; none where that cannot be told.
async fn connections(container: &Arc<Container>) -> usize {
    let counted = container.clone();
    let open = tokio::task::spawn_blocking(move || counted.open_connections().unwrap_or(0));
    open.await.unwrap_or(0)
}

/// Waits until those who have been told its address have connected and gone. New requests wait for the next container.
async fn unused(site: &Arc<Site>, container: &Arc<Container>) {
    loop {
        let on_the_way = super::keeper::IN_FLIGHT.saturating_sub(site.last_answer().elapsed());
        tokio::select! {
            () = container.ended() => return,
            open = connections(container) => if open == 0 && on_the_way.is_zero() {
                return;
            },
        }
        tokio::time::sleep(on_the_way.max(DRAIN_STEP).min(DRAIN_STEP * 5)).await;
    }
}

/// Records how it ended: what init wrote, and what the counters of its cgroup say, before they are gone.
fn note_exit(site: &Arc<Site>, container: &Container, stopped: bool) {
    site.account_end(container);
    let ooms = container.group.oom_kills().ok().flatten().unwrap_or(0);
    let exit = keep_exit(site, exit_record(site), ooms, stopped);
    if stopped {
        return;
    }
    let event = if exit.cause.starts_with("out of memory") {
        "oom"
    } else {
        "exit"
    };
    let more = serde_json::json!({"cause": exit.cause, "code": exit.code, "signal": exit.signal, "oom_kills": ooms});
    let mut inner = site.lock();
    site.platform
        .events
        .emit(event, Some((&site.name, &inner.owner)), more);
    inner.last_failure = Some(super::Failure {
        because: exit.cause.into(),
        timed_out: false,
    });
}

/// What a container wrote that ended while no agent ran.
pub(super) fn note_exit_of_leftover(site: &Arc<Site>, remains: &Remains) {
    super::account_leftover(&site.platform, &site.name, remains);
    let Some(record) = exit_record(site) else {
        return;
    };
    let group = remains.group.as_ref();
    let ooms = group.and_then(|group| group.oom_kills().ok()?).unwrap_or(0);
    keep_exit(site, Some(record), ooms, false);
}

/// What init wrote, if it came to that.
fn exit_record(site: &Site) -> Option<ExitRecord> {
    let text = std::fs::read_to_string(site.platform.exit_path(&site.name)).ok()?;
    text.trim().parse().ok()
}

fn keep_exit(site: &Site, record: Option<ExitRecord>, ooms: u64, stopped: bool) -> LastExit {
    let mut inner = site.lock();
    let killed = inner.hits.note(Hit::OomKilled, ooms);
    site.platform.hits.add(Hit::OomKilled, killed);
    let limit = inner
        .effective_limits(&site.platform.config.limits)
        .memory()
        .map(|m| m.to_string());
    let exit = LastExit::new(record, stopped, ooms, limit);
    if let Err(error) = persist::overwrite(&site.platform.last_exit_path(&site.name), &exit) {
        tracing::error!("{}: {error:#}", site.name);
    }
    inner.last_exit = Some(exit.clone());
    exit
}

/// Removes `remains`, telling `done` in the end. While that is impossible the site is stuck, and it is tried
/// again every now and then, without any limit: a stuck process keeps its cgroup and its slot. Whether it went at once.
pub(super) async fn remove_until_gone(
    site: &Arc<Site>,
    mut remains: Remains,
    done: Option<Event>,
) -> bool {
    let mut told_stuck = false;
    loop {
        // Mostly that is all, and whoever waits for the end does not wait for a change of threads too.
        if !told_stuck && remains.remove_at_once(&site.platform, &site.name) {
            break;
        }
        // Those that are stuck must not keep the threads busy that others need.
        let patience = if told_stuck { GLANCE } else { KILL_LIMIT };
        let remove = || remains.remove(&site.platform, &site.name, patience);
        match tokio::task::block_in_place(remove) {
            Ok(()) => break,
            Err(error) if !told_stuck => {
                told_stuck = true;
                tracing::error!("{error}");
                site.lock().last_failure = Some(super::Failure {
                    because: error.to_string().into(),
                    timed_out: true,
                });
                site.feed(Event::Unkillable);
            }
            Err(_) => {}
        }
        tokio::time::sleep(STUCK_RETRY).await;
    }
    if let Some(done) = done {
        // A start that got stuck has been told as such; what it waits for now is the end.
        site.feed(if told_stuck { Event::Ended } else { done });
    }
    !told_stuck
}
