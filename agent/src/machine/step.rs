//! The table: what every event does in every state.

use std::time::Duration;

use super::{Action, After, Event, Machine, Refusal, State, Step, Verdict};
use Action::{
    AbortStart, AnswerHeld, CleanUp, Freeze, Launch, Reclaim, RefuseHeld, Terminate, Thaw,
};

/// What the ladder says, in patterns of states that are not on it.
macro_rules! ladder {
    () => {
        Event::IdleStop
            | Event::IdleFreeze
            | Event::IdleReclaim
            | Event::PressureFreeze
            | Event::PressureReclaim
            | Event::PressureStop
            | Event::Arrival
    };
}

impl Machine {
    /// Feeds one event at time `now` (since the agent's start).
    pub fn step(&mut self, event: Event, now: Duration) -> Step {
        let step = match self.state {
            State::Stopped => self.in_stopped(event),
            State::Starting => self.in_starting(event, now),
            State::Running => self.in_running(event),
            State::Frozen => self.in_frozen(event),
            State::Reclaimed => self.in_reclaimed(event),
            State::Stopping(after) => self.in_stopping(after, event, now),
            State::Down => self.in_down(event),
            State::Failed { until } => self.in_failed(until, event, now),
            State::Stuck(after) => self.in_stuck(after, event, now),
            State::Gone => refuse(Refusal::Unknown),
        };
        if step.verdict == Verdict::Hold {
            self.held = true;
        }
        if step
            .actions
            .iter()
            .any(|a| matches!(a, AnswerHeld | RefuseHeld(_)))
        {
            self.held = false;
        }
        step
    }

    fn in_stopped(&mut self, event: Event) -> Step {
        match event {
            Event::Request => self.launch(Verdict::Hold),
            Event::Start | Event::Restart => self.launch(Verdict::Go),
            Event::Down => self.to(State::Down, []),
            Event::Withdraw => self.to(State::Gone, []),
            Event::Stop | Event::Up => go(),
            Event::Freeze | Event::Thaw => refuse(Refusal::NotRunning),
            ladder!() | Event::Recycle => stale(),
            Event::Ready
            | Event::StartFailed
            | Event::NotBegun
            | Event::Exited
            | Event::Ended
            | Event::Unkillable => stale(),
        }
    }

    fn in_starting(&mut self, event: Event, now: Duration) -> Step {
        match event {
            Event::Request => hold(),
            Event::Start | Event::Up | Event::Thaw => go(),
            Event::Stop => self.to(
                State::Stopping(After::Sleep),
                [AbortStart, RefuseHeld(Refusal::Stopped)],
            ),
            Event::Down => self.to(
                State::Stopping(After::Down),
                [AbortStart, RefuseHeld(Refusal::Down)],
            ),
            Event::Restart | Event::Recycle => self.to(State::Stopping(After::Start), [AbortStart]),
            Event::Freeze => refuse(Refusal::NotRunning),
            Event::Ready => {
                self.ready_at = Some(now);
                self.to(State::Running, [AnswerHeld])
            }
            Event::StartFailed => {
                let delay = self.backoff.start_failed();
                self.to(
                    State::Failed { until: now + delay },
                    [RefuseHeld(Refusal::StartFailed(delay))],
                )
            }
            // No fault of the site's: the next request tries again.
            Event::NotBegun => self.to(State::Stopped, [RefuseHeld(Refusal::NotBegun)]),
            Event::Unkillable => self.to(State::Stuck(After::Sleep), [RefuseHeld(Refusal::Stuck)]),
            Event::Withdraw => self.to(
                State::Stopping(After::Gone),
                [AbortStart, RefuseHeld(Refusal::Unknown)],
            ),
            Event::Exited | Event::Ended | ladder!() => stale(),
        }
    }

