//! What a request and an operator can ask of a vhost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::{MutexGuard, OwnedMutexGuard, OwnedSemaphorePermit, oneshot};

use super::{Ready, Refused, Site};
use crate::config::Definition;
use crate::machine::{Event, State, Verdict};

/// How long freezing may take.
const FREEZE_LIMIT: Duration = Duration::from_millis(500);

enum Now {
    Answer(Result<Ready, Refused>),
    Wait(
        oneshot::Receiver<Result<Ready, Refused>>,
        OwnedSemaphorePermit,
    ),
    /// Running, but nothing accepts connections at the moment.
    Deaf(Arc<crate::container::Container>),
}

/// How long changes of other definitions wait until changed limits of this one are in force, and its removal for a change.
const LONGEST_CHANGE: Duration = Duration::from_secs(10);

/// When a change that begins now keeps others waiting no longer.
pub(crate) fn longest_wait() -> tokio::time::Instant {
    tokio::time::Instant::now() + LONGEST_CHANGE
}

impl Site {
    /// Makes the vhost ready and says where; waits for a start under way.
    pub async fn dispatch(self: &Arc<Self>) -> Result<Ready, Refused> {
        loop {
            match self.dispatch_now() {
                Now::Answer(answer) => return answer,
                Now::Wait(told, _place) => {
                    return told.await.unwrap_or_else(|_| {
                        Err(self.lock().refused(crate::machine::Refusal::Stopped))
                    });
                }
                Now::Deaf(container) => tokio::select! {
                    answer = self.wait_for_listener(&container) => return answer,
                    // Not only deaf but dead: the request is held for the next container, or told why there is none.
                    () = container.ended() => {
                        self.feed_about(&container, Event::Exited);
                    }
                },
            }
        }
    }

    fn dispatch_now(self: &Arc<Self>) -> Now {
        let mut inner = self.lock();
        inner.last_request = Instant::now();
        inner.dispatches += 1;
        inner.asked.fetch_add(1, Ordering::Relaxed);
        match self.step(&mut inner, Event::Request) {
            Verdict::Go => {
                let Some(container) = inner.container.clone() else {
                    return Now::Answer(Err(inner.refused(crate::machine::Refusal::NotRunning)));
                };
                if !container.listens() {
                    return Now::Deaf(container);
                }
                inner.answered();
                Now::Answer(Ok(Ready {
                    upstream: container.upstream.clone(),
                    start: None,
                }))
            }
            Verdict::Hold => {
                let Some(place) = self.platform.waiting_place() else {
                    // It is held by nobody; the start it may have caused goes on for the next one.
                    return Now::Answer(Err(inner.refused(crate::machine::Refusal::Overloaded)));
                };
                let (tell, told) = oneshot::channel();
                inner.held.push(tell);
                Now::Wait(told, place)
            }
            Verdict::Refuse(refusal) => Now::Answer(Err(inner.refused(refusal))),
            Verdict::Stale => Now::Answer(Err(inner.refused(crate::machine::Refusal::NotRunning))),
        }
    }

    /// The container is there but its server does not listen: it restarts itself, or it hangs. It gets the time
    /// of a start; after that it is recycled.
    async fn wait_for_listener(
        self: &Arc<Self>,
        container: &Arc<crate::container::Container>,
    ) -> Result<Ready, Refused> {
        let limit = self
            .definition()
            .start
            .timeout
            .finite()
            .unwrap_or(self.platform.longest_start());
        let listens = self.platform.readiness.wait(container.probe());
        match tokio::time::timeout(limit, listens).await {
            Ok(Ok(())) => {
                self.lock().answered();
                Ok(Ready {
                    upstream: container.upstream.clone(),
                    start: None,
                })
            }
            Ok(Err(_)) | Err(_) => {
                let mut inner = self.lock();
                inner.last_failure = Some(super::Failure {
                    because: format!(
                        "its server has not listened for {:.1} s",
                        limit.as_secs_f64()
                    )
                    .into(),
                    timed_out: true,
                });
                drop(inner);
                self.feed_about(container, Event::Recycle);
                let inner = self.lock();
                Err(Refused {
                    timed_out: true,
                    ..inner.refused(crate::machine::Refusal::NotRunning)
                })
            }
        }
    }

