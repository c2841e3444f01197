//! Tells when the kernel has killed a process of a container for want of memory while the container lives on: a PHP
//! worker, say. If it ends with it, its end is told instead, with the same cause.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{Hit, Site};
use crate::container::Container;
use crate::machine::Event;

/// Between the kernel's notice and its kill, and then the end of the container if it was the main process. Also the
/// shortest time between two events of one container.
const SETTLE: Duration = Duration::from_millis(250);

/// Starts the task; it ends with the container.
pub(super) fn spawn(site: Arc<Site>, container: Arc<Container>) {
    let events = match container.group.oom_events() {
        Ok(Some(events)) => events,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(
                "{}: kills for want of memory are not told at once: {error}",
                site.name
            );
            return;
        }
    };
    let (events, interest) = match crate::sys::watch_oom(events) {
        Ok(watched) => watched,
        Err(error) => {
            tracing::warn!("{}: cannot watch its memory: {error}", site.name);
            return;
        }
    };
    tokio::spawn(async move {
        let mut seen = kills(&container);
        loop {
            tokio::select! {
                () = container.ended() => return,
                ready = events.ready(interest) => match ready {
                    Ok(mut ready) => ready.clear_ready(),
                    // The runtime is shutting down.
                    Err(_) => return,
                },
            }
            if let Err(error) = events.get_ref().clear() {
                tracing::debug!("{}: {error}", site.name);
                return;
            }
            if tokio::time::timeout(SETTLE, container.ended())
                .await
                .is_ok()
            {
                return;
            }
            let now = kills(&container);
            if now > seen {
                tell(&site, now - seen, now);
                seen = now;
                // A frozen init does not see that its command has died.
                site.feed_at_rest(&container, Event::Thaw);
            }
        }
    });
}

fn kills(container: &Container) -> u64 {
    container.group.oom_kills().ok().flatten().unwrap_or(0)
}

fn tell(site: &Site, new: u64, all: u64) {
    let mut inner = site.lock();
    let counted = inner.hits.note(Hit::OomKilled, all);
    site.platform.hits.add(Hit::OomKilled, counted);
    let limit = inner
        .effective_limits(&site.platform.config.limits)
        .memory();
    let words = limit.map_or_else(String::new, |limit| format!(" (limit {limit})"));
    let cause = format!("out of memory{words}; its main process goes on");
    let more = json!({
        "cause": cause, "killed": new, "oom_kills": all,
        "amount": new, "unit": Hit::OomKilled.event().1, "limit": limit.map(|limit| limit.to_string()),
    });
    site.platform
        .events
        .emit("oom", Some((&site.name, &inner.owner)), more);
}
