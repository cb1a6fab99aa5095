//! Lists with filters: the only SQL built at run time (sea-query), over the views for people.

use crate::Result;
use crate::id::TaskId;
use crate::store::state::TaskStatus;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgExecutor;

/// A task as it was enqueued.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct TaskOfType {
    /// The task.
    pub id: TaskId,
    /// Where it stands.
    pub status: TaskStatus,
    /// Its payload.
    pub payload: Value,
    /// Not before this moment.
    pub run_at: Option<DateTime<Utc>>,
    /// Its dedupe key.
    pub dedupe_key: Option<String>,
}

/// How many tasks [`tasks_of_type`] lists at most.
const OF_TYPE_MAX: i64 = 10_000;

/// The tasks of a type, oldest first, at most 10,000: for tests.
///
/// # Errors
/// Database.
pub async fn tasks_of_type(executor: impl PgExecutor<'_>, task_type: &str) -> Result<Vec<TaskOfType>> {
    Ok(sqlx::query_as(
        "select id, status::text as status, payload, run_at, dedupe_key
           from divvy.task where task_type = $1 order by id limit $2",
    )
    .bind(task_type)
    .bind(OF_TYPE_MAX)
    .fetch_all(executor)
    .await?)
}
