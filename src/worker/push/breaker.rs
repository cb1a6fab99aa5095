//! This process's side of a breaker: it counts failures in a row, and asks the database before it tries again. What is open
//! stands in `divvy.breaker`, for all workers.

use crate::Result;
use crate::store::breaker;
use crate::worker::CALL_WITHIN;
use crate::worker::foreign::Calls;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A split that tries is waited for so long; then another one tries.
const PROBE_WITHIN: Duration = Duration::from_secs(60);

/// When to leave a receiver alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Policy {
    /// After so many failures in a row.
    pub(super) failures: u32,
    /// For so long at first, twice as long each time after that,
    pub(super) open: Duration,
    /// and so long at most.
    pub(super) most: Duration,
}

/// What is known of one type's breaker.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    failures: u32,
    /// Not closed, as far as is known, and since when that is known.
    open: Option<Instant>,
}

/// How a split passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passes {
    /// The breaker is closed.
    Freely,
    /// As the one that tries.
    AsProbe,
    /// Not now.
    Not,
}

impl Breaker {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a look at the database that was begun at `asked` has found.
    pub(super) fn learn(&self, open: bool, asked: Instant) {
        let mut known = self.known();
        match (open, known.open) {
            (true, None) => known.open = Some(asked),
            // It was opened here while the look was under way.
            (false, Some(since)) if since < asked => known.open = None,
            _ => {}
        }
    }

    /// Whether this split may be sent.
    pub(super) async fn passes(&self, task_type: &str, calls: &Calls, within: Duration) -> Result<Passes> {
        if self.known().open.is_none() {
            return Ok(Passes::Freely);
        }
        let (task_type, key, within) = (task_type.to_owned(), calls.key(), within.min(PROBE_WITHIN));
        let asking = calls.control().bounded(CALL_WITHIN, move |c| {
            Box::pin(async move { breaker::probe(c, &task_type, key, within).await })
        });
        Ok(if asking.await? { Passes::AsProbe } else { Passes::Not })
    }

    /// The receiver has answered.
    pub(super) async fn answered(&self, task_type: &str, calls: &Calls, passed: Passes) -> Result<()> {
        self.known().failures = 0;
        if passed != Passes::AsProbe {
            return Ok(());
        }
        let (named, key) = (task_type.to_owned(), calls.key());
        let closing = calls
            .control()
            .bounded(CALL_WITHIN, move |c| Box::pin(async move { breaker::close(c, &named, key).await }));
        if closing.await? {
            tracing::info!(task_type, "the breaker of type {task_type} is closed");
        }
        self.known().open = None;
        Ok(())
    }

    /// Nobody has answered, or only with a fault of the server.
    pub(super) async fn failed(
        &self,
        task_type: &str,
        calls: &Calls,
        (passed, policy): (Passes, Policy),
        why: &str,
    ) -> Result<()> {
        let Some(failures) = self.counted(passed, policy) else { return Ok(()) };
        let reason = match passed {
            Passes::AsProbe => format!("still no good answer: {why}"),
            _ => format!("{failures} failures in a row, the last: {why}"),
        };
        let (named, key, told) = (task_type.to_owned(), calls.key(), reason.clone());
        let opening = calls.control().bounded(CALL_WITHIN, move |c| {
            Box::pin(async move { breaker::open(c, &named, key, &told, (policy.open, policy.most)).await })
        });
        if let Some(until) = opening.await? {
            tracing::warn!(task_type, %until, "the breaker of type {task_type} is open until {until}: {reason}");
        }
        Ok(())
    }

    /// Counts a failure; how many there were, once they are enough.
    fn counted(&self, passed: Passes, policy: Policy) -> Option<u32> {
        let mut known = self.known();
        known.failures += 1;
        let enough = known.failures >= policy.failures || passed == Passes::AsProbe;
        enough.then(|| {
            known.open = Some(Instant::now());
            std::mem::take(&mut known.failures)
        })
    }
}
