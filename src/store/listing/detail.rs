//! One thing with everything about it: what `show` prints.

use crate::id::{ScheduleId, SplitId, TaskId, Token};
use crate::in_sql::row;
use crate::store::state::{Phase, SplitStatus, TaskStatus};
use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgExecutor;
use uuid::Uuid;

/// The most rows of one thing's history.
const HISTORY_MAX: i64 = 1_000;

row! {
    /// A task, with what the lists leave out.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Serialize)]
    #[expect(missing_docs, reason = "the columns of divvy.task, documented in sql/README.md")]
    pub struct TaskDetail {
        pub task_id: TaskId,
        pub task_type: String,
        pub declared: bool,
        pub status: TaskStatus,
        pub reason: Option<String>,
        pub priority: i16,
        pub epoch: i32,
        pub split_count: i32,
        pub created_at: DateTime<Utc>,
        pub run_at: Option<DateTime<Utc>>,
        pub finished_at: Option<DateTime<Utc>>,
        pub deadline_at: Option<DateTime<Utc>>,
        pub cancel_requested_at: Option<DateTime<Utc>>,
        pub paused: bool,
        /// Null: not paused, or until resumed; see `paused`.
        pub paused_until: Option<DateTime<Utc>>,
        pub pause_reason: Option<String>,
        pub dedupe_key: Option<String>,
        pub group_key: Option<String>,
        pub labels: Option<Vec<String>>,
        pub parent_task_id: Option<TaskId>,
        pub schedule_id: Option<ScheduleId>,
        pub scheduled_for: Option<DateTime<Utc>>,
        pub max_attempts: Option<i32>,
        pub timeout_seconds: Option<f64>,
        pub max_failed: Option<i32>,
        pub max_failed_percent: Option<f64>,
        pub reduce_on: Option<String>,
        pub then: Option<Value>,
        pub headers: Option<Value>,
        #[cfg_attr(feature = "cli", schemars(default))]
        pub payload: Value,
        pub result: Option<Value>,
        pub error: Option<Value>,
    }
}

/// One task.
///
/// # Errors
/// NotFound; Database.
pub async fn task(executor: impl PgExecutor<'_>, id: TaskId) -> Result<TaskDetail> {
    sqlx::query_as(
        "select k.id as task_id, k.task_type, t.name is not null as declared, k.status::text as status,
                coalesce(k.cancel_reason, k.reason) as reason, k.priority, k.epoch,
                coalesce(k.split_count, 1) as split_count, k.created_at, k.run_at, k.finished_at, k.deadline_at,
                k.cancel_requested_at, coalesce(k.paused_until > divvy.clock(), false) as paused,
                nullif(k.paused_until, 'infinity') as paused_until, k.pause_reason, k.dedupe_key, k.group_key,
                k.labels, k.parent_task_id, k.schedule_id, k.scheduled_for, k.max_attempts,
                extract(epoch from k.timeout)::float8 as timeout_seconds, k.max_failed,
                k.max_failed_percent::float8 as max_failed_percent, k.reduce_on, k.\"then\", k.headers, k.payload,
                k.result, k.error
           from divvy.task k left join divvy.task_type t on t.name = k.task_type
          where k.id = $1",
    )
    .bind(id)
    .fetch_optional(executor)
    .await?
    .ok_or_else(|| unknown("task", id))
}

row! {
    /// A split, with what the lists leave out.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Serialize)]
    #[expect(missing_docs, reason = "the view's columns, documented in sql/README.md")]
    pub struct SplitDetail {
        pub split_id: SplitId,
        pub task_id: TaskId,
        pub task_type: String,
        pub phase: Phase,
        pub split_no: i32,
        pub status: SplitStatus,
        pub reason: Option<String>,
        pub attempt: i32,
        pub max_attempts: Option<i32>,
        pub crashes: i16,
        pub continuation: i32,
        pub priority: i16,
        /// Null: until somebody resumes it.
        pub due_at: Option<DateTime<Utc>>,
        pub started_at: Option<DateTime<Utc>>,
        pub finished_at: Option<DateTime<Utc>>,
        pub progress: Option<f32>,
        pub worker: Option<Uuid>,
        pub worker_name: Option<String>,
        pub token: Option<Token>,
        pub lease_until: Option<DateTime<Utc>>,
        pub payload: Option<Value>,
        pub checkpoint: Option<Value>,
        pub result: Option<Value>,
        pub error: Option<Value>,
    }
}

