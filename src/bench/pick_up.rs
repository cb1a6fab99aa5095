//! How long a split waited for its handler.

use super::figure::rounded;
use super::payload::Job;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Nothing is told apart above this, in microseconds.
const LONGEST: u64 = 3_600_000_000;
/// Significant digits.
const DIGITS: u8 = 3;
/// Inserts that are remembered: more than can be under way.
const INSERTS: usize = 1 << 16;

/// Waits, in a histogram of high dynamic range.
pub struct Waits(Histogram<u64>);

/// What a histogram says, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    /// How many were measured.
    pub count: u64,
    /// The median.
    pub p50_ms: f64,
    /// One in ten is slower.
    pub p90_ms: f64,
    /// One in a hundred is slower.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl Default for Waits {
    fn default() -> Self {
        // These bounds are fine for any machine.
        Self(Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("constant bounds of a histogram"))
    }
}

impl Waits {
    /// One more, of so many microseconds.
    pub fn record(&mut self, micros: u64) {
        self.0.saturating_record(micros);
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Self) {
        // Of the same bounds, so it fits.
        let _ = self.0.add(&other.0);
    }

    /// What they say.
    pub fn percentiles(&self) -> Percentiles {
        let ms = |micros: u64| rounded(micros as f64 / 1e3, 3);
        let at = |quantile: f64| ms(self.0.value_at_quantile(quantile));
        Percentiles {
            count: self.0.len(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            max_ms: ms(self.0.max()),
        }
    }
}

/// When inserts were committed, and how long their splits waited from there, or, where inserts come at a rate, from
/// the moment at which they were meant to come: a queue that holds its producer up must not look fast by that.
pub struct Arrivals {
    began: Instant,
    committed: Vec<AtomicU64>,
    waits: Mutex<Waits>,
    from_intent: bool,
}

impl Arrivals {
    /// `from_intent`: waits begin when the insert was meant to be.
    pub fn new(from_intent: bool) -> Self {
        let committed = (0..INSERTS).map(|_| AtomicU64::new(0)).collect();
        Self { began: Instant::now(), committed, waits: Mutex::default(), from_intent }
    }

    /// The microsecond of the run.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The insert with this number begins.
    pub fn begin(&self, insert: u64) {
        self.slot(insert).store(0, Ordering::Release);
    }

    /// Its commit was heard.
    pub fn committed(&self, insert: u64) {
        self.slot(insert).store(self.now(), Ordering::Release);
    }

    /// A split's handler begins.
    pub fn seen(&self, job: &Job) {
        if job.task == 0 {
            return;
        }
        let now = self.now();
        let since = match self.from_intent {
            true => job.split,
            // Not heard yet: then the worker was faster than the answer.
            false => match self.slot(job.task).load(Ordering::Acquire) {
                0 => now,
                at => at,
            },
        };
        if let Ok(mut waits) = self.waits.lock() {
            waits.record(now.saturating_sub(since));
        }
    }

    /// What was recorded since the last call.
    pub fn take(&self) -> Waits {
        self.waits.lock().map(|mut waits| std::mem::take(&mut *waits)).unwrap_or_default()
    }

    fn slot(&self, insert: u64) -> &AtomicU64 {
        &self.committed[insert as usize % INSERTS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(task: u64, split: u64) -> Job {
        Job { task, split, uri: String::new() }
    }

    #[test]
    fn a_wait_begins_at_the_commit_or_at_the_intent() {
        let arrivals = Arrivals::new(false);
        arrivals.begin(1);
        arrivals.seen(&job(1, 0));
        arrivals.committed(1);
        arrivals.seen(&job(1, 0));
        arrivals.seen(&job(0, 0));
        let waits = arrivals.take().percentiles();
        assert_eq!(waits.count, 2);
        assert!(waits.max_ms < 1_000.0);
        assert_eq!(arrivals.take().percentiles().count, 0);

        let arrivals = Arrivals::new(true);
        while arrivals.now() < 2_000 {
            std::hint::spin_loop();
        }
        arrivals.seen(&job(1, 0));
        assert!(arrivals.take().percentiles().p50_ms >= 1.9);
    }
}
