//! Time goes on for what waits, also while every slot is busy and no round comes back empty.
//!
//! Without a leader somebody has to tick: `next_wait` does, at most once a second per database.

use super::signals::Signals;
use super::{CALL_WITHIN, Core};
use crate::store::claim::next_wait;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(1);

/// Ticks once a second unless the rounds did; until the worker is through.
pub(super) async fn tick(core: Arc<Core>, signals: Arc<Signals>) {
    loop {
        tokio::select! {
            () = signals.done.cancelled() => return,
            () = tokio::time::sleep(EVERY.mul_f64(rand::random_range(0.8..1.2))) => {}
        }
        if signals.ticked.swap(false, Ordering::Relaxed) {
            continue;
        }
        // Of no types: so nobody is told that this worker waits for work.
        let ticked =
            core.control.bounded(CALL_WITHIN, |c| Box::pin(async move { next_wait(c, &[]).await })).await;
        if let Err(error) = ticked {
            tracing::debug!(worker.id = %core.id, %error, "a tick failed");
        }
    }
}
