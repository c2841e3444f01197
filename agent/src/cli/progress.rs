//! A line of progress for what takes longer than a second.
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::screen::Screen;
use super::text;

/// Nothing is shown before.
const PATIENCE: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(100);
const WHEEL: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// Waits for the work; on a terminal, tells what is being waited for.
pub(crate) async fn watch<F: Future>(screen: &mut Screen, what: &str, work: F) -> F::Output {
    if !screen.err_is_terminal {
        return work.await;
    }
    let what = text::clean(what).into_owned();
    let begin = Instant::now();
    let mut ticks = tokio::time::interval_at(begin + PATIENCE, STEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut work = std::pin::pin!(work);
    let mut shown = 0;
    let result = loop {
        tokio::select! {
            biased;
            result = &mut work => break result,
            _ = ticks.tick() => {
                let wheel = WHEEL[shown % WHEEL.len()];
                screen.progress(&format!("{wheel} {what} … {} s", begin.elapsed().as_secs()));
                shown += 1;
            }
        }
    };
    if shown > 0 {
        screen.progress("");
    }
    result
}