/// One split.
///
/// # Errors
/// NotFound; Database.
pub async fn split(executor: impl PgExecutor<'_>, id: SplitId) -> Result<SplitDetail> {
    sqlx::query_as(
        "select s.id as split_id, s.task_id, s.task_type, s.phase, s.split_no, s.status, s.reason, s.attempt,
                s.max_attempts, s.crashes, s.continuation, s.priority, nullif(s.due_at, 'infinity') as due_at,
                s.started_at, s.finished_at, s.progress, s.worker, w.name as worker_name, s.token, l.lease_until,
                s.payload, s.checkpoint, s.result, s.error
           from divvy.split_by_id($1) s
           left join lateral (select max(x.lease_until) as lease_until from divvy.lease x
                where x.token = s.token and s.status = 'running') l on true
           left join divvy.worker w on w.id = s.worker",
    )
    .bind(id)
    .fetch_optional(executor)
    .await?
    .ok_or_else(|| unknown("split", id))
}

row! {
    /// One attempt of a split.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Serialize)]
    #[expect(missing_docs, reason = "the view's columns, documented in sql/README.md")]
    pub struct AttemptRow {
        pub split_id: SplitId,
        pub token: Token,
        pub attempt: i32,
        pub phase: Phase,
        pub worker: Option<Uuid>,
        pub worker_name: Option<String>,
        pub outcome: String,
        pub error: Option<Value>,
        pub started_at: Option<DateTime<Utc>>,
        pub finished_at: Option<DateTime<Utc>>,
    }
}

/// The last thousand attempts of a split, oldest first.
///
/// # Errors
/// Database.
pub async fn attempts(executor: impl PgExecutor<'_>, split: SplitId) -> Result<Vec<AttemptRow>> {
    Ok(sqlx::query_as(
        "select a.split_id, a.token, a.attempt, a.phase, a.worker, w.name as worker_name, a.outcome, a.error,
                a.started_at, a.finished_at
           from (select split_id, token, attempt, phase, worker, outcome, error, started_at, finished_at
                   from divvy.attempts_by_id($1) order by token desc limit $2) a
           left join divvy.worker w on w.id = a.worker
          order by a.token",
    )
    .bind(split)
    .bind(HISTORY_MAX)
    .fetch_all(executor)
    .await?)
}

row! {
    /// A declared type: its options as [`put_task_type`](crate::store::operate::put_task_type) takes them, and who
    /// declared it.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Serialize)]
    #[expect(missing_docs, reason = "the columns of divvy.task_type, documented in sql/README.md")]
    pub struct TypeDetail {
        pub task_type: String,
        pub options: Value,
        pub declared_by: String,
        pub created_at: DateTime<Utc>,
        pub updated_at: DateTime<Utc>,
    }
}

/// The declaration of a type; none when it has not been declared.
///
/// # Errors
/// Database.
pub async fn task_type(executor: impl PgExecutor<'_>, name: &str) -> Result<Option<TypeDetail>> {
    Ok(sqlx::query_as(
        "select t.name as task_type, t.declared_by, t.created_at, t.updated_at,
                jsonb_strip_nulls(jsonb_build_object('handler', t.handler, 'plan', t.plan, 'reduce', t.reduce,
                    'max_attempts', t.max_attempts, 'backoff', t.backoff, 'timeout', t.timeout, 'lease', t.lease,
                    'max_running', t.max_running, 'max_running_per_task', t.max_running_per_task,
                    'max_running_per_group', t.max_running_per_group, 'rate', t.rate,
                    'fair_by_group', nullif(t.fair_by_group, false),
                    'max_waiting', t.max_waiting, 'dedupe_window', t.dedupe_window, 'max_failed', t.max_failed,
                    'max_failed_percent', t.max_failed_percent, 'reduce_on', t.reduce_on,
                    'retention', jsonb_build_object('succeeded', t.retention_succeeded, 'others', t.retention_others),
                    'then', t.\"then\")) as options
           from divvy.task_type t where t.name = $1",
    )
    .bind(name)
    .fetch_optional(executor)
    .await?)
}

fn unknown(what: &str, id: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no {what} {id}"))
}