    /// An operator's verb; returns the state when it is reached.
    pub async fn operate(self: &Arc<Self>, event: Event) -> Result<Result<State, Refused>> {
        if matches!(event, Event::Down | Event::Up | Event::Start) {
            let down = event == Event::Down;
            self.change_kept(move |kept| kept.down = down).await?;
        }
        let verdict = self.feed(event);
        if let Verdict::Refuse(refusal) = verdict {
            return Ok(Err(self.lock().refused(refusal)));
        }
        let mut state = self.settled().await;
        if event == Event::Freeze && state.rests() {
            self.confirm_frozen().await?;
            state = self.settled().await;
        }
        let failed_to_start =
            matches!(event, Event::Start | Event::Restart) && matches!(state, State::Failed { .. });
        if failed_to_start || (matches!(state, State::Stuck(_)) && event != Event::Up) {
            let refusal = match state {
                State::Failed { until } => crate::machine::Refusal::StartFailed(
                    until.saturating_sub(self.platform.uptime()),
                ),
                _ => crate::machine::Refusal::Stuck,
            };
            return Ok(Err(self.lock().refused(refusal)));
        }
        Ok(Ok(state))
    }

    /// Waits until its processes are frozen. A process that waits for dead storage cannot be: then all go on.
    pub(super) async fn confirm_frozen(self: &Arc<Self>) -> Result<()> {
        let Some(container) = self.container() else {
            return Ok(());
        };
        tokio::select! {
            frozen = container.frozen(FREEZE_LIMIT) => if frozen {
                return Ok(());
            },
            // A request has come: there is nothing to wait for any more.
            _ = self.until(|state| !state.rests()) => return Ok(()),
        }
        self.feed_at_rest(&container, Event::Thaw);
        anyhow::bail!(
            "cannot freeze {}: not all of its processes stopped within {:.1} s, so it goes on; a process may wait for storage",
            self.name,
            FREEZE_LIMIT.as_secs_f64()
        )
    }

    /// Another definition is in force. Changed limits are applied to the running container, everything else takes
    /// effect with the next start, for which the container is recycled. Waits until then for limits to be in force.
    pub async fn redefine(
        self: &Arc<Self>,
        definition: Arc<Definition>,
        until: tokio::time::Instant,
    ) {
        let recycle = {
            let mut inner = self.lock();
            let recycle = !inner.definition.same_but_limits(&definition);
            inner.owner = (&*definition.owner).into();
            inner.definition = definition;
            recycle
        };
        let recycle = recycle || self.needs_restart_for(&self.limits());
        self.platform.events.emit(
            "definition",
            Some((&self.name, &self.owner())),
            serde_json::json!({"change": "changed"}),
        );
        let followed = self.definition();
        if let Err(error) = self.change_kept(move |kept| kept.follow(&followed)).await {
            tracing::error!("{}: {error:#}", self.name);
        }
        if recycle {
            self.feed(Event::Recycle);
        } else {
            let site = self.clone();
            let work = tokio::spawn(async move {
                if let Err(error) = site.enforce_limits().await {
                    tracing::error!("{}: {error:#}", site.name);
                }
            });
            // Elapsed: its documents are many, or their storage does not answer. Other definitions do not wait for that.
            let _ = tokio::time::timeout_at(until, work).await;
        }
    }

    /// The definition is gone: ends the container and refuses everything from now on. What is answered is to be held until
    /// all that was kept of it is forgotten; nothing if that is under way already.
    pub fn begin_withdrawal(self: &Arc<Self>) -> Option<OwnedMutexGuard<()>> {
        let ending = self.ending.clone().try_lock_owned().ok();
        self.platform.events.emit(
            "definition",
            Some((&self.name, &self.owner())),
            serde_json::json!({"change": "removed"}),
        );
        self.lock().withdrawn = true;
        self.feed(Event::Withdraw);
        ending
    }

    /// Keeps limits from being changed, which the change under way may end with before: what it does to storage would come
    /// after all is forgotten. Nothing if that takes too long.
    pub async fn unchanging(&self) -> Option<MutexGuard<'_, ()>> {
        let limits = self.limits.lock();
        tokio::time::timeout_at(longest_wait(), limits).await.ok()
    }

    /// Waits until nothing is kept of it any more, once it is gone.
    pub async fn forgotten(&self) {
        drop(self.ending.lock().await);
    }

    /// Whether its definition is gone.
    pub fn withdrawn(&self) -> bool {
        self.lock().withdrawn
    }

    /// Whether its definition and its container are gone.
    pub fn gone(&self) -> bool {
        self.state() == State::Gone
    }
}
