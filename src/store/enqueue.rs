//! Making tasks, and asking what became of one.

use crate::id::TaskId;
use crate::in_sql::row;
use crate::store::state::TaskStatus;
use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, Utc};
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::PgExecutor;

row! {
    /// The answer to an enqueue.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Enqueued {
        /// The task: the new one, or the one that holds the dedupe key.
        pub task_id: TaskId,
        /// False when the dedupe key was held and that task was returned.
        pub created: bool,
    }
}

row! {
    /// The answer for one row of [`enqueue_many`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct EnqueuedRow {
        /// The row's place in the array, from 1.
        pub ord: i32,
        /// The task.
        pub task_id: TaskId,
        /// False when the dedupe key was held.
        pub created: bool,
    }
}

row! {
    /// How far a task is, and what came of it.
    #[derive(Debug, Clone, PartialEq)]
    pub struct TaskResult {
        /// The task's status.
        pub status: TaskStatus,
        /// What it returned.
        pub result: Option<Value>,
        /// Why it failed.
        pub error: Option<Value>,
        /// When it ended, by the database's clock.
        pub finished_at: Option<DateTime<Utc>>,
    }
}

/// `divvy.enqueue`: stores one task, in the caller's transaction if `executor` is one.
///
/// # Errors
/// OverLimit, BadOption; Conflict when the key is held and `on_duplicate` is `raise`.
pub async fn enqueue(
    executor: impl PgExecutor<'_>,
    task_type: &str,
    payload: &Value,
    options: &Value,
) -> Result<Enqueued> {
    Ok(sqlx::query_as("select task_id, created from divvy.enqueue($1, $2, $3)")
        .bind(task_type)
        .bind(payload)
        .bind(options)
        .fetch_one(executor)
        .await?)
}

/// `divvy.enqueue_many`: stores an array of tasks (`{"task_type", "payload", …options}`) in one statement.
///
/// # Errors
/// As [`enqueue`], naming the row's ordinal; nothing is stored then.
pub async fn enqueue_many(executor: impl PgExecutor<'_>, tasks: &Value) -> Result<Vec<EnqueuedRow>> {
    Ok(sqlx::query_as("select ord, task_id, created from divvy.enqueue_many($1)")
        .bind(tasks)
        .fetch_all(executor)
        .await?)
}

/// The same of tasks that are text already.
///
/// # Errors
/// As [`enqueue_many`].
pub async fn enqueue_text(executor: impl PgExecutor<'_>, tasks: &RawValue) -> Result<Vec<EnqueuedRow>> {
    let query = sqlx::query_as("select ord, task_id, created from divvy.enqueue_many($1)").bind(tasks);
    Ok(query.fetch_all(executor).await?)
}

/// Which of these tasks have ended, or are not there any more.
///
/// # Errors
/// Database.
pub async fn ended(executor: impl PgExecutor<'_>, tasks: &[TaskId]) -> Result<Vec<TaskId>> {
    Ok(sqlx::query_scalar(
        "select i.id from unnest($1::bigint[]) as i (id)
          where not exists (select from divvy.task k where k.id = i.id and k.finished_at is null)",
    )
    .bind(tasks)
    .fetch_all(executor)
    .await?)
}

/// `divvy.task_result`: the task's status, result and error.
///
/// # Errors
/// NotFound when there is no such task.
pub async fn task_result(executor: impl PgExecutor<'_>, task: TaskId) -> Result<TaskResult> {
    sqlx::query_as("select status::text as status, result, error, finished_at from divvy.task_result($1)")
        .bind(task)
        .fetch_optional(executor)
        .await?
        .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no task {task}")))
}
