//! When to look again without being woken.

use super::pace::BRISK_LOOK;
use crate::jitter::about;
use std::time::Duration;

/// After a look that found something. Until one finds nothing the database doesn't know that we wait, and wakes nobody.
const FOUND_SOME: Duration = BRISK_LOOK;
/// What is ready and can't be claimed: somebody has it locked. A wait of zero would be a busy loop.
const IN_VAIN_FIRST: Duration = Duration::from_millis(5);
const IN_VAIN_MOST: Duration = Duration::from_millis(100);

/// The pauses between looks that nobody asks for.
#[derive(Debug)]
pub(super) struct Pauses {
    poll: Duration,
    in_vain: Duration,
}

impl Pauses {
    /// `poll`: the longest, or about that.
    pub(super) fn new(poll: Duration) -> Self {
        Self { poll, in_vain: IN_VAIN_FIRST }
    }

    /// After a look that took so many splits, or else was told how long nothing is expected; not told: for the poll
    /// interval, or about that.
    pub(super) fn after(&mut self, taken: usize, expected: Option<Duration>) -> Duration {
        let vain = taken == 0 && expected.is_some_and(|expected| expected.is_zero());
        if vain {
            let pause = self.in_vain;
            self.in_vain = (pause * 2).min(IN_VAIN_MOST);
            return pause;
        }
        self.in_vain = IN_VAIN_FIRST;
        if taken > 0 {
            return FOUND_SOME;
        }
        let poll = about(self.poll);
        expected.map_or(poll, |expected| expected.min(poll))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_secs(2);

    #[test]
    fn looks_in_vain_grow_apart_to_a_bound_and_begin_anew() {
        let mut pauses = Pauses::new(POLL);
        let vain: Vec<_> = (0..7).map(|_| pauses.after(0, Some(Duration::ZERO)).as_millis()).collect();
        assert_eq!(vain, [5, 10, 20, 40, 80, 100, 100]);
        assert_eq!(pauses.after(1, None), FOUND_SOME);
        assert_eq!(pauses.after(0, Some(Duration::ZERO)), IN_VAIN_FIRST);
    }

    #[test]
    fn what_is_expected_is_waited_for_and_no_longer_than_the_poll_interval() {
        let mut pauses = Pauses::new(POLL);
        let soon = Duration::from_millis(700);
        assert_eq!(pauses.after(0, Some(soon)), soon);
        for expected in [None, Some(Duration::from_secs(60))] {
            let pause = pauses.after(0, expected);
            assert!(pause >= POLL.mul_f64(0.8) && pause <= POLL.mul_f64(1.2), "{expected:?}: {pause:?}");
        }
    }
}
