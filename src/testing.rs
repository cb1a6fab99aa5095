//! For users' tests: run a task inline, drain what is ready, see what was enqueued, set the clock.
//!
//! All of it works on a real database that `divvy migrate` has prepared. [`run_inline`] and [`enqueued`] work
//! inside the test's own transaction, so a rollback leaves nothing behind.

mod inline;

pub use inline::{Ran, run_inline};

use crate::id::TaskId;
use crate::store::state::TaskStatus;
use crate::store::{clock, operate, overview};
use crate::worker::{Summary, Worker};
use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use std::time::Duration;

/// How many passes [`drain`] makes at most: a handler that continues for ever would never be drained.
const DRAIN_PASSES_MAX: usize = 10_000;
/// How much one tick does.
const TICK_MAX: i32 = 500;

/// Runs `worker` until nothing of its types is ready, and returns what it did. Ticks in between, so that what
/// is due by the database's clock is made ready; what waits for a later moment stays.
///
/// # Errors
/// What the database refuses; Busy when there is no end to it.
pub async fn drain(pool: &PgPool, worker: &Worker) -> Result<Summary> {
    let mut all = Summary::default();
    for _ in 0..DRAIN_PASSES_MAX {
        let mut pass = worker.run_once().await?;
        if pass == Summary::default() {
            operate::tick(pool, TICK_MAX).await?;
            pass = worker.run_once().await?;
            if pass == Summary::default() {
                return Ok(all);
            }
        }
        all += pass;
    }
    Err(Error::new(ErrorKind::Busy, format!("not drained after {DRAIN_PASSES_MAX} passes: {all}")))
}

/// A task that was enqueued.
#[derive(Debug, Clone, PartialEq)]
pub struct EnqueuedTask {
    /// The task.
    pub task_id: TaskId,
    /// Where it stands.
    pub status: TaskStatus,
    /// Its payload.
    pub payload: Value,
    /// Not before this moment.
    pub run_at: Option<DateTime<Utc>>,
    /// Its dedupe key.
    pub dedupe_key: Option<String>,
}

/// The tasks of a type, oldest first, as this connection sees them: its own transaction's included.
///
/// # Errors
/// What the database refuses.
pub async fn enqueued(connection: &mut PgConnection, task_type: &str) -> Result<Vec<EnqueuedTask>> {
    let rows = overview::tasks_of_type(connection, task_type).await?;
    Ok(rows
        .into_iter()
        .map(|row| EnqueuedTask {
            task_id: row.id,
            status: row.status,
            payload: row.payload,
            run_at: row.run_at,
            dedupe_key: row.dedupe_key,
        })
        .collect())
}

/// Panics unless exactly one task of the type with this payload was enqueued; returns it.
///
/// # Panics
/// Also when the database refuses; the message lists what was enqueued.
pub async fn assert_enqueued(
    connection: &mut PgConnection,
    task_type: &str,
    payload: &Value,
) -> EnqueuedTask {
    let all = match enqueued(connection, task_type).await {
        Ok(all) => all,
        Err(error) => panic!("the tasks of type {task_type:?} can't be listed: {error}"),
    };
    let mut found = all.iter().filter(|task| task.payload == *payload);
    match (found.next(), found.count()) {
        (Some(task), 0) => task.clone(),
        (first, others) => {
            let count = usize::from(first.is_some()) + others;
            let payloads: Vec<_> = all.iter().map(|task| task.payload.to_string()).collect();
            panic!(
                "{count} tasks of type {task_type:?} have the payload {payload}; enqueued: [{}]",
                payloads.join(", ")
            )
        }
    }
}

/// The database's clock in the test's hands. Only in a database marked as a test database: a row
/// `('test_database', 'true')` in `divvy.setting`.
#[derive(Debug)]
pub struct Clock;

impl Clock {
    /// Stops the database's clock where it is, for all sessions.
    ///
    /// # Errors
    /// Config when the database isn't marked as a test database.
    pub async fn install(connection: &mut PgConnection) -> Result<Self> {
        clock::install(connection).await?;
        Ok(Self)
    }

    /// Sets it.
    ///
    /// # Errors
    /// What the database refuses.
    pub async fn set(&self, connection: &mut PgConnection, at: DateTime<Utc>) -> Result<()> {
        clock::set(connection, at).await
    }

    /// Moves it forward; returns what it shows then.
    ///
    /// # Errors
    /// What the database refuses.
    pub async fn advance(&self, connection: &mut PgConnection, by: Duration) -> Result<DateTime<Utc>> {
        clock::advance(connection, by).await
    }
}
