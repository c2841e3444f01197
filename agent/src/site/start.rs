//! One start: makes the container, waits until it listens, tells the machine.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Failure, Site, keeper, oom};
use crate::admission::Turn;
use crate::config::{Definition, Limits};
use crate::container::{self, Container, MakeError, Remains};
use crate::machine::Event;
use crate::persist::{self, Durable};

/// Starts the task. It feeds exactly one of `Ready`, `StartFailed`, `NotBegun`, `Ended` (after an abort) or `Unkillable`
/// (and then `Ended` once the container can be ended after all).
pub(super) fn spawn(
    site: Arc<Site>,
    definition: Arc<Definition>,
    limits: Limits,
    abort: Arc<Notify>,
) {
    // Now, and not when the task gets to it: starts are admitted as they were asked for.
    let turn = Turn::new(&site.platform.admission);
    let platform = site.platform.clone();
    tokio::spawn(async move {
        let mut remains = Remains::default();
        let limit = site.platform.start_limit(&definition);
        let deadline = Instant::now() + limit;
        let outcome = loop {
            let attempt = attempt(&site, &definition, &limits, &turn, &mut remains);
            let outcome = tokio::select! {
                () = abort.notified() => Outcome::Aborted,
                () = out_of_time(&site, &turn, deadline, limit) => Outcome::TimedOut,
                result = attempt => match result {
                    Ok(container) => Outcome::Ready(container),
                    Err(error) => Outcome::Failed(error),
                },
            };
            // Once a file system, as it is remembered.
            let Outcome::Failed(MakeError::NoIdMaps(error)) = outcome else {
                break outcome;
            };
            tracing::info!(
                "{}: its documents' file system cannot map ids, it does without: {error:#}",
                site.name
            );
            if !super::stop::remove_until_gone(&site, std::mem::take(&mut remains), None).await {
                site.feed(Event::Ended);
                platform.spawner.refill().await;
                return;
            }
        };
        if let Some(range) = remains.range {
            site.lock().last_range = range;
        }
        // Those who wait are told before another start goes on.
        let taken = match &outcome {
            Outcome::Ready(container) => site.take_ready(container),
            _ => false,
        };
        let begun = turn.begun().is_some();
        // Before anything is cleared, which may take as long as it likes.
        drop(turn);
        match outcome {
            Outcome::Ready(container) => {
                if taken {
                    // First of all those who wait are told.
                    tokio::task::yield_now().await;
                    site.account_begin(&container);
                    if site.limits() != limits
                        && let Err(error) = site.enforce_limits().await
                    {
                        tracing::error!("{}: {error:#}", site.name);
                    }
                    if limits.class().is_some() {
                        site.order_for_oom(&container).await;
                    }
                    oom::spawn(site.clone(), container.clone());
                    keeper::spawn(site, container);
                } else {
                    // It was to be broken off in the moment in which it succeeded.
                    clear(site, container.remains(), Event::Ended).await;
                }
            }
            Outcome::Aborted => clear(site, remains, Event::Ended).await,
            Outcome::TimedOut if !begun && !site.platform.disk.counting(&site.name) => {
                let because = format!(
                    "other starts on this host, or of its owner, went first for {:.1} s",
                    limit.as_secs_f64()
                );
                tracing::info!("{}: not started: {because}", site.name);
                let mut inner = site.lock();
                inner.starts -= 1;
                inner.last_failure = Some(Failure {
                    because: because.into(),
                    timed_out: true,
                });
                site.step(&mut inner, Event::NotBegun);
            }
            Outcome::TimedOut => {
                let limit = limit.as_secs_f64();
                let what = if site.platform.disk.counting(&site.name) {
                    format!(
                        "its documents are gone through for its disk limit, which has not got on for {limit:.1} s"
                    )
                } else {
                    format!(
                        "it did not listen on {} within {limit:.1} s",
                        definition.listen
                    )
                };
                fail(site, remains, what, true).await;
            }
            Outcome::Failed(MakeError::Hangs { message, released }) => {
                site.lock().last_failure = Some(Failure {
                    because: message.into(),
                    timed_out: true,
                });
                site.feed(Event::Unkillable);
                // Either way the thread that waited for the storage is gone.
                let _ = released.await;
                clear(site, remains, Event::Ended).await;
            }
            Outcome::Failed(MakeError::Other(error) | MakeError::NoIdMaps(error)) => {
                fail(site, remains, format!("{error:#}"), false).await
            }
        }
        // For the next ones.
        platform.spawner.refill().await;
    });
}

enum Outcome {
    Ready(Arc<Container>),
    Failed(MakeError),
    TimedOut,
    Aborted,
}

