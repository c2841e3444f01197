//! Watches over one running container: its end, its idleness, its age.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Site;
use super::rest::has;
use crate::config::definition::IdleAction;
use crate::container::Container;
use crate::machine::{Event, Verdict};

/// How long a container that is too old may go on while it has open connections.
const DRAIN_LIMIT: Duration = Duration::from_secs(300);
/// How often a container that is too old is asked whether it is unused.
const DRAIN_STEP: Duration = Duration::from_secs(1);
/// After a dispatch its connection may still be on the way.
pub(super) const IN_FLIGHT: Duration = Duration::from_secs(1);

/// Starts the task; it ends when the container does or is being ended. It sleeps until something is due, or until it is
/// told ([`super::Inner::attention`]) that there is something else to heed: its last request has come, it rests. Another
/// definition is no such thing: what says otherwise how long it may live or be idle ends its container.
pub(super) fn spawn(site: Arc<Site>, container: Arc<Container>) {
    let attention = Arc::<Notify>::default();
    {
        let mut inner = site.lock();
        // Another one may have taken its place while its start had something to finish.
        if !has(&inner, &container) {
            return;
        }
        inner.attention = attention.clone();
    }
    tokio::spawn(async move {
        let born = Instant::from_std(container.since);
        let mut seen = Seen {
            busy_until: born,
            open: false,
        };
        loop {
            if !site.owns(&container) {
                return;
            }
            // While it rests, the ladder looks after it.
            if site.state().rests() {
                tokio::select! {
                    () = container.ended() => {
                        site.feed_about(&container, Event::Exited);
                        return;
                    }
                    _ = site.until(|state| !state.rests()) => {}
                }
                seen = Seen {
                    busy_until: Instant::now(),
                    open: false,
                };
                continue;
            }
            let idle = site.definition().idle;
            let now = Instant::now();
            let quiet_since = site.last_request().max(seen.busy_until);
            let patience = idle.timeout.finite();
            let idle_at = match seen.open {
                // When it closes is only seen by looking: more often while one is open.
                true => patience.map(|t| seen.busy_until + t / 4),
                false => patience.map(|t| quiet_since + t),
            };
            let old_at = idle.max_lifetime.finite().map(|age| born + age);
            let worn = site.is_worn();
            let next = [idle_at, old_at, worn.then_some(now)]
                .into_iter()
                .flatten()
                .min();
            if next.is_none_or(|at| at > now) {
                if ended_before(&container, next, Some(&attention)).await {
                    site.feed_about(&container, Event::Exited);
                    return;
                }
                continue;
            }
            let due = if old_at.is_some_and(|at| at <= now) || worn {
                Due::Age
            } else {
                Due::Idle
            };
            let again = match act(&site, &container, due, &mut seen, born).await {
                Next::Look => continue,
                Next::LookAt(at) => at,
                // What was to happen may have. Else a request has come in between.
                Next::Over if !site.owns(&container) || site.state().rests() => continue,
                Next::Over => now + DRAIN_STEP,
            };
            if ended_before(&container, Some(again), None).await {
                site.feed_about(&container, Event::Exited);
                return;
            }
        }
    });
}

/// What the looks at its connections have shown.
struct Seen {
    /// When one was last open, as far as is known.
    busy_until: Instant,
    /// One was open at the last look.
    open: bool,
}

enum Due {
    Idle,
    Age,
}

enum Next {
    /// Something has moved: compute anew.
    Look,
    /// Not yet; again at this time at the latest.
    LookAt(Instant),
    /// The machine has been told.
    Over,
}

async fn act(
    site: &Arc<Site>,
    container: &Arc<Container>,
    due: Due,
    seen: &mut Seen,
    born: Instant,
) -> Next {
    let counted = container.clone();
    let open = match tokio::task::spawn_blocking(move || counted.open_connections()).await {
        Ok(Ok(open)) => open,
        // Not known: it counts as in use, as stopping a site in use is worse than keeping an idle one.
        Ok(Err(error)) => {
            tracing::warn!("{error:#}");
            1
        }
        Err(_) => 1,
    };
    let now = Instant::now();
    match due {
        // The idle time begins when no connection is open any more; between two looks counts as open.
        Due::Idle if open > 0 || seen.open => {
            *seen = Seen {
                busy_until: now,
                open: open > 0,
            };
            Next::Look
        }
        Due::Idle => {
            let idle = site.definition().idle;
            let event = match idle.action {
                IdleAction::Stop => Event::IdleStop,
                IdleAction::Freeze | IdleAction::Ladder => Event::IdleFreeze,
            };
            let quiet = idle.timeout.finite().unwrap_or(Duration::MAX);
            let done = site.feed_if_quiet(container, quiet.min(now - born), event);
            if done == Verdict::Go && event == Event::IdleFreeze {
                site.wake_if_connected(container).await;
            }
            Next::Over
        }
        Due::Age => {
            let idle = site.definition().idle;
            let overdue = idle
                .max_lifetime
                .finite()
                .is_some_and(|age| now >= born + age + DRAIN_LIMIT);
            if open > 0 && !overdue {
                return Next::LookAt(now + DRAIN_STEP);
            }
            let quiet_at = site.last_request() + IN_FLIGHT;
            if now < quiet_at && !overdue {
                return Next::LookAt(quiet_at);
            }
            // Asked again under the lock: a request may just have been told its address.
            site.feed_if_quiet(
                container,
                if overdue { Duration::ZERO } else { IN_FLIGHT },
                Event::Recycle,
            );
            Next::Over
        }
    }
}

/// Waits for the container's end, not longer than until `limit` or until it is told to look; true if it has ended.
async fn ended_before(
    container: &Container,
    limit: Option<Instant>,
    attention: Option<&Notify>,
) -> bool {
    let over = async {
        match limit {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    let told = async {
        match attention {
            Some(attention) => attention.notified().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = container.ended() => true,
        () = told => false,
        () = over => false,
    }
}
