//! How long a vhost that keeps failing is left alone.

use std::time::Duration;

/// A container that listened this long counts as healthy: its end starts the count anew.
pub(super) const HEALTHY: Duration = Duration::from_secs(30);

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row and the delay they earn: 1 s, 2 s, 4 s … 60 s. The first crash of a container that did
/// listen earns none, so that a site that ran out of memory is back with the next request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Failures in a row.
    pub fn failures(self) -> u32 {
        self.failures
    }

    /// Forget them.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// A start that never came to listen; the delay until the next may be tried.
    pub fn start_failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        delay(self.failures)
    }

    /// A container that had listened for `uptime` ended by itself.
    pub fn crashed(&mut self, uptime: Duration) -> Duration {
        if uptime >= HEALTHY {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            Duration::ZERO
        } else {
            delay(self.failures - 1)
        }
    }
}

fn delay(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (FIRST * 2u32.pow(doublings)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_bound_and_resets() {
        let mut backoff = Backoff::default();
        let delays: Vec<u64> = (0..9).map(|_| backoff.start_failed().as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        backoff.reset();
        assert_eq!(backoff.start_failed().as_secs(), 1);
    }

    #[test]
    fn the_first_crash_of_a_listening_container_is_free() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.crashed(Duration::from_secs(2)), Duration::ZERO);
        assert_eq!(backoff.crashed(Duration::from_secs(2)).as_secs(), 1);
        assert_eq!(backoff.crashed(Duration::from_secs(2)).as_secs(), 2);
        assert_eq!(backoff.crashed(HEALTHY), Duration::ZERO);
    }
}
