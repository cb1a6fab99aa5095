//! What people do to tasks, types and splits. Each writes an event in the same transaction.

use crate::Result;
use crate::id::{SplitId, TaskId};
use crate::in_sql::row;
use crate::store::state::TaskStatus;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgExecutor;

/// `divvy.cancel`: cancels what is open of a task; of an ended one, returns its status unchanged.
///
/// # Errors
/// NotFound.
pub async fn cancel<'r>(
    executor: impl PgExecutor<'_>,
    task: TaskId,
    reason: impl Into<Option<&'r str>>,
) -> Result<TaskStatus> {
    Ok(sqlx::query_scalar("select divvy.cancel($1, $2)::text")
        .bind(task)
        .bind(reason.into())
        .fetch_one(executor)
        .await?)
}

/// `divvy.cancel_by_key`: cancels the open task that holds a dedupe key.
///
/// # Errors
/// NotFound when no task holds it.
pub async fn cancel_by_key<'r>(
    executor: impl PgExecutor<'_>,
    task_type: &str,
    dedupe_key: &str,
    reason: impl Into<Option<&'r str>>,
) -> Result<TaskStatus> {
    Ok(sqlx::query_scalar("select divvy.cancel_by_key($1, $2, $3)::text")
        .bind(task_type)
        .bind(dedupe_key)
        .bind(reason.into())
        .fetch_one(executor)
        .await?)
}

/// `divvy.redrive`: re-opens the unsuccessful splits of an ended task; how many.
///
/// # Errors
/// NotFound; Conflict when it is open, has succeeded, or its dedupe key is held by another; BadOption.
pub async fn redrive(executor: impl PgExecutor<'_>, task: TaskId, options: &Value) -> Result<i64> {
    Ok(sqlx::query_scalar("select divvy.redrive($1, $2)")
        .bind(task)
        .bind(options)
        .fetch_one(executor)
        .await?)
}

/// `divvy.update_task`: changes limits, priority or deadline of an open task, payload of a scheduled one.
///
/// # Errors
/// NotFound, Conflict, BadOption.
pub async fn update_task(executor: impl PgExecutor<'_>, task: TaskId, options: &Value) -> Result<()> {
    sqlx::query("select divvy.update_task($1, $2)").bind(task).bind(options).execute(executor).await?;
    Ok(())
}

/// `divvy.reschedule`: another moment (none: now) or priority for what waits of a task; how many splits moved.
///
/// # Errors
/// NotFound; Conflict when nothing of it waits.
pub async fn reschedule(
    executor: impl PgExecutor<'_>,
    task: TaskId,
    run_at: Option<DateTime<Utc>>,
    priority: Option<i32>,
) -> Result<i64> {
    Ok(sqlx::query_scalar("select divvy.reschedule($1, $2, $3)")
        .bind(task)
        .bind(run_at)
        .bind(priority)
        .fetch_one(executor)
        .await?)
}

/// `divvy.skip_split`: sets one split aside; a running one loses its lease.
///
/// # Errors
/// NotFound; Conflict when it has ended.
pub async fn skip_split<'r>(
    executor: impl PgExecutor<'_>,
    split: SplitId,
    reason: impl Into<Option<&'r str>>,
) -> Result<()> {
    sqlx::query("select divvy.skip_split($1, $2)").bind(split).bind(reason.into()).execute(executor).await?;
    Ok(())
}

/// `divvy.forget`: deletes payloads and results of a task now.
///
/// # Errors
/// NotFound; Conflict while it is open.
pub async fn forget(executor: impl PgExecutor<'_>, task: TaskId) -> Result<()> {
    sqlx::query("select divvy.forget($1)").bind(task).execute(executor).await?;
    Ok(())
}

/// `divvy.pause`: nothing of the type is claimed until `until`, or until resumed.
///
/// # Errors
/// NotFound when the type isn't declared.
pub async fn pause<'r>(
    executor: impl PgExecutor<'_>,
    task_type: &str,
    until: Option<DateTime<Utc>>,
    reason: impl Into<Option<&'r str>>,
) -> Result<()> {
    sqlx::query("select divvy.pause($1, $2, $3)")
        .bind(task_type)
        .bind(until)
        .bind(reason.into())
        .execute(executor)
        .await?;
    Ok(())
}

/// `divvy.resume`: ends a type's pause.
///
/// # Errors
/// NotFound when the type isn't declared.
pub async fn resume(executor: impl PgExecutor<'_>, task_type: &str) -> Result<()> {
    sqlx::query("select divvy.resume($1)").bind(task_type).execute(executor).await?;
    Ok(())
}

/// `divvy.pause_task`: the task's ready splits wait until `until`, or until resumed.
///
/// # Errors
/// NotFound; Conflict when it has ended.
pub async fn pause_task<'r>(
    executor: impl PgExecutor<'_>,
    task: TaskId,
    until: Option<DateTime<Utc>>,
    reason: impl Into<Option<&'r str>>,
) -> Result<()> {
    sqlx::query("select divvy.pause_task($1, $2, $3)")
        .bind(task)
        .bind(until)
        .bind(reason.into())
        .execute(executor)
        .await?;
    Ok(())
}

/// `divvy.resume_task`: ends a task's pause.
///
/// # Errors
/// NotFound; Conflict when it has ended.
pub async fn resume_task(executor: impl PgExecutor<'_>, task: TaskId) -> Result<()> {
    sqlx::query("select divvy.resume_task($1)").bind(task).execute(executor).await?;
    Ok(())
}

/// `divvy.put_task_type`: declares a type or changes its options.
///
/// # Errors
/// BadOption for an unknown key, naming it.
pub async fn put_task_type(executor: impl PgExecutor<'_>, name: &str, options: &Value) -> Result<()> {
    sqlx::query("select divvy.put_task_type($1, $2)").bind(name).bind(options).execute(executor).await?;
    Ok(())
}

/// `divvy.drop_task_type`: forgets a type's declaration.
///
/// # Errors
/// NotFound; Conflict while tasks of it are open.
pub async fn drop_task_type(executor: impl PgExecutor<'_>, name: &str) -> Result<()> {
    sqlx::query("select divvy.drop_task_type($1)").bind(name).execute(executor).await?;
    Ok(())
}

row! {
    /// What one duty of a tick did.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Done {
        /// The duty.
        pub duty: String,
        /// How many things it changed.
        pub done: i32,
    }
}

/// `divvy.tick`: one pass of all duties, each bounded by `max`; safe from any number of callers.
///
/// # Errors
/// Database.
pub async fn tick(executor: impl PgExecutor<'_>, max: i32) -> Result<Vec<Done>> {
    Ok(sqlx::query_as("select duty, done::int as done from divvy.tick($1)")
        .bind(max)
        .fetch_all(executor)
        .await?)
}