/// Waits until the time of a start is over; meanwhile takes its place from it, once it has had that for long enough.
async fn out_of_time(site: &Site, turn: &Turn, mut end: Instant, limit: Duration) {
    let mut look = turn.relieve(Instant::now());
    loop {
        tokio::time::sleep_until(look.map_or(end, |look| look.min(end))).await;
        let now = Instant::now();
        if look.is_some_and(|look| look <= now) {
            look = turn.relieve(now);
        }
        if end <= now {
            let got_on = site.platform.disk.got_on(&site.name);
            match later(end, limit, got_on.map(Instant::from_std).max(turn.begun())) {
                Some(at) => end = at,
                None => return,
            }
        }
    }
}

/// The time of a start begins anew when it is let in, and whenever a walk through the documents gets on: that
/// they are many is no fault of the site's, and whoever waits is better off than with a refusal.
fn later(end: Instant, limit: Duration, got_on: Option<Instant>) -> Option<Instant> {
    got_on.map(|at| at + limit).filter(|at| *at > end)
}

async fn attempt(
    site: &Arc<Site>,
    definition: &Arc<Definition>,
    limits: &Limits,
    turn: &Turn,
    remains: &mut Remains,
) -> Result<Arc<Container>, MakeError> {
    let began = Instant::now();
    let limited = limits.disk().and_then(|disk| disk.finite()).is_some();
    if limited && !site.platform.disk.counted(&site.name).await {
        // Not in the owner's place, for which their other starts wait.
        container::count_documents(&site.platform, &site.name, definition, limits).await?;
    }
    let _place = site.platform.owners.start_place(&definition.owner).await;
    let platform = &site.platform;
    let range = site.last_range();
    let mut made = container::make(
        platform, &site.name, definition, limits, range, turn, remains,
    )
    .await?;
    let container = made.container.clone();
    let listens = async {
        let heard = platform.readiness.wait(container.probe()).await;
        heard.context("cannot see whether it listens")?;
        Ok(Instant::now())
    };
    // Beside each other: a server may listen before its own agent knows that it has been executed.
    let both = async { tokio::try_join!(made.executed(platform), listens) };
    let (executed, heard) = tokio::select! {
        // If both happened the server has listened and is gone again: that is a failed start.
        biased;
        () = container.ended() => {
            // What it was told before it ended comes first.
            made.executed(platform).await?;
            return Err(MakeError::Other(ended_early(&container, definition, limits)));
        }
        result = both => result?,
    };
    let total = began.elapsed();
    container.publish(platform)?;
    // The probe that said yes may still be held by the readiness thread for a moment; the record is written once.
    let container = container.ready(
        executed - made.set_up_since,
        heard.saturating_duration_since(executed),
        total,
    );
    // On disk before anybody is told: the next agent finds what this one has promised.
    persist::write(
        &platform.record_path(&site.name),
        &container.record,
        Durable::Process,
    )?;
    // From here on the container owns all that the attempt has made.
    *remains = Remains::default();
    Ok(container)
}

fn ended_early(container: &Container, definition: &Definition, limits: &Limits) -> anyhow::Error {
    let listen = &definition.listen;
    match (container.group.oom_kills(), limits.memory()) {
        (Ok(Some(1..)), Some(limit)) => anyhow::anyhow!(
            "it ran out of its memory (limit {limit}) before it listened on {listen}; raise the limit"
        ),
        _ => anyhow::anyhow!("its command ended before it listened on {listen}"),
    }
}

async fn fail(site: Arc<Site>, remains: Remains, what: String, timed_out: bool) {
    let output = last_output(&site);
    let because = if output.is_empty() {
        what
    } else {
        format!("{what}; its last output: {output}")
    };
    tracing::info!("{}: start failed: {because}", site.name);
    site.lock().last_failure = Some(Failure {
        because: because.into(),
        timed_out,
    });
    clear(site, remains, Event::StartFailed).await;
}

/// The last lines that the container wrote in this start, on one line, bounded.
fn last_output(site: &Site) -> String {
    let path = site.platform.log_dir(&site.name);
    // Written a moment ago, a few hundred bytes: nothing to change the thread for.
    crate::logs::last_output(&path, &site.name, 5, 600)
}

/// Removes what there is and then tells the machine `done`; if it cannot be removed, `Unkillable` first.
async fn clear(site: Arc<Site>, remains: Remains, done: Event) {
    site.account_failure(&remains);
    super::stop::remove_until_gone(&site, remains, Some(done)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_start_begins_anew_while_its_documents_are_gone_through() {
        let (began, limit) = (Instant::now(), Duration::from_secs(10));
        let after = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(later(after(10), limit, None), None);
        assert_eq!(
            later(after(10), limit, Some(began)),
            None,
            "a walk of before"
        );
        assert_eq!(later(after(10), limit, Some(after(3))), Some(after(13)));
        // One that gets on for 35 s, and then no more.
        let mut end = after(10);
        while let Some(at) = later(end, limit, Some(end.min(after(35)))) {
            end = at;
        }
        assert_eq!(end, after(45));
    }
}
