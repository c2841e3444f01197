//! One vhost at run time: its state machine, the requests it holds, its container.
//!
//! A sleeping vhost is only this structure (or not even that, if it was never woken): no task, no timer. All changes go
//! through [`Site::feed`], which steps the machine under the site's lock and performs the actions; what takes
//! longer runs in a task of its own that reports back with another event.

mod account;
mod adopt;
mod connect;
mod dispatch;
mod drift;
mod hits;
mod keeper;
mod kept;
mod limits;
mod oom;
mod oom_order;
mod open_files;
mod promise;
mod rest;
mod revert;
mod start;
mod stop;
mod temporary;
#[cfg(test)]
mod temporary_tests;
mod verbs;
mod view;
mod wake;
mod watch_limits;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Result;

use serde_json::json;
use tokio::sync::{Notify, oneshot};

use crate::accounts::Asked;
use crate::config::{Definition, Limits};
use crate::container::{Container, LastExit};
use crate::machine::{Action, Event, Machine, Refusal, State, Verdict};
use crate::persist;
use crate::platform::Platform;

pub use account::account_leftover;
pub use adopt::{Found, Survey, survey, sweep};
pub use connect::NoConnection;
pub(crate) use drift::change;
pub use hits::Hit;
use hits::Hits;
pub use kept::Kept;
pub(crate) use limits::Ask;
pub use temporary::time;
pub(crate) use verbs::longest_wait;
pub(crate) use view::shown;
pub use watch_limits::HitTotals;

/// What a request can be sent to now.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Its server listens.
    pub container: Arc<Container>,
    /// This request waited for its start.
    pub cold: bool,
}

/// Why a request is not served.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The machine's reason.
    pub refusal: Refusal,
    /// What is known of the last failure.
    pub because: Option<Arc<str>>,
    /// The last start failed because its time was over.
    pub timed_out: bool,
}

/// A vhost.
pub struct Site {
    /// Name of the definition.
    pub name: Arc<str>,
    /// The machine this runs on.
    pub platform: Arc<Platform>,
    inner: Mutex<Inner>,
    /// Serialises changes of limits, which read, decide and write.
    limits: tokio::sync::Mutex<()>,
    /// Serialises changes of what is kept on disk.
    keeping: Mutex<()>,
    /// Held from the end of its definition until all that was kept of it is forgotten.
    ending: Arc<tokio::sync::Mutex<()>>,
}

struct Inner {
    definition: Arc<Definition>,
    owner: Arc<str>,
    machine: Machine,
    held: Vec<oneshot::Sender<Result<Ready, Refused>>>,
    /// Told whenever the state has changed, or a request begins to wait for an end.
    changed: Vec<oneshot::Sender<()>>,
    container: Option<Arc<Container>>,
    kept: Kept,
    last_exit: Option<LastExit>,
    last_failure: Option<Failure>,
    last_request: Instant,
    /// When a request was last told where to connect.
    last_answer: Instant,
    dispatches: u64,
    /// Requests that wait for the server of a container that is there.
    waiting: usize,
    /// Of the dispatches, those that are not accounted yet.
    asked: Asked,
    /// Of these, how many came before the present container listened.
    dispatches_before: u64,
    /// The definition is gone.
    withdrawn: bool,
    starts: u64,
    abort: Arc<Notify>,
    /// Told when the keeper of its container has something to heed before what it waits for.
    attention: Arc<Notify>,
    last_range: u32,
    /// The limits that it has come up against.
    hits: Box<Hits>,
}

/// How the last start failed.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) because: Arc<str>,
    pub(crate) timed_out: bool,
}

