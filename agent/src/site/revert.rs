//! The end of limits that were set for a time.

use std::sync::Arc;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::limits::events;
use super::{Kept, Site};
use crate::config::Limits;
use crate::config::definition::LimitKey;
use crate::disk::BelowUse;
use crate::time::{moment, unix_millis};

impl Site {
    /// Has it looked at when the first of its limits is over that are set for a time.
    pub(crate) fn follow_temporary(self: &Arc<Self>) {
        let next = {
            let inner = self.lock();
            // Of one whose definition is gone all is forgotten once it has ended.
            let next = inner.kept.temporary.next();
            next.filter(|_| !inner.withdrawn)
        };
        self.platform.reverts.follow(self, next);
    }

    /// [`Self::follow_temporary`] of a vhost that has just been made.
    pub(crate) fn begin_temporary(self: &Arc<Self>) {
        if !self.lock().kept.temporary.is_empty() {
            self.follow_temporary();
        }
    }

    /// Takes back what was set for a time that is over.
    pub(crate) async fn revert_due(self: &Arc<Self>) -> Result<()> {
        let _one_at_a_time = self.limits.lock().await;
        // A start under way has looked at the clock before.
        self.settled().await;
        self.revert_due_now().await.map(drop)
    }

    /// [`Self::revert_due`] for who is about to change limits. What cannot be taken back now does not keep anybody from
    /// setting what can be: all that is in force later goes by the clock as well.
    pub(super) async fn revert_before_a_change(self: &Arc<Self>) {
        if let Err(error) = self.revert_due_now().await {
            tracing::warn!(
                "{}: cannot take limits back whose time is over: {error:#}",
                self.name
            );
        }
    }

    /// [`Self::revert_due`] for who has the lock of limits: in force first, then forgotten, so that an agent that dies
    /// in between leaves it to the next. Whether there was something.
    pub(super) async fn revert_due_now(self: &Arc<Self>) -> Result<bool> {
        let now = unix_millis();
        let (definition, kept, container) = {
            let inner = self.lock();
            if inner.withdrawn || inner.kept.temporary.over_at(now).is_empty() {
                return Ok(false);
            }
            (
                inner.definition.clone(),
                inner.kept.clone(),
                inner.container.clone(),
            )
        };
        let defined = definition.limits_over(&self.platform.config.limits);
        let new = defined.merge(&kept.overrides_at(now));
        let changes = match container {
            Some(container) => {
                let (before, after) = self.enforce(&container, &new, BelowUse::Enforce).await?;
                Limits::diff(&before, &after)
            }
            None => {
                self.limit_disk(&new, BelowUse::Enforce).await?;
                // As they were before the first of them was over.
                let first = kept.temporary.next().unwrap_or(now).saturating_sub(1);
                Limits::diff(&defined.merge(&kept.overrides_at(first)), &new)
            }
        };
        self.change_kept(move |kept| kept.temporary.expire(now))
            .await?;
        let mut left = kept;
        left.temporary.expire(now);
        let claim = left.claim(&defined, now).unwrap_or_default();
        self.claim_again(&self.owner(), claim).await;
        if let Some(container) = self.container()
            && self.platform.promises.ever()
        {
            self.order_for_oom(&container).await;
        }
        self.platform.events.emit(
            "limits",
            Some((&self.name, &self.owner())),
            json!({"changes": events(&changes), "cause": "their time is over"}),
        );
        Ok(true)
    }
}

/// Limits that are set for a time: `{"cpu": {"value", "until", "left_s", "then"}}`; no limit is `max`.
pub(super) fn shown(kept: &Kept, defined: &Limits, now: u64) -> Value {
    let at = |key: LimitKey, time: u64| {
        let limits = defined.merge(&kept.overrides_at(time));
        limits
            .get(key)
            .map_or_else(|| "max".to_owned(), |raw| key.show(raw))
    };
    let all = kept.temporary.in_force(now).into_iter();
    let all = all.map(|(key, until)| {
        let one = json!({
            "value": at(key, now),
            "until": moment(until),
            "left_s": until.saturating_sub(now) as f64 / 1e3,
            "then": at(key, until),
        });
        (key.name().to_owned(), one)
    });
    Value::Object(all.collect::<Map<_, _>>())
}
