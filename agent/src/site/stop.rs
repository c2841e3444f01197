//! Ending a container: gracefully, then by force, then patiently if not even force helps.

use std::sync::Arc;
use std::time::Duration;

use super::Site;
use crate::container::{Container, LastExit, Remains};
use crate::machine::Event;
use crate::persist::{self, Durable};

/// How often a stuck container is tried again; not a timer of sleeping vhosts, only of stuck ones.
const STUCK_RETRY: Duration = Duration::from_secs(10);

/// A stop has an end even where the definition sets none.
const LONGEST_STOP: Duration = Duration::from_secs(300);

/// Whether there is anybody to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// The stop signal first, and time to act on it.
    Gracefully,
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
        if how == How::Gracefully {
            let stop = site.definition().stop;
            if let Err(error) = container.signal(stop.signal.number()) {
                tracing::warn!("{error:#}");
            }
            // Elapsed: it has had its time and is killed with its cgroup.
            let _ = tokio::time::timeout(stop.timeout.finite().unwrap_or(LONGEST_STOP), container.ended()).await;
        }
        note_exit(&site, &container, how == How::Gracefully);
        let remains = container.remains();
        site.lock().container = None;
        drop(container);
        remove_until_gone(&site, remains, Some(Event::Ended)).await;
    });
}

/// Records how it ended: what init wrote, and what the counters of its cgroup say, before they are gone.
fn note_exit(site: &Arc<Site>, container: &Container, stopped: bool) {
    let record = std::fs::read_to_string(site.platform.exit_path(&site.name)).ok().and_then(|text| text.trim().parse().ok());
    let ooms = container.group.usage().map_or(0, |usage| usage.oom_kills.unwrap_or(0));
    let mut inner = site.lock();
    let limit = inner.effective_limits(&site.platform.config.limits).memory().map(|m| m.to_string());
    let exit = LastExit::new(record, stopped, ooms, limit);
    if let Err(error) = persist::write(&site.platform.last_exit_path(&site.name), &exit, Durable::Process) {
        tracing::error!("{}: {error:#}", site.name);
    }
    if !stopped {
        let event = if exit.cause.starts_with("out of memory") { "oom" } else { "exit" };
        let more = serde_json::json!({"cause": exit.cause, "code": exit.code, "signal": exit.signal, "oom_kills": ooms});
        site.platform.events.emit(event, Some((&site.name, &inner.owner)), more);
        inner.last_failure = Some(super::Failure { because: exit.cause.as_str().into(), timed_out: false });
    }
    inner.last_exit = Some(exit);
}

/// What a container wrote that ended while no agent ran.
pub(super) fn note_exit_of_leftover(site: &Arc<Site>, remains: &Remains) {
    let Ok(text) = std::fs::read_to_string(site.platform.exit_path(&site.name)) else { return };
    let Ok(record) = text.trim().parse() else { return };
    let ooms = remains.group.as_ref().and_then(|group| group.usage().ok()?.oom_kills).unwrap_or(0);
    let mut inner = site.lock();
    let limit = inner.effective_limits(&site.platform.config.limits).memory().map(|m| m.to_string());
    let exit = LastExit::new(Some(record), false, ooms, limit);
    if let Err(error) = persist::write(&site.platform.last_exit_path(&site.name), &exit, Durable::Process) {
        tracing::error!("{}: {error:#}", site.name);
    }
    inner.last_exit = Some(exit);
}

/// Removes `remains`, telling `done` in the end. While that is impossible the site is stuck, and it is tried
/// again every now and then, without any limit: a stuck process keeps its cgroup and its slot.
pub(super) async fn remove_until_gone(site: &Arc<Site>, mut remains: Remains, done: Option<Event>) {
    let mut told_stuck = false;
    loop {
        let owner = site.clone();
        let removal = tokio::task::spawn_blocking(move || {
            let result = remains.remove(&owner.platform, &owner.name);
            (remains, result)
        });
        let result = match removal.await {
            Ok((back, result)) => {
                remains = back;
                result
            }
            Err(error) => {
                tracing::error!("{}: the task that removes its container failed: {error}", site.name);
                return;
            }
        };
        match result {
            Ok(()) => break,
            Err(error) if !told_stuck => {
                told_stuck = true;
                tracing::error!("{error}");
                site.lock().last_failure = Some(super::Failure { because: error.to_string().into(), timed_out: true });
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
}
