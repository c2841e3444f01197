//! What happened: a bounded ring for those who ask later and a broadcast for those who listen now.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::broadcast;

/// How many events are kept for `fastctl events` without `-f`.
const KEPT: usize = 1024;

/// A shared name that can be written as JSON.
#[derive(Debug, Clone)]
pub struct Name(Arc<str>);

impl Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl std::ops::Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

/// One event.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// RFC 3339, UTC, microseconds.
    pub time: String,
    /// The vhost it is about; absent for the agent itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhost: Option<Name>,
    /// Owner of the vhost, which decides who may see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Name>,
    /// `state`, `limits`, `oom`, `definition`, `agent` …
    pub event: &'static str,
    /// What else there is to say.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// The agent's events.
#[derive(Debug)]
pub struct Events {
    kept: Mutex<VecDeque<Arc<Event>>>,
    live: broadcast::Sender<Arc<Event>>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            live: broadcast::channel(KEPT).0,
        }
    }
}

impl Events {
    /// Records one. `more` must be an object.
    pub fn emit(&self, event: &'static str, about: Option<(&Arc<str>, &Arc<str>)>, more: Value) {
        let more = match more {
            Value::Object(map) => map,
            other => Map::from_iter([("detail".to_owned(), other)]),
        };
        let event = Arc::new(Event {
            time: crate::time::rfc3339(std::time::SystemTime::now()),
            vhost: about.map(|(vhost, _)| Name(vhost.clone())),
            owner: about.map(|(_, owner)| Name(owner.clone())),
            event,
            more,
        });
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(event.clone());
        // Err means that nobody listens.
        let _ = self.live.send(event);
    }

    /// Those kept, oldest first.
    pub fn recent(&self) -> Vec<Arc<Event>> {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// Those to come. A listener that is too slow loses the oldest and is told how many.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Event>> {
        self.live.subscribe()
    }
}
