//! Time goes on for what waits, also while every slot is busy and no round comes back empty.
//!
//! Without a leader somebody has to tick: `next_wait` does, at most once a second per database.

use super::signals::Signals;
use super::{CALL_WITHIN, Core};
use crate::jitter::about;
use crate::store::claim::next_wait;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

const EVERY: Duration = Duration::from_secs(1);
/// A worker that waits ticks when it looks again: so much later it is seen not to have looked.
const LATE: Duration = Duration::from_millis(250);

/// When this worker should tick, unless a round does before.
pub(super) struct TickDue(Mutex<Instant>);

impl Default for TickDue {
    fn default() -> Self {
        Self(Mutex::new(Instant::now() + about(EVERY)))
    }
}

impl TickDue {
    /// There was a tick, and the next look is so far off.
    pub(super) fn after(&self, wait: Duration) {
        let pause = about(EVERY).max(wait + LATE);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + pause;
    }

    fn at(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ticks when it is due; until the worker is through.
pub(super) async fn tick(core: Arc<Core>, signals: Arc<Signals>) {
    loop {
        let due = signals.tick_due.at();
        tokio::select! {
            () = signals.done.cancelled() => return,
            () = sleep_until(due) => {}
        }
        if signals.tick_due.at() > due {
            continue;
        }
        // Of no types: so nobody is told that this worker waits for work.
        let ticked =
            core.control.bounded(CALL_WITHIN, |c| Box::pin(async move { next_wait(c, &[]).await })).await;
        if let Err(error) = ticked {
            tracing::debug!(worker.id = %core.id, %error, "a tick failed");
        }
        signals.tick_due.after(Duration::ZERO);
    }
}
