//! What a request asks of a vhost: to be there, and where.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Failure, Ready, Refused, Site};
use crate::container::Container;
use crate::machine::{Event, Refusal, State, Verdict};

enum Now {
    Answer(Result<Ready, Refused>),
    Wait(
        oneshot::Receiver<Result<Ready, Refused>>,
        OwnedSemaphorePermit,
    ),
    /// Running, but nothing accepts connections at the moment.
    Deaf(Arc<Container>),
}

/// A request that waits for the server of a container that is there. Meanwhile the site is in use.
struct Patience {
    site: Arc<Site>,
    container: Arc<Container>,
    limit: Duration,
    until: tokio::time::Instant,
}

impl Patience {
    fn new(site: &Arc<Site>, container: Arc<Container>) -> Self {
        let limit = site.platform.start_limit(&site.definition());
        site.lock().waiting += 1;
        Self {
            site: site.clone(),
            container,
            limit,
            until: tokio::time::Instant::now() + limit,
        }
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        self.site.lock().waiting -= 1;
    }
}

impl Site {
    /// Makes the vhost ready and says where; waits for a start under way.
    pub async fn dispatch(self: &Arc<Self>) -> Result<Ready, Refused> {
        self.dispatch_anew(true).await
    }

    /// [`Self::dispatch`]; `new`: it has not been counted yet.
    pub(super) async fn dispatch_anew(self: &Arc<Self>, mut new: bool) -> Result<Ready, Refused> {
        let mut patience: Option<Patience> = None;
        loop {
            let container = match self.dispatch_now(std::mem::take(&mut new)) {
                Now::Answer(answer) => return answer,
                Now::Wait(told, _place) => {
                    return told
                        .await
                        .unwrap_or_else(|_| Err(self.lock().refused(Refusal::Stopped)));
                }
                Now::Deaf(container) => container,
            };
            let patience = match &mut patience {
                Some(patience) if Arc::ptr_eq(&patience.container, &container) => patience,
                other => other.insert(Patience::new(self, container.clone())),
            };
            // Its server restarts itself, or it hangs. It gets the time of a start; after that the container is recycled.
            let listens = self.platform.readiness.wait(container.probe());
            tokio::select! {
                heard = tokio::time::timeout_at(patience.until, listens) => if !matches!(heard, Ok(Ok(()))) {
                    return Err(self.give_up(&container, patience.limit));
                },
                // Not only deaf but dead: the request is held for the next container, or told why there is none.
                () = container.ended() => {
                    self.feed_about(&container, Event::Exited);
                }
                // Somebody has frozen or ended it: the machine knows what that means for a request.
                _ = self.until(|state| state != State::Running) => {}
            }
        }
    }

    /// `new`: it has not been counted yet.
    fn dispatch_now(self: &Arc<Self>, new: bool) -> Now {
        let mut inner = self.lock();
        inner.last_request = Instant::now();
        if new {
            inner.dispatches += 1;
            inner.asked.fetch_add(1, Ordering::Relaxed);
            if inner.is_worn() {
                inner.attention.notify_one();
            }
        }
        match self.step(&mut inner, Event::Request) {
            Verdict::Go => {
                let Some(container) = inner.container.clone() else {
                    return Now::Answer(Err(inner.refused(Refusal::NotRunning)));
                };
                if !container.listens() {
                    return Now::Deaf(container);
                }
                inner.answered();
                Now::Answer(Ok(Ready {
                    container,
                    cold: false,
                }))
            }
            Verdict::Hold => {
                let Some(place) = self.platform.waiting_place() else {
                    // It is held by nobody; the start it may have caused goes on for the next one.
                    return Now::Answer(Err(inner.refused(Refusal::Overloaded)));
                };
                let (tell, told) = oneshot::channel();
                inner.held.push(tell);
                if matches!(inner.machine.state(), State::Stopping { .. }) {
                    inner.tell_change();
                }
                Now::Wait(told, place)
            }
            Verdict::Refuse(refusal) => Now::Answer(Err(inner.refused(refusal))),
            Verdict::Stale => Now::Answer(Err(inner.refused(Refusal::NotRunning))),
        }
    }

    /// The server of this container has not listened for so long.
    fn give_up(self: &Arc<Self>, container: &Arc<Container>, limit: Duration) -> Refused {
        let because = format!(
            "its server has not listened for {:.1} s",
            limit.as_secs_f64()
        );
        self.lock().last_failure = Some(Failure {
            because: because.into(),
            timed_out: true,
        });
        self.feed_about(container, Event::Recycle);
        Refused {
            timed_out: true,
            ..self.lock().refused(Refusal::NotRunning)
        }
    }
}