impl Site {
    /// A vhost without a container.
    ///
    /// An error is that what the operator set cannot be read: a site that is to be down must not start for that.
    pub fn new(platform: Arc<Platform>, definition: Arc<Definition>) -> Result<Arc<Self>> {
        let name: Arc<str> = (&*definition.name).into();
        let mut kept: Kept = persist::read(&platform.kept_path(&name))?.unwrap_or_default();
        kept.follow(&definition);
        let owner: Arc<str> = (&*definition.owner).into();
        let last_exit = persist::read(&platform.last_exit_path(&name))
            .ok()
            .flatten();
        let inner = Inner {
            machine: Machine::new(kept.down),
            definition,
            owner,
            held: Vec::new(),
            changed: Vec::new(),
            container: None,
            kept,
            last_exit,
            last_failure: None,
            last_request: Instant::now(),
            last_answer: Instant::now(),
            dispatches: 0,
            waiting: 0,
            asked: Asked::default(),
            dispatches_before: 0,
            withdrawn: false,
            starts: 0,
            abort: Arc::default(),
            attention: Arc::default(),
            last_range: 0,
            hits: Box::default(),
        };
        Ok(Arc::new(Self {
            name,
            platform,
            inner: Mutex::new(inner),
            limits: tokio::sync::Mutex::new(()),
            keeping: Mutex::new(()),
            ending: Arc::default(),
        }))
    }

    /// The limits in force for its next start, or for its container.
    pub fn limits(&self) -> Limits {
        self.lock().effective_limits(&self.platform.config.limits)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The definition in force.
    pub fn definition(&self) -> Arc<Definition> {
        self.lock().definition.clone()
    }

    /// Its owner.
    pub fn owner(&self) -> Arc<str> {
        self.lock().owner.clone()
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.lock().machine.state()
    }

    /// The container, if there is one.
    pub fn container(&self) -> Option<Arc<Container>> {
        self.lock().container.clone()
    }

    /// Tells the site that something happened.
    pub(crate) fn feed(self: &Arc<Self>, event: Event) -> Verdict {
        self.step(&mut self.lock(), event)
    }

    /// [`Self::feed`], unless another container than `container` is in place meanwhile.
    pub(crate) fn feed_about(
        self: &Arc<Self>,
        container: &Arc<Container>,
        event: Event,
    ) -> Verdict {
        let mut inner = self.lock();
        if !inner
            .container
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, container))
        {
            return Verdict::Stale;
        }
        self.step(&mut inner, event)
    }

    fn step(self: &Arc<Self>, inner: &mut Inner, event: Event) -> Verdict {
        let before = inner.machine.state();
        let step = inner.machine.step(event, self.platform.uptime());
        for action in step.actions {
            self.perform(inner, action, event);
        }
        let after = inner.machine.state();
        if before != after {
            self.platform.live.follow(self, after);
            if before.rests() || after.rests() {
                self.follow_rung(inner);
                inner.attention.notify_one();
            }
            self.announce(inner, before, event);
        }
        step.verdict
    }

    /// A start has succeeded; false if nobody wants its container any more.
    fn take_ready(self: &Arc<Self>, container: &Arc<Container>) -> bool {
        let mut inner = self.lock();
        inner.last_range = container.record.range;
        inner.dispatches_before = inner.dispatches;
        inner.container = Some(container.clone());
        let wanted = self.step(&mut inner, Event::Ready) != Verdict::Stale;
        if !wanted {
            inner.container = None;
        }
        wanted
    }

    fn perform(self: &Arc<Self>, inner: &mut Inner, action: Action, cause: Event) {
        match action {
            Action::Launch => {
                inner.starts += 1;
                inner.abort = Arc::default();
                start::spawn(
                    self.clone(),
                    inner.definition.clone(),
                    inner.effective_limits(&self.platform.config.limits),
                    inner.abort.clone(),
                );
            }
            Action::AbortStart => inner.abort.notify_one(),
            Action::Terminate => {
                let how = match cause {
                    Event::Recycle | Event::Restart => stop::How::Replaced,
                    Event::IdleStop | Event::PressureStop => stop::How::Unused,
                    _ => stop::How::Gracefully,
                };
                stop::spawn(self.clone(), inner.container.clone(), how);
            }
            Action::CleanUp => stop::spawn(
                self.clone(),
                inner.container.clone(),
                stop::How::AlreadyDead,
            ),
            Action::Freeze | Action::Thaw => {
                let Some(container) = &inner.container else {
                    return;
                };
                let freeze = action == Action::Freeze;
                if freeze {
                    self.watch_for_data(container);
                }
                if let Err(error) = container.set_frozen(freeze) {
                    tracing::error!("{}: {error:#}", self.name);
                }
            }
            Action::Reclaim => {
                if let Some(container) = &inner.container {
                    crate::ladder::reclaim(self.clone(), container);
                }
            }
            Action::AnswerHeld => {
                let Some(container) = inner.container.clone() else {
                    return;
                };
                let ready = Ready {
                    container,
                    cold: true,
                };
                inner.answered();
                for waiting in inner.held.drain(..) {
                    // Err: the asker has hung up.
                    let _ = waiting.send(Ok(ready.clone()));
                }
            }
            Action::RefuseHeld(refusal) => {
                let refused = inner.refused(refusal);
                for waiting in inner.held.drain(..) {
                    let _ = waiting.send(Err(refused.clone()));
                }
            }
        }
    }

    fn announce(&self, inner: &mut Inner, before: State, cause: Event) {
        let after = inner.machine.state();
        let cause = cause.words();
        tracing::debug!(
            "{}: {} -> {} ({cause})",
            self.name,
            before.word(),
            after.word()
        );
        let mut more = json!({"from": before.word(), "to": after.word(), "cause": cause});
        if let State::Failed { .. } = after
            && let Some(failure) = &inner.last_failure
        {
            more["detail"] = json!(&*failure.because);
        }
        self.platform
            .events
            .emit("state", Some((&self.name, &inner.owner)), more);
        inner.tell_change();
    }

    /// Waits until nothing is under way; returns the state then.
    pub async fn settled(&self) -> State {
        self.until(State::settled).await
    }

    /// Waits until its definition and its container are gone, however long the container is stuck.
    pub async fn until_gone(&self) {
        self.until(|state| state == State::Gone).await;
    }

    async fn until(&self, reached: impl Fn(State) -> bool) -> State {
        let state = |inner: &Inner| Some(inner.machine.state()).filter(|state| reached(*state));
        self.until_so(state).await
    }

    /// Waits until requests wait for a start, or for an end that a start follows.
    async fn until_held(&self) {
        let held = |inner: &Inner| (!inner.held.is_empty()).then_some(());
        self.until_so(held).await;
    }

    /// Waits until `ask` answers, which is asked whenever the state has changed or a request begins to wait for an end.
    async fn until_so<T>(&self, ask: impl Fn(&Inner) -> Option<T>) -> T {
        loop {
            let changed = {
                let mut inner = self.lock();
                if let Some(answer) = ask(&inner) {
                    return answer;
                }
                let (tell, told) = oneshot::channel();
                // Those who have given up make room: a site may rest for days.
                if inner.changed.len() == inner.changed.capacity() {
                    inner.changed.retain(|waiting| !waiting.is_closed());
                }
                inner.changed.push(tell);
                told
            };
            // Err cannot be: the sender lives in the site until it is told.
            let _ = changed.await;
        }
    }
}

