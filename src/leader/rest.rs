//! Until when each duty has nothing to do.

use super::Duty;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// What the last look said. A duty that it did not name may have something to do at any moment.
#[derive(Debug)]
pub(super) struct Rests(watch::Sender<[Instant; Duty::ALL.len()]>);

impl Rests {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new([Instant::now(); Duty::ALL.len()]))
    }

    /// A look said just now for how many seconds the duties of these names rest.
    pub(super) fn told(&self, rests: &[(String, f64)]) {
        // From the answer on, not from the question: who comes too early finds nothing, and pauses.
        let now = Instant::now();
        self.0.send_replace(Duty::ALL.map(|duty| {
            let rest = rests.iter().find(|(name, _)| *name == duty.to_string());
            rest.and_then(|(_, seconds)| Duration::try_from_secs_f64(*seconds).ok())
                .map_or(now, |rest| now + rest)
        }));
    }

    pub(super) fn of(&self, duty: Duty) -> Rest {
        Rest { duty, until: self.0.subscribe() }
    }
}

/// The rest of one duty.
#[derive(Debug)]
pub(super) struct Rest {
    duty: Duty,
    until: watch::Receiver<[Instant; Duty::ALL.len()]>,
}

impl Rest {
    /// Waits until the duty may have something to do, but at least until `least`; or until `over`.
    pub(super) async fn is_over(&mut self, least: Instant, over: &CancellationToken) {
        loop {
            let until = self.until.borrow_and_update()[self.duty as usize].max(least);
            tokio::select! {
                () = over.cancelled() => return,
                () = sleep_until(until) => return,
                Ok(()) = self.until.changed() => (),
            }
        }
    }
}