    fn in_running(&mut self, event: Event) -> Step {
        match event {
            Event::Request | Event::Start | Event::Up | Event::Thaw => go(),
            Event::Stop | Event::IdleStop | Event::Recycle => {
                self.to(State::Stopping(After::Sleep), [Terminate])
            }
            Event::Down => self.to(State::Stopping(After::Down), [Terminate]),
            Event::Restart => self.to(State::Stopping(After::Start), [Terminate]),
            Event::Withdraw => self.to(State::Stopping(After::Gone), [Terminate]),
            Event::Freeze | Event::IdleFreeze | Event::PressureFreeze => {
                self.to(State::Frozen, [Freeze])
            }
            Event::Exited => self.to(State::Stopping(After::Crashed), [CleanUp]),
            // These are about those that rest.
            Event::IdleReclaim | Event::PressureReclaim | Event::PressureStop => stale(),
            Event::Arrival => stale(),
            Event::Ready
            | Event::StartFailed
            | Event::NotBegun
            | Event::Ended
            | Event::Unkillable => stale(),
        }
    }

    fn in_frozen(&mut self, event: Event) -> Step {
        match event {
            Event::IdleReclaim | Event::PressureReclaim => self.to(State::Reclaimed, [Reclaim]),
            _ => self.in_reclaimed(event),
        }
    }

    /// Frozen or reclaimed: all that leads up or out is the same. Thawed before it is asked to end, as it could not hear that.
    fn in_reclaimed(&mut self, event: Event) -> Step {
        match event {
            Event::Request | Event::Start | Event::Thaw | Event::Arrival => {
                self.to(State::Running, [Thaw])
            }
            Event::Freeze | Event::Up => go(),
            Event::Stop | Event::IdleStop | Event::PressureStop | Event::Recycle => {
                self.to(State::Stopping(After::Sleep), [Thaw, Terminate])
            }
            Event::Down => self.to(State::Stopping(After::Down), [Thaw, Terminate]),
            Event::Restart => self.to(State::Stopping(After::Start), [Thaw, Terminate]),
            Event::Withdraw => self.to(State::Stopping(After::Gone), [Thaw, Terminate]),
            Event::Exited => self.to(State::Stopping(After::Crashed), [Thaw, CleanUp]),
            Event::IdleFreeze | Event::PressureFreeze => stale(),
            Event::IdleReclaim | Event::PressureReclaim => stale(),
            Event::Ready
            | Event::StartFailed
            | Event::NotBegun
            | Event::Ended
            | Event::Unkillable => stale(),
        }
    }

    fn in_stopping(&mut self, after: After, event: Event, now: Duration) -> Step {
        match event {
            Event::Request => match after {
                After::Sleep | After::Start | After::Crashed => hold(),
                After::Down => refuse(Refusal::Down),
                After::Gone => refuse(Refusal::Unknown),
            },
            Event::Start | Event::Restart => match after {
                After::Gone => refuse(Refusal::Unknown),
                _ => self.to(State::Stopping(After::Start), []),
            },
            Event::Stop => match after {
                After::Down | After::Gone => go(),
                _ => self.to(
                    State::Stopping(After::Sleep),
                    [RefuseHeld(Refusal::Stopped)],
                ),
            },
            Event::Down => match after {
                After::Gone => refuse(Refusal::Unknown),
                _ => self.to(State::Stopping(After::Down), [RefuseHeld(Refusal::Down)]),
            },
            Event::Up => match after {
                After::Down => self.to(State::Stopping(After::Sleep), []),
                _ => go(),
            },
            Event::Withdraw => {
                self.to(State::Stopping(After::Gone), [RefuseHeld(Refusal::Unknown)])
            }
            Event::Freeze | Event::Thaw => refuse(Refusal::NotRunning),
            // A start that was to be broken off may have failed by itself just then.
            Event::Ended | Event::StartFailed | Event::NotBegun => self.ended(after, now),
            Event::Unkillable => self.to(State::Stuck(after), [RefuseHeld(Refusal::Stuck)]),
            Event::Ready | Event::Exited => stale(),
            ladder!() | Event::Recycle => stale(),
        }
    }

