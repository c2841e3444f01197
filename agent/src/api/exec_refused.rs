//! Why a command is not run.

use std::time::Duration;

use super::problem::Problem;
use crate::machine::{After, State};
use crate::spawner::SpawnError;

/// When to try again while the site starts or is being ended.
const RETRY: Duration = Duration::from_secs(1);

/// There is no container to run it in, or not for much longer.
pub(super) fn not_running(state: State, name: &str) -> Problem {
    let problem = match state {
        State::Starting | State::Stopping(After::Sleep | After::Start | After::Crashed) => {
            let detail = format!(
                "{name} is {}; try again when it runs, `fastctl start {name}` waits for that",
                state.word()
            );
            Problem::unavailable("not-running", "Not running now", detail, RETRY)
        }
        _ => Problem::conflict(format!(
            "{name} is not running; `fastctl start {name}` starts it"
        )),
    };
    problem.about(name)
}

/// A command that does not exist is the asker's mistake, everything else is not.
pub(super) fn not_run(error: &anyhow::Error, name: &str, command: &str) -> Problem {
    let what = format!("cannot run {command:?} in {name}: {error:#}");
    let problem = match error.downcast_ref() {
        Some(SpawnError::Refused(failure)) if failure.step == "execute" => {
            Problem::bad_request(what)
        }
        _ => Problem::internal(what),
    };
    problem.about(name)
}
