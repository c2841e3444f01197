//! The life of one vhost as a pure state machine: states × events, every pair explicit, no I/O, no clock.
//!
//! ```text
//!                                                               +------------------------------------------+
//!                                                               v           thaw, request, data            |
//!                  request, start                    ready                freeze, idle          idle,      |
//!        Stopped ----------------> Starting -----------------> Running <-----------> Frozen --------> Reclaimed
//!          ^  ^                      |  |                         |    thaw, request,  |   pressure       |
//!          |  |          start failed|  |stop, down, restart      |                    |                  |
//!          |  |                      v  |                         |stop, down, restart, idle, pressure,   |
//!          |  +--- stop ---------- Failed  \                      v recycle, withdraw, exited             v
//!          |                         ^       +-------------> Stopping(after) <-----------------------------+
//!          |                         | after = Crashed         |   |
//!          +--- after = Sleep -------+-------------------------+   | unkillable
//!               after = Down -> Down, after = Start -> Starting    v
//!               after = Gone -> Gone                          Stuck(after)
//! ```
//!
//! Invariants, checked by the property tests:
//! * there is at most one container: `Launch` is only ever emitted when the last one has been reported gone;
//! * requests are held only in `Starting` and `Stopping`; on every way out of these each is answered;
//! * `Down` is left only by the operator, `Gone` never.

mod backoff;
#[cfg(test)]
mod ladder_tests;
mod step;
#[cfg(test)]
mod tests;
mod words;

use std::time::Duration;

pub use backoff::Backoff;

/// Where a vhost is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No container; a request wakes it.
    Stopped,
    /// A container is being made or does not listen yet.
    Starting,
    /// Listens.
    Running,
    /// All its processes are frozen; a request thaws it.
    Frozen,
    /// Frozen, and its memory has been given back or is being so; a request thaws it.
    Reclaimed,
    /// Being ended; `After` says what comes then.
    Stopping(After),
    /// No container, and none is started until the operator says so.
    Down,
    /// The last start (or several lives in a row) failed; no new start before `until` (time since the agent's start).
    Failed {
        /// End of the back-off.
        until: Duration,
    },
    /// The container cannot be ended, usually because a process waits for dead storage.
    Stuck(After),
    /// The definition is gone and so is the container.
    Gone,
}

/// How awake a living container is: the rungs of the idle ladder above "stopped".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// Listens.
    Running,
    /// Its processes are frozen.
    Frozen,
    /// And their memory has been given back.
    Reclaimed,
}

/// What follows when a container has been ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Stopped; started again if requests are held by then.
    Sleep,
    /// Down.
    Down,
    /// A new start.
    Start,
    /// It ended by itself: back-off decides between stopped, failed and a new start for held requests.
    Crashed,
    /// The definition was withdrawn.
    Gone,
}

/// What can happen to a vhost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A dispatch request.
    Request,
    /// Operator: start now (lifts `down`).
    Start,
    /// Operator: end the container, a request may wake it again.
    Stop,
    /// Operator: lift `down`.
    Up,
    /// Operator: end it and keep it ended.
    Down,
    /// Operator: end it and start it again.
    Restart,
    /// Operator: freeze.
    Freeze,
    /// Operator: thaw.
    Thaw,
    /// The start task: the container listens.
    Ready,
    /// The start task: the start failed and nothing is left of it.
    StartFailed,
    /// The start task: others went first until its time was over; nothing was made.
    NotBegun,
    /// The container ended by itself while it was running or frozen.
    Exited,
    /// Everything the container owned is gone.
    Ended,
    /// The container could not be ended in time.
    Unkillable,
    /// Idle for its time: stop it.
    IdleStop,
    /// Idle for its time: freeze it.
    IdleFreeze,
    /// Frozen for its time: give its memory back.
    IdleReclaim,
    /// Memory is scarce and it is idle: freeze it.
    PressureFreeze,
    /// Memory is scarce and it is frozen: give its memory back.
    PressureReclaim,
    /// Memory is scarce and it rests: stop it.
    PressureStop,
    /// Data has come on a connection to one that rests.
    Arrival,
    /// Too old, or its definition changed: end it once it is unused.
    Recycle,
    /// The definition was removed.
    Withdraw,
}

