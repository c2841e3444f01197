//! What states and events are called, and what is asked of a state.

use super::{After, Event, Rung, State};

impl Event {
    /// What it is called in events and logs.
    pub fn words(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Up => "up",
            Self::Down => "down",
            Self::Restart => "restart",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
            Self::Ready => "ready",
            Self::StartFailed => "start failed",
            Self::NotBegun => "not begun in time",
            Self::Exited => "exited",
            Self::Ended => "ended",
            Self::Unkillable => "cannot be ended",
            Self::IdleStop | Self::IdleFreeze | Self::IdleReclaim => "idle",
            Self::PressureFreeze | Self::PressureReclaim | Self::PressureStop => "memory pressure",
            Self::Arrival => "data on a connection",
            Self::Recycle => "recycled",
            Self::Withdraw => "definition removed",
        }
    }
}

impl State {
    /// All words for states.
    pub const WORDS: [&'static str; 9] = [
        "running",
        "frozen",
        "reclaimed",
        "starting",
        "stopping",
        "stopped",
        "down",
        "failed",
        "stuck",
    ];

    /// The word for users (MISSION D7).
    pub fn word(self) -> &'static str {
        match self {
            Self::Stopped | Self::Gone => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Frozen => "frozen",
            Self::Reclaimed => "reclaimed",
            Self::Stopping(_) => "stopping",
            Self::Down => "down",
            Self::Failed { .. } => "failed",
            Self::Stuck(_) => "stuck",
        }
    }

    /// Its rung of the idle ladder, if it has a container that is not being made or ended.
    pub fn rung(self) -> Option<Rung> {
        match self {
            Self::Running => Some(Rung::Running),
            Self::Frozen => Some(Rung::Frozen),
            Self::Reclaimed => Some(Rung::Reclaimed),
            _ => None,
        }
    }

    /// Its processes are frozen.
    pub fn rests(self) -> bool {
        self.rung().is_some_and(|rung| rung > Rung::Running)
    }

    /// Nothing is under way that will change it by itself soon.
    pub fn settled(self) -> bool {
        !matches!(self, Self::Starting | Self::Stopping(_))
    }

    /// The operator wants it down (now or once it has ended).
    pub fn wanted_down(self) -> bool {
        matches!(
            self,
            Self::Down | Self::Stopping(After::Down) | Self::Stuck(After::Down)
        )
    }
}
