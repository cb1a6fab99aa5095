//! What this process has answered, for `/metrics`: counted by route, never by path, so that nobody outside can make it long.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// Upper bounds of the classes of durations, in seconds.
pub(super) const BOUNDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0];

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    counts: Mutex<Counts>,
}

/// A copy of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    /// By method, path of the route and status.
    pub(super) answers: BTreeMap<(String, &'static str, u16), u64>,
    /// How many took at most as long as the bound of the same place, and longer than the one before; the last: longer than all.
    pub(super) took: [u64; BOUNDS.len() + 1],
    /// How long all of them took.
    pub(super) total: Duration,
}

impl Counters {
    /// One more answer.
    pub(super) fn add(&self, method: &str, path: &'static str, status: u16, took: Duration) {
        let Ok(mut counts) = self.counts.lock() else { return };
        *counts.answers.entry((method.to_owned(), path, status)).or_default() += 1;
        let seconds = took.as_secs_f64();
        let class = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        counts.took[class] += 1;
        counts.total += took;
    }

    /// The counts now.
    pub(super) fn now(&self) -> Counts {
        self.counts.lock().map(|counts| counts.clone()).unwrap_or_default()
    }
}
