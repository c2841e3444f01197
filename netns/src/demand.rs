//! How many of something are worth keeping ready: as many as were taken lately, within bounds.

use std::time::{Duration, Instant};

/// What counts as lately: this long, and as long before that.
const WINDOW: Duration = Duration::from_secs(5);

/// Counts what is taken; costs nothing while nothing is.
#[derive(Debug, Clone)]
pub struct Demand {
    least: usize,
    most: usize,
    /// When the present window began.
    since: Option<Instant>,
    now: usize,
    before: usize,
}

impl Demand {
    /// Between `least` and `most` are wanted; `least` counts where it is more.
    #[must_use]
    pub fn new(least: usize, most: usize) -> Self {
        Self {
            least,
            most: most.max(least),
            since: None,
            now: 0,
            before: 0,
        }
    }

    /// One is taken.
    pub fn take(&mut self, at: Instant) {
        self.go_on(at);
        self.since.get_or_insert(at);
        self.now += 1;
    }

    /// How many are wanted.
    pub fn wanted(&mut self, at: Instant) -> usize {
        self.go_on(at);
        self.now.max(self.before).clamp(self.least, self.most)
    }

    /// When that may become fewer without anything being taken; `None` if it cannot.
    #[must_use]
    pub fn falls_at(&self) -> Option<Instant> {
        let more = self.now.max(self.before) > self.least;
        Some(self.since? + WINDOW).filter(|_| more)
    }

    fn go_on(&mut self, at: Instant) {
        let Some(since) = self.since else { return };
        let age = at.saturating_duration_since(since);
        if age < WINDOW {
            return;
        }
        if age < 2 * WINDOW {
            (self.before, self.now) = (self.now, 0);
            self.since = Some(since + WINDOW);
        } else {
            (self.before, self.now, self.since) = (0, 0, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_what_is_taken_within_bounds() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut demand = Demand::new(4, 20);
        assert_eq!((demand.wanted(began), demand.falls_at()), (4, None));
        (0..3).for_each(|_| demand.take(began));
        // No more than are kept anyway: nobody has to look again.
        assert_eq!((demand.wanted(after(1)), demand.falls_at()), (4, None));
        (0..9).for_each(|_| demand.take(after(1)));
        assert_eq!(demand.wanted(after(1)), 12);
        (0..99).for_each(|_| demand.take(after(2)));
        assert_eq!(demand.wanted(after(2)), 20);
        // The window is over, and then the next one.
        assert_eq!(demand.falls_at(), Some(after(5)));
        assert_eq!(demand.wanted(after(5)), 20);
        (0..7).for_each(|_| demand.take(after(6)));
        assert_eq!(demand.falls_at(), Some(after(10)));
        assert_eq!(demand.wanted(after(10)), 7);
        assert_eq!((demand.wanted(after(15)), demand.falls_at()), (4, None));
    }

    #[test]
    fn forgets_after_a_long_rest() {
        let began = Instant::now();
        let mut demand = Demand::new(1, 9);
        (0..5).for_each(|_| demand.take(began));
        assert_eq!(demand.wanted(began + Duration::from_secs(3600)), 1);
        // A clock that was read before another thread's changes nothing.
        demand.take(began + Duration::from_secs(3600));
        demand.take(began);
        assert_eq!(demand.wanted(began), 2);
        assert_eq!(Demand::new(3, 0).wanted(began), 3);
    }
}