    fn in_down(&mut self, event: Event) -> Step {
        match event {
            Event::Request | Event::Restart => refuse(Refusal::Down),
            Event::Start => self.launch(Verdict::Go),
            Event::Up => self.to(State::Stopped, []),
            Event::Withdraw => self.to(State::Gone, []),
            Event::Stop | Event::Down => go(),
            Event::Freeze | Event::Thaw => refuse(Refusal::NotRunning),
            ladder!() | Event::Recycle => stale(),
            Event::Ready
            | Event::StartFailed
            | Event::NotBegun
            | Event::Exited
            | Event::Ended
            | Event::Unkillable => stale(),
        }
    }

    fn in_failed(&mut self, until: Duration, event: Event, now: Duration) -> Step {
        match event {
            Event::Request if now >= until => self.launch(Verdict::Hold),
            Event::Request => refuse(Refusal::BackingOff(until - now)),
            Event::Start | Event::Restart => self.launch(Verdict::Go),
            // A new definition deserves a fresh try, and so does a stop by hand.
            Event::Stop | Event::Up | Event::Recycle => {
                self.backoff.reset();
                self.to(State::Stopped, [])
            }
            Event::Down => self.to(State::Down, []),
            Event::Withdraw => self.to(State::Gone, []),
            Event::Freeze | Event::Thaw => refuse(Refusal::NotRunning),
            ladder!() => stale(),
            Event::Ready
            | Event::StartFailed
            | Event::NotBegun
            | Event::Exited
            | Event::Ended
            | Event::Unkillable => stale(),
        }
    }

    fn in_stuck(&mut self, after: After, event: Event, now: Duration) -> Step {
        match event {
            Event::Request | Event::Start | Event::Restart | Event::Freeze | Event::Thaw => {
                refuse(Refusal::Stuck)
            }
            Event::Stop => match after {
                After::Down | After::Gone => go(),
                _ => self.to(State::Stuck(After::Sleep), []),
            },
            Event::Down => match after {
                After::Gone => refuse(Refusal::Unknown),
                _ => self.to(State::Stuck(After::Down), []),
            },
            Event::Up => match after {
                After::Down => self.to(State::Stuck(After::Sleep), []),
                _ => go(),
            },
            Event::Withdraw => self.to(State::Stuck(After::Gone), []),
            Event::Ended | Event::StartFailed | Event::NotBegun => self.ended(
                if after == After::Start {
                    After::Sleep
                } else {
                    after
                },
                now,
            ),
            Event::Unkillable => go(),
            Event::Ready | Event::Exited => stale(),
            ladder!() | Event::Recycle => stale(),
        }
    }

    /// The container is gone; what comes next.
    fn ended(&mut self, after: After, now: Duration) -> Step {
        let uptime = self.ready_at.take().map(|at| now.saturating_sub(at));
        match after {
            After::Sleep if self.held => self.launch(Verdict::Go),
            After::Sleep => self.to(State::Stopped, []),
            After::Start => self.launch(Verdict::Go),
            After::Down => self.to(State::Down, []),
            After::Gone => self.to(State::Gone, []),
            After::Crashed => {
                let delay = self.backoff.crashed(uptime.unwrap_or_default());
                if !delay.is_zero() {
                    let refusal = RefuseHeld(Refusal::BackingOff(delay));
                    self.to(State::Failed { until: now + delay }, [refusal])
                } else if self.held {
                    self.launch(Verdict::Go)
                } else {
                    self.to(State::Stopped, [])
                }
            }
        }
    }

    fn launch(&mut self, verdict: Verdict) -> Step {
        self.state = State::Starting;
        Step {
            actions: vec![Launch],
            verdict,
        }
    }

    fn to<const N: usize>(&mut self, state: State, actions: [Action; N]) -> Step {
        self.state = state;
        Step {
            actions: actions.to_vec(),
            verdict: Verdict::Go,
        }
    }
}

fn go() -> Step {
    Step {
        actions: Vec::new(),
        verdict: Verdict::Go,
    }
}

fn hold() -> Step {
    Step {
        actions: Vec::new(),
        verdict: Verdict::Hold,
    }
}

fn stale() -> Step {
    Step {
        actions: Vec::new(),
        verdict: Verdict::Stale,
    }
}

fn refuse(refusal: Refusal) -> Step {
    Step {
        actions: Vec::new(),
        verdict: Verdict::Refuse(refusal),
    }
}
