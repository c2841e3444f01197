//! What an operator can ask of a vhost, and what another definition changes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::{MutexGuard, OwnedMutexGuard};

use super::{Refused, Site};
use crate::config::Definition;
use crate::machine::{Event, Refusal, State, Verdict};

/// How long freezing may take.
const FREEZE_LIMIT: Duration = Duration::from_millis(500);

/// How long changes of other definitions wait until changed limits of this one are in force, and its removal for a change.
const LONGEST_CHANGE: Duration = Duration::from_secs(10);

/// When a change that begins now keeps others waiting no longer.
pub(crate) fn longest_wait() -> tokio::time::Instant {
    tokio::time::Instant::now() + LONGEST_CHANGE
}

impl Site {
    /// An operator's verb; returns the state when it is reached.
    pub async fn operate(self: &Arc<Self>, event: Event) -> Result<Result<State, Refused>> {
        if matches!(event, Event::Down | Event::Up | Event::Start) {
            let down = event == Event::Down;
            self.change_kept(move |kept| kept.down = down).await?;
        }
        if event == Event::Freeze {
            self.platform.ladder.told.attended_to().await;
        }
        let verdict = self.feed(event);
        if let Verdict::Refuse(refusal) = verdict {
            return Ok(Err(self.lock().refused(refusal)));
        }
        let mut state = self.settled().await;
        if event == Event::Freeze && state.rests() {
            self.confirm_frozen().await?;
            if let Some(container) = self.container()
                && self.watch_handed(&container).await
            {
                self.wake_if_unread().await;
            }
            state = self.settled().await;
        }
        let failed_to_start =
            matches!(event, Event::Start | Event::Restart) && matches!(state, State::Failed { .. });
        if matches!(event, Event::Start | Event::Restart) && state == State::Stopped {
            let inner = self.lock();
            // Or an operator has stopped it meanwhile.
            if inner.last_failure.as_ref().is_some_and(|f| f.timed_out) {
                return Ok(Err(inner.refused(Refusal::NotBegun)));
            }
        }
        if failed_to_start || (matches!(state, State::Stuck(_)) && event != Event::Up) {
            let refusal = match state {
                State::Failed { until } => {
                    Refusal::StartFailed(until.saturating_sub(self.platform.uptime()))
                }
                _ => Refusal::Stuck,
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
        container.note_stubborn();
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
