//! How fast work comes in.

use std::time::Duration;
use tokio::time::Instant;

/// Arrivals are counted over this long.
const WINDOW: Duration = Duration::from_millis(100);
/// So many in a window: producers that wake would pay more than a look every few milliseconds costs.
const BRISK: usize = 50;
/// How often to look while work comes in briskly.
pub(super) const BRISK_LOOK: Duration = Duration::from_millis(4);

/// Counts what was claimed.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    now: usize,
    before: usize,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, now: 0, before: 0 }
    }

    /// So many splits were claimed.
    pub(super) fn took(&mut self, splits: usize, now: Instant) {
        self.turn(now);
        self.now += splits;
    }

    /// Work comes in so fast that the worker needs nobody to wake it: the next look finds some.
    pub(super) fn is_brisk(&mut self, now: Instant) -> bool {
        self.turn(now);
        self.now.max(self.before) >= BRISK
    }

    fn turn(&mut self, now: Instant) {
        let passed = now.duration_since(self.since);
        if passed >= WINDOW {
            self.before = if passed < 2 * WINDOW { self.now } else { 0 };
            (self.now, self.since) = (0, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_brisk_until_it_has_been_over_for_a_moment() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.took(BRISK - 1, start);
        assert!(!pace.is_brisk(start));
        pace.took(1, start);
        assert!(pace.is_brisk(start));
        assert!(pace.is_brisk(start + WINDOW));
        assert!(!pace.is_brisk(start + 2 * WINDOW));
    }
}