impl Inner {
    /// Wakes whoever waits for a change.
    fn tell_change(&mut self) {
        for waiting in self.changed.drain(..) {
            let _ = waiting.send(());
        }
    }

    /// Whether the present container has had as many requests, since it listens, as it may have.
    fn is_worn(&self) -> bool {
        let most = self.definition.idle.max_requests;
        most.is_some_and(|most| self.dispatches - self.dispatches_before >= u64::from(most.get()))
    }

    /// A request has been told where to connect: from now on it may be on its way there.
    fn answered(&mut self) {
        self.last_answer = Instant::now();
        self.last_request = self.last_answer;
    }

    fn refused(&self, refusal: Refusal) -> Refused {
        let failure = self.last_failure.as_ref();
        Refused {
            refusal,
            because: failure.map(|f| f.because.clone()),
            timed_out: failure.is_some_and(|f| f.timed_out)
                && matches!(refusal, Refusal::StartFailed(_)),
        }
    }

    /// The host's defaults, above them the definition's, above them what the operator has set.
    fn effective_limits(&self, defaults: &Limits) -> Limits {
        let defined = self.definition.limits_over(defaults);
        if self.kept.temporary.is_empty() {
            return defined.merge(&self.kept.overrides);
        }
        defined.merge(&self.kept.overrides_at(crate::time::unix_millis()))
    }
}
