//! The duties: what each does in one pass, and how often.

use super::fire;
use super::rest::{Rest, Rests};
use crate::Result;
use crate::jitter::about;
use crate::store::{Store, duty};
use sqlx::PgConnection;
use std::fmt;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Most rows of one pass: short transactions, and others get their turn.
pub const BATCH: i32 = 500;
/// The same of a pass that deletes, where what a call costs besides would show.
const PRUNE_BATCH: i32 = 5_000;

/// Longest time of one pass.
pub(super) const PASS_MAX: Duration = Duration::from_secs(30);

/// The longest pause of a duty that fails.
const FAILED_MAX: Duration = Duration::from_secs(30);

/// One thing the leader sees to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Schedules whose moment has come make their tasks; cron schedules get their next moment.
    Fire,
    /// What waited for a moment becomes ready.
    Promote,
    /// Tasks whose splits have all ended are reduced, or end.
    Settle,
    /// Splits of ended leases become ready again.
    Reclaim,
    /// The marks below which nothing is ready move on.
    LowWater,
    /// What has outlived its retention is deleted.
    Prune,
    /// What waits and runs is kept, once a minute.
    Sample,
    /// What somebody should look at is looked for, once a minute.
    Alert,
}

/// What one pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The duty.
    pub duty: Duty,
    /// How many rows it changed.
    pub done: i32,
}

impl Duty {
    /// All of them, in the order in which work moves on.
    pub const ALL: [Self; 8] = [
        Self::Fire,
        Self::Promote,
        Self::Settle,
        Self::Reclaim,
        Self::LowWater,
        Self::Prune,
        Self::Sample,
        Self::Alert,
    ];

    fn batch(self) -> i32 {
        if self == Self::Prune { PRUNE_BATCH } else { BATCH }
    }

    /// One pass over at most [`BATCH`] rows, or ten times as many tasks that go.
    ///
    /// # Errors
    /// When the database refuses, is lost, or does not answer within half a minute.
    pub async fn run_once(self, store: &Store) -> Result<Report> {
        let done = store.bounded(PASS_MAX, move |connection| Box::pin(self.pass(connection))).await?;
        Ok(Report { duty: self, done })
    }

    async fn pass(self, connection: &mut PgConnection) -> Result<i32> {
        match self {
            Self::Fire => fire::fire(connection, BATCH).await.map(|(_, fired)| fired),
            Self::Promote => duty::promote(connection, BATCH).await,
            Self::Settle => duty::settle(connection, BATCH).await,
            Self::Reclaim => duty::reclaim(connection, BATCH).await,
            Self::LowWater => duty::advance_low_water(connection).await,
            Self::Prune => duty::prune(connection, PRUNE_BATCH).await,
            Self::Sample => duty::sample(connection).await,
            Self::Alert => duty::alert(connection).await,
        }
    }

    /// The pause after a pass that did something, and the longest one while there may be something to do.
    fn pauses(self) -> (Duration, Duration) {
        let ms = Duration::from_millis;
        match self {
            Self::Fire | Self::Promote | Self::Settle => (ms(100), ms(250)),
            Self::Reclaim => (ms(250), ms(1_000)),
            Self::LowWater => (ms(250), ms(1_000)),
            // A round over what is kept goes on with each pass, also where it finds nothing.
            Self::Prune => (ms(1_000), ms(5_000)),
            Self::Sample | Self::Alert => (ms(5_000), ms(5_000)),
        }
    }

    /// Passes until `over`. A failure is logged and tried again later; the other duties don't notice.
    async fn repeat(self, store: Store, mut rest: Rest, over: CancellationToken) {
        let (busy, idle) = self.pauses();
        let mut pause = busy;
        loop {
            let pass = tokio::select! {
                biased;
                () = over.cancelled() => return,
                pass = self.run_once(&store) => pass,
            };
            let done = pass.as_ref().map_or(0, |report| report.done);
            pause = match pass {
                Ok(_) if done >= self.batch() => Duration::ZERO,
                Ok(_) if done > 0 => busy,
                Ok(_) => (pause * 2).clamp(busy, idle),
                Err(error) => {
                    tracing::warn!(duty = %self, %error, "duty {self} failed: {error}");
                    (pause * 2).clamp(idle, FAILED_MAX.max(idle))
                }
            };
            if done > 0 {
                super::wait(pause, &over).await;
            } else {
                rest.is_over(Instant::now() + about(pause), &over).await;
            }
        }
    }
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fire => "fire",
            Self::Promote => "promote",
            Self::Settle => "reduce_check",
            Self::Reclaim => "reclaim",
            Self::LowWater => "low_water",
            Self::Prune => "prune",
            Self::Sample => "sample",
            Self::Alert => "alert",
        })
    }
}

/// Starts a loop for each duty.
pub(super) fn start_all(store: &Store, rests: &Rests, over: &CancellationToken) -> JoinSet<()> {
    Duty::ALL.into_iter().map(|duty| duty.repeat(store.clone(), rests.of(duty), over.clone())).collect()
}
