//! For programs that make tasks and ask what became of them.

mod new_task;

pub use crate::store::enqueue::{Enqueued, TaskResult};
pub use crate::store::state::{SplitStatus, TaskStatus};
pub use new_task::{NewTask, OnDuplicate, ReduceOn};

use crate::id::{SplitId, TaskId};
use crate::store::{enqueue, operate, sqlstate};
use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{PgExecutor, PgPool};
use std::time::Duration;
use tokio::time::Instant;

/// The most tasks one call of [`Client::enqueue_many`] sends; more are sent in several.
const ENQUEUE_MANY_MAX: usize = 10_000;
/// Pauses between two looks of [`Client::wait`].
const LOOK_FIRST: Duration = Duration::from_millis(10);
const LOOK_MOST: Duration = Duration::from_millis(500);

/// Tasks, from the outside. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    pool: PgPool,
}

impl Client {
    /// A client over `pool`.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The pool it uses.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Stores one task, in a transaction of its own. To store it in yours: [`enqueue()`] or
    /// [`NewTask::enqueue_with`].
    ///
    /// # Errors
    /// OverLimit, BadOption, naming the value; Conflict with [`OnDuplicate::Raise`].
    pub async fn enqueue(&self, task: NewTask) -> Result<Enqueued> {
        task.enqueue_with(&self.pool).await
    }

    /// Stores many tasks: each 10,000 in one statement, all of a statement or none.
    ///
    /// # Errors
    /// As [`Client::enqueue`], naming the ordinal within its statement.
    pub async fn enqueue_many(&self, tasks: impl IntoIterator<Item = NewTask>) -> Result<Vec<Enqueued>> {
        let mut tasks = tasks.into_iter();
        let mut made = Vec::new();
        loop {
            let batch =
                tasks.by_ref().take(ENQUEUE_MANY_MAX).map(NewTask::into_row).collect::<Result<Vec<_>>>()?;
            if batch.is_empty() {
                return Ok(made);
            }
            let rows = enqueue::enqueue_many(&self.pool, &Value::Array(batch)).await?;
            made.extend(rows.into_iter().map(|row| Enqueued { task_id: row.task_id, created: row.created }));
        }
    }

    /// How far a task is, and what came of it.
    ///
    /// # Errors
    /// NotFound.
    pub async fn result(&self, task: TaskId) -> Result<TaskResult> {
        enqueue::task_result(&self.pool, task).await
    }

    /// Waits until a task has ended, through outages of the database.
    ///
    /// # Errors
    /// Busy when it hasn't within `limit`; NotFound.
    pub async fn wait(&self, task: TaskId, limit: Duration) -> Result<TaskResult> {
        let until = Instant::now() + limit;
        let mut pause = LOOK_FIRST;
        loop {
            let standing = match self.result(task).await {
                Ok(result) if result.status.is_final() => return Ok(result),
                Ok(result) => result.status.as_str().to_owned(),
                Err(error) if sqlstate::is_passing(&error) => error.to_string(),
                Err(error) => return Err(error),
            };
            if Instant::now() >= until {
                let message = format!("task {task} has not ended within {limit:?}: {standing}");
                return Err(Error::new(ErrorKind::Busy, message));
            }
            tokio::time::sleep_until((Instant::now() + pause).min(until)).await;
            pause = (pause * 2).min(LOOK_MOST);
        }
    }

    /// Cancels what is open of a task; returns its status. Running splits hear it at their next heartbeat.
    ///
    /// # Errors
    /// NotFound.
    pub async fn cancel(&self, task: TaskId, reason: &str) -> Result<TaskStatus> {
        operate::cancel(&self.pool, task, reason).await
    }

    /// Cancels the open task that holds a dedupe key.
    ///
    /// # Errors
    /// NotFound.
    pub async fn cancel_by_key(&self, task_type: &str, dedupe_key: &str, reason: &str) -> Result<TaskStatus> {
        operate::cancel_by_key(&self.pool, task_type, dedupe_key, reason).await
    }

    /// Re-opens the failed and cancelled splits of an ended task; returns how many. Results already there stay.
    ///
    /// # Errors
    /// NotFound; Conflict when it is open or has succeeded.
    pub async fn redrive(&self, task: TaskId) -> Result<i64> {
        operate::redrive(&self.pool, task, &json!({})).await
    }

    /// Another moment for what waits of a task; none: now. Returns how many splits moved.
    ///
    /// # Errors
    /// NotFound; Conflict when nothing of it waits.
    pub async fn reschedule(&self, task: TaskId, run_at: Option<DateTime<Utc>>) -> Result<i64> {
        operate::reschedule(&self.pool, task, run_at, None).await
    }

    /// Sets one split aside: reduce does not wait for it.
    ///
    /// # Errors
    /// NotFound; Conflict when it ended well.
    pub async fn skip_split(&self, split: SplitId, reason: &str) -> Result<()> {
        operate::skip_split(&self.pool, split, reason).await
    }

    /// Nothing of a type is claimed until `until`, or until it is resumed.
    ///
    /// # Errors
    /// NotFound when the type isn't declared.
    pub async fn pause(&self, task_type: &str, until: Option<DateTime<Utc>>, reason: &str) -> Result<()> {
        operate::pause(&self.pool, task_type, until, reason).await
    }

    /// Ends the pause of a type.
    ///
    /// # Errors
    /// NotFound when the type isn't declared.
    pub async fn resume(&self, task_type: &str) -> Result<()> {
        operate::resume(&self.pool, task_type).await
    }

    /// Declares a type, or changes its options (see the contract for their names).
    ///
    /// # Errors
    /// BadOption, naming the key.
    pub async fn put_task_type(&self, name: &str, options: &Value) -> Result<()> {
        operate::put_task_type(&self.pool, name, options).await
    }
}

/// Stores one task with any executor: your transaction, a connection, a pool. In a transaction it becomes
/// visible with your own rows, or not at all.
///
/// # Errors
/// As [`Client::enqueue`].
pub async fn enqueue(executor: impl PgExecutor<'_>, task: NewTask) -> Result<Enqueued> {
    task.enqueue_with(executor).await
}
