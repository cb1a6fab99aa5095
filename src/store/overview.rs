//! The views for people that need no filter: types, workers, schedules, what is dead, how far a task is.

use crate::Result;
use crate::id::{ScheduleId, SplitId, TaskId};
use crate::in_sql::row;
use crate::store::state::TaskStatus;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgExecutor;
use uuid::Uuid;

/// How many rows these lists have at most.
const ROWS_MAX: i64 = 10_000;

row! {
    /// A row of `divvy.task_progress`.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Serialize)]
    #[expect(missing_docs, reason = "the view's columns, documented in sql/README.md")]
    pub struct Progress {
        pub task_id: TaskId,
        pub task_type: String,
        pub status: TaskStatus,
        pub splits: i32,
        pub delayed: i64,
        pub ready: i64,
        pub running: i64,
        pub succeeded: i64,
        pub failed: i64,
        pub cancelled: i64,
        pub skipped: i64,
        pub progress: f64,
    }
}

/// How far a task is; counts its splits.
///
/// # Errors
/// Database.
pub async fn progress(executor: impl PgExecutor<'_>, task: TaskId) -> Result<Option<Progress>> {
    Ok(sqlx::query_as(
        "select task_id, task_type, status, splits, delayed, ready, running, succeeded, failed, cancelled, skipped,
                progress::float8 as progress
           from divvy.task_progress where task_id = $1",
    )
    .bind(task)
    .fetch_optional(executor)
    .await?)
}

row! {
    /// A row of `divvy.type_stats`.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Serialize)]
    #[expect(missing_docs, reason = "the view's columns, documented in sql/README.md")]
    pub struct TypeRow {
        pub task_type: String,
        pub declared: bool,
        pub plan: Option<bool>,
        pub reduce: Option<bool>,
        /// Null: not paused, or until resumed; see `paused`.
        pub paused_until: Option<DateTime<Utc>>,
        pub paused: bool,
        pub pause_reason: Option<String>,
        pub ready: i64,
        pub delayed: i64,
        pub running: i64,
        pub scheduled: i64,
        pub oldest_ready_seconds: Option<f64>,
        pub workers: i64,
        /// Of the delayed ones, those that a limit holds back.
        pub held: i64,
    }
}

/// All types, by name.
///
/// # Errors
/// Database.
pub async fn types(executor: impl PgExecutor<'_>) -> Result<Vec<TypeRow>> {
    // "Until resumed" is infinity, which chrono can't hold.
    Ok(sqlx::query_as(
        "select task_type, declared, plan, reduce, nullif(paused_until, 'infinity') as paused_until,
                coalesce(paused_until > divvy.clock(), false) as paused, pause_reason, ready, delayed, running,
                scheduled, extract(epoch from oldest_ready)::float8 as oldest_ready_seconds, workers, held
           from divvy.type_stats order by task_type limit $1",
    )
    .bind(ROWS_MAX)
    .fetch_all(executor)
    .await?)
}

row! {
    /// A row of `divvy.worker_overview`.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Serialize)]
    #[expect(missing_docs, reason = "the view's columns, documented in sql/README.md")]
    pub struct WorkerRow {
        pub worker: Uuid,
        pub name: String,
        pub task_types: Vec<String>,
        pub slots: i32,
        pub command: String,
        pub registered_at: DateTime<Utc>,
        pub seen_at: DateTime<Utc>,
        pub alive: bool,
        pub leased: i64,
        pub lease_until: Option<DateTime<Utc>>,
        pub meta: Value,
    }
}

/// All workers known, the last seen first.
///
/// # Errors
/// Database.
pub async fn workers(executor: impl PgExecutor<'_>) -> Result<Vec<WorkerRow>> {
    Ok(sqlx::query_as(
        "select worker, name, task_types, slots, command, registered_at, seen_at, alive, leased, lease_until, meta
           from divvy.worker_overview order by seen_at desc, worker limit $1",
    )
    .bind(ROWS_MAX)
    .fetch_all(executor)
    .await?)
}

row! {
    /// A row of `divvy.schedule_overview`.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Serialize)]
    #[expect(missing_docs, reason = "the view's columns, documented in sql/README.md")]
    pub struct ScheduleRow {
        pub schedule_id: ScheduleId,
        pub name: Option<String>,
        pub task_type: String,
        pub status: String,
        pub reason: Option<String>,
        pub paused_until: Option<DateTime<Utc>>,
        pub kind: String,
        pub rule: Option<String>,
        pub timezone: String,
        pub overlap: String,
        pub catch_up: String,
        pub next_fire_at: Option<DateTime<Utc>>,
        pub fired_through: Option<DateTime<Utc>>,
        pub runs: i32,
        pub max_runs: Option<i32>,
        pub last_task_id: Option<TaskId>,
        pub created_at: DateTime<Utc>,
        pub waiting: i64,
        pub failures: i32,
        pub anchor: String,
        pub calendar: Option<String>,
        pub type_declared: bool,
    }
}

/// All schedules, those not ended first.
///
/// # Errors
/// Database.
pub async fn schedules(executor: impl PgExecutor<'_>) -> Result<Vec<ScheduleRow>> {
    Ok(sqlx::query_as(
        "select schedule_id, name, task_type, status, reason, nullif(paused_until, 'infinity') as paused_until, kind,
                rule, timezone, overlap, catch_up, next_fire_at, fired_through, runs, max_runs, last_task_id, created_at,
                waiting, failures, anchor, calendar, type_declared
           from divvy.schedule_overview
          order by status in ('done', 'cancelled'), name, schedule_id limit $1",
    )
    .bind(ROWS_MAX)
    .fetch_all(executor)
    .await?)
}

row! {
    /// A row of `divvy.dead_splits`: failed splits with one fingerprint.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Serialize)]
    #[expect(missing_docs, reason = "the view's columns, documented in sql/README.md")]
    pub struct DeadRow {
        pub task_type: String,
        pub fingerprint: Option<String>,
        pub splits: i64,
        pub first_at: Option<DateTime<Utc>>,
        pub last_at: Option<DateTime<Utc>>,
        pub last_split_id: SplitId,
        pub last_message: Option<String>,
    }
}

/// What has failed for good, the most frequent first.
///
/// # Errors
/// Database.
pub async fn dead(executor: impl PgExecutor<'_>) -> Result<Vec<DeadRow>> {
    Ok(sqlx::query_as(
        "select task_type, fingerprint, splits, first_at, last_at, last_split_id, last_message
           from divvy.dead_splits order by splits desc, task_type, fingerprint limit $1",
    )
    .bind(ROWS_MAX)
    .fetch_all(executor)
    .await?)
}

/// `divvy.database_health`: names and values.
///
/// # Errors
/// Database.
pub async fn health(executor: impl PgExecutor<'_>) -> Result<Vec<(String, Option<String>)>> {
    Ok(sqlx::query_as("select name, value from divvy.database_health order by name")
        .fetch_all(executor)
        .await?)
}

row! {
    /// A task as it was enqueued.
    #[derive(Debug, Clone, PartialEq)]
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
}

/// The tasks of a type, oldest first: for tests, which ask for payloads.
///
/// # Errors
/// Database.
pub async fn tasks_of_type(executor: impl PgExecutor<'_>, task_type: &str) -> Result<Vec<TaskOfType>> {
    Ok(sqlx::query_as(
        "select id, status::text as status, payload, run_at, dedupe_key
           from divvy.task where task_type = $1 order by id limit $2",
    )
    .bind(task_type)
    .bind(ROWS_MAX)
    .fetch_all(executor)
    .await?)
}
