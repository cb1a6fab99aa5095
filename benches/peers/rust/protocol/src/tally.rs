use crate::Job;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Jobs that can be told from one another; `steady` reuses the numbers in turn.
const NUMBERS: usize = 1 << 22;

/// What the handlers did. Cheap to clone.
#[derive(Clone)]
pub struct Tally(Arc<Inner>);

struct Inner {
    calls: AtomicU64,
    /// How often each number was seen, in steps of 256.
    seen: Vec<AtomicU8>,
    /// When the first handler of each number began; only for `latency`.
    begun: Vec<OnceLock<Instant>>,
}

impl Tally {
    /// A tally that also notes moments for the first `moments` numbers.
    pub fn new(moments: u64) -> Self {
        Self(Arc::new(Inner {
            calls: AtomicU64::new(0),
            seen: (0..NUMBERS).map(|_| AtomicU8::new(0)).collect(),
            begun: (0..moments).map(|_| OnceLock::new()).collect(),
        }))
    }

    /// A handler was called with this job: its first act, and its only one.
    pub fn call(&self, job: &Job) {
        let number = job.number() as usize;
        if let Some(moment) = self.0.begun.get(number) {
            let _ = moment.set(Instant::now());
        }
        self.0.seen[number % NUMBERS].fetch_add(1, Relaxed);
        self.0.calls.fetch_add(1, Relaxed);
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.0.calls.load(Relaxed)
    }

    /// When the handler of a number began.
    pub fn begun(&self, number: u64) -> Option<Instant> {
        self.0.begun.get(number as usize).and_then(|moment| moment.get().copied())
    }

    /// Of the jobs 0 to `jobs`, each inserted once: (never seen, calls beyond the first).
    pub fn missed_and_repeated(&self, jobs: u64) -> (u64, u64) {
        let rounds = |number: usize| {
            let (all, place) = (jobs as usize / NUMBERS, jobs as usize % NUMBERS);
            (all + usize::from(number < place)) as u8
        };
        let missed = self.0.seen.iter().enumerate().filter(|(number, seen)| {
            let (expected, got) = (rounds(*number), seen.load(Relaxed));
            // Numbers that were used several times can only be compared as a sum; too few is a loss all the same.
            got.wrapping_sub(expected) > 127
        });
        (missed.count() as u64, self.calls().saturating_sub(jobs))
    }
}