/// All events, for exhaustive tests.
#[cfg(test)]
pub(crate) const ALL_EVENTS: [Event; 23] = [
    Event::Request,
    Event::Start,
    Event::Stop,
    Event::Up,
    Event::Down,
    Event::Restart,
    Event::Freeze,
    Event::Thaw,
    Event::Ready,
    Event::StartFailed,
    Event::NotBegun,
    Event::Exited,
    Event::Ended,
    Event::Unkillable,
    Event::IdleStop,
    Event::IdleFreeze,
    Event::IdleReclaim,
    Event::PressureFreeze,
    Event::PressureReclaim,
    Event::PressureStop,
    Event::Arrival,
    Event::Recycle,
    Event::Withdraw,
];

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Kept down by the operator.
    Down,
    /// Backing off; may be tried again after the given time.
    BackingOff(Duration),
    /// The start that the request waited for failed; a new one is possible after the given time.
    StartFailed(Duration),
    /// Ended by the operator while the request waited.
    Stopped,
    /// Cannot be ended.
    Stuck,
    /// The definition is gone.
    Unknown,
    /// The verb does not fit the state.
    NotRunning,
    /// Its start was not begun in time, since others went first.
    NotBegun,
    /// Too many requests wait for starts already; decided by the runner, not by the machine.
    Overloaded,
}

/// What the runner has to do, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Begin a start.
    Launch,
    /// Break off the start under way; it reports `Ended` or `Unkillable`.
    AbortStart,
    /// End the container gracefully; reports `Ended` or `Unkillable`.
    Terminate,
    /// The container is dead: remove what it owned; reports `Ended` or `Unkillable`.
    CleanUp,
    /// Freeze all processes.
    Freeze,
    /// Thaw all processes.
    Thaw,
    /// Give the memory of the frozen processes back.
    Reclaim,
    /// All held requests: where to connect.
    AnswerHeld,
    /// All held requests: refused.
    RefuseHeld(Refusal),
}

/// The answer to the one who caused an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A request: connect now. A verb: done or under way.
    Go,
    /// A request: it is held and will be answered.
    Hold,
    /// Refused, nothing changed.
    Refuse(Refusal),
    /// The event has no meaning in this state (a report that was overtaken); nothing changed.
    Stale,
}

/// Result of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What to do, in order.
    pub actions: Vec<Action>,
    /// What to answer.
    pub verdict: Verdict,
}

/// The machine: a state, whether requests are held, and the failures in a row.
#[derive(Debug, Clone)]
pub struct Machine {
    state: State,
    held: bool,
    backoff: Backoff,
    /// When the current life began to listen.
    ready_at: Option<Duration>,
}

impl Machine {
    /// A vhost without a container.
    pub fn new(down: bool) -> Self {
        Self::with(if down { State::Down } else { State::Stopped })
    }

    /// A vhost whose container was found alive at the agent's start.
    pub fn adopted(rung: Rung, now: Duration) -> Self {
        let mut machine = Self::with(match rung {
            Rung::Running => State::Running,
            Rung::Frozen => State::Frozen,
            Rung::Reclaimed => State::Reclaimed,
        });
        machine.ready_at = Some(now);
        machine
    }

    /// A vhost whose container was found but has to go first.
    pub fn leftover(after: After) -> Self {
        Self::with(State::Stopping(after))
    }

    fn with(state: State) -> Self {
        Self {
            state,
            held: false,
            backoff: Backoff::default(),
            ready_at: None,
        }
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.state
    }

    /// Failed starts and early deaths in a row.
    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }
}
