//! Lists with filters: the only SQL built at run time (sea-query), over the views for people.
//!
//! Pages go by id (keyset), so a page costs the same wherever it is, and rows that come in meanwhile shift nothing.

pub mod detail;
pub mod history;

use crate::Result;
use crate::id::{ScheduleId, SplitId, TaskId, Token};
use crate::in_sql::row;
use crate::store::state::{Phase, SplitStatus, TaskStatus};
use chrono::{DateTime, Utc};
use sea_query::{Expr, ExprTrait, Order, PostgresQueryBuilder, Query, SelectStatement};
use sea_query_sqlx::SqlxBinder;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, FromRow, PgExecutor};
use uuid::Uuid;

/// The most rows of one page.
pub const PAGE_ROWS_MAX: u64 = 1_000;
const PAGE_ROWS_DEFAULT: u64 = 50;

/// Which tasks to list, newest first. Empty fields don't restrict.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// Of this type.
    pub task_type: Option<String>,
    /// In one of these states.
    pub statuses: Vec<TaskStatus>,
    /// With this label.
    pub label: Option<String>,
    /// With this dedupe key.
    pub dedupe_key: Option<String>,
    /// Made by the `then` of this task.
    pub parent: Option<TaskId>,
    /// Made by this schedule.
    pub schedule: Option<ScheduleId>,
    /// The page after this task: the last one of the page before.
    pub before: Option<TaskId>,
    /// Rows a page: 1 to 1,000; default 50.
    pub limit: Option<u64>,
}

row! {
    /// A row of `divvy.task_overview`.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Serialize)]
    #[expect(missing_docs, reason = "the view's columns, documented in sql/README.md")]
    pub struct TaskRow {
        pub task_id: TaskId,
        pub task_type: String,
        pub status: TaskStatus,
        pub priority: i16,
        pub labels: Option<Vec<String>>,
        pub group_key: Option<String>,
        pub dedupe_key: Option<String>,
        pub split_count: i32,
        pub epoch: i32,
        pub created_at: DateTime<Utc>,
        pub run_at: Option<DateTime<Utc>>,
        pub finished_at: Option<DateTime<Utc>>,
        pub deadline_at: Option<DateTime<Utc>>,
        pub cancel_requested_at: Option<DateTime<Utc>>,
        pub paused: bool,
        pub parent_task_id: Option<TaskId>,
        pub schedule_id: Option<ScheduleId>,
        pub scheduled_for: Option<DateTime<Utc>>,
        pub reason: Option<String>,
        pub error: Option<String>,
    }
}

const TASK_COLUMNS: [&str; 19] = [
    "task_id",
    "task_type",
    "status",
    "priority",
    "labels",
    "group_key",
    "dedupe_key",
    "split_count",
    "epoch",
    "created_at",
    "run_at",
    "finished_at",
    "deadline_at",
    "cancel_requested_at",
    "parent_task_id",
    "schedule_id",
    "scheduled_for",
    "reason",
    "error",
];

/// One page of tasks, newest first.
///
/// # Errors
/// Database.
pub async fn tasks(executor: impl PgExecutor<'_>, filter: &TaskFilter) -> Result<Vec<TaskRow>> {
    fetch(executor, &task_query(filter)).await
}

fn task_query(filter: &TaskFilter) -> SelectStatement {
    let mut query = Query::select();
    query.columns(TASK_COLUMNS).from(("divvy", "task_overview"));
    query.expr_as(Expr::cust("coalesce(paused_until > divvy.clock(), false)"), "paused");
    query.order_by("task_id", Order::Desc).limit(page(filter.limit));
    equal(&mut query, "task_type", filter.task_type.as_deref());
    equal(&mut query, "dedupe_key", filter.dedupe_key.as_deref());
    equal(&mut query, "parent_task_id", filter.parent.map(|id| id.0));
    equal(&mut query, "schedule_id", filter.schedule.map(|id| id.0));
    if !filter.statuses.is_empty() {
        query.and_where(Expr::col("status").is_in(filter.statuses.iter().map(|status| status.as_str())));
    }
    if let Some(label) = &filter.label {
        query.and_where(Expr::cust_with_values("$1 = any (labels)", [label.clone()]));
    }
    if let Some(before) = filter.before {
        query.and_where(Expr::col("task_id").lt(before.0));
    }
    query
}

/// Which splits to list: of one task in the order of their numbers, else by id. Empty fields don't restrict.
#[derive(Debug, Clone, Default)]
pub struct SplitFilter {
    /// Of this task.
    pub task: Option<TaskId>,
    /// Of this type.
    pub task_type: Option<String>,
    /// In one of these states.
    pub statuses: Vec<SplitStatus>,
    /// For this.
    pub phase: Option<Phase>,
    /// Held by this worker.
    pub worker: Option<Uuid>,
    /// With an error of this class.
    pub error_class: Option<String>,
    /// The page after this split: the last one of the page before.
    pub after: Option<SplitId>,
    /// Rows a page: 1 to 1,000; default 50.
    pub limit: Option<u64>,
}

row! {
    /// A row of `divvy.split_overview`.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Serialize)]
    #[expect(missing_docs, reason = "the view's columns, documented in sql/README.md")]
    pub struct SplitRow {
        pub split_id: SplitId,
        pub task_id: TaskId,
        pub task_type: String,
        pub phase: Phase,
        pub split_no: i32,
        pub status: SplitStatus,
        pub reason: Option<String>,
        pub attempt: i32,
        pub max_attempts: Option<i32>,
        /// Null: until somebody resumes it.
        pub due_at: Option<DateTime<Utc>>,
        pub started_at: Option<DateTime<Utc>>,
        pub finished_at: Option<DateTime<Utc>>,
        pub progress: Option<f32>,
        pub worker: Option<Uuid>,
        pub worker_name: Option<String>,
        pub token: Option<Token>,
        pub lease_until: Option<DateTime<Utc>>,
        pub error_class: Option<String>,
        pub error: Option<String>,
    }
}

const SPLIT_COLUMNS: [&str; 18] = [
    "split_id",
    "task_id",
    "task_type",
    "phase",
    "split_no",
    "status",
    "reason",
    "attempt",
    "max_attempts",
    "started_at",
    "finished_at",
    "progress",
    "worker",
    "worker_name",
    "token",
    "lease_until",
    "error_class",
    "error",
];

/// One page of splits.
///
/// # Errors
/// Database.
pub async fn splits(executor: impl PgExecutor<'_>, filter: &SplitFilter) -> Result<Vec<SplitRow>> {
    fetch(executor, &split_query(filter)).await
}

fn split_query(filter: &SplitFilter) -> SelectStatement {
    let mut query = Query::select();
    query.columns(SPLIT_COLUMNS).from(("divvy", "split_overview"));
    // "Until resumed" is infinity, which chrono can't hold.
    query.expr_as(Expr::cust("nullif(due_at, 'infinity')"), "due_at");
    query.limit(page(filter.limit));
    if let Some(task) = filter.task {
        query.and_where(Expr::col("task_id").eq(task.0)).order_by("split_no", Order::Asc);
    }
    match filter.after {
        // Numbers are unique among a task's shares, and the task's own split comes before or is the only one.
        Some(after) if filter.task.is_some() => query.and_where(Expr::cust_with_values(
            "split_no > (select s.split_no from divvy.split_by_id($1) s)",
            [after.0],
        )),
        Some(after) => query.and_where(Expr::col("split_id").gt(after.0)),
        None => &mut query,
    };
    query.order_by("split_id", Order::Asc);
    equal(&mut query, "task_type", filter.task_type.as_deref());
    equal(&mut query, "phase", filter.phase.map(Phase::as_str));
    equal(&mut query, "worker", filter.worker);
    equal(&mut query, "error_class", filter.error_class.as_deref());
    if !filter.statuses.is_empty() {
        query.and_where(Expr::col("status").is_in(filter.statuses.iter().map(|status| status.as_str())));
    }
    query
}

fn page(limit: Option<u64>) -> u64 {
    limit.unwrap_or(PAGE_ROWS_DEFAULT).clamp(1, PAGE_ROWS_MAX)
}

fn equal<V: Into<Expr>>(query: &mut SelectStatement, column: &'static str, value: Option<V>) {
    if let Some(value) = value {
        query.and_where(Expr::col(column).eq(value));
    }
}

async fn fetch<T>(executor: impl PgExecutor<'_>, query: &SelectStatement) -> Result<Vec<T>>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    let (sql, values) = query.build_sqlx(PostgresQueryBuilder);
    // Not kept prepared: the shapes are many, and each is asked rarely.
    Ok(sqlx::query_as_with(AssertSqlSafe(sql), values).persistent(false).fetch_all(executor).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_becomes_one_condition_each_and_names_are_values() {
        let filter = TaskFilter {
            task_type: Some("it's".into()),
            statuses: vec![TaskStatus::Failed, TaskStatus::Partial],
            label: Some("eu".into()),
            before: Some(TaskId(70)),
            limit: Some(1_000_000),
            ..TaskFilter::default()
        };
        let (sql, values) = task_query(&filter).build_sqlx(PostgresQueryBuilder);
        let (_, conditions) = sql.split_once(" FROM ").unwrap();
        assert_eq!(
            conditions,
            r#""divvy"."task_overview" WHERE "task_type" = $1 AND "status" IN ($2, $3) AND ($4 = any (labels)) AND "task_id" < $5 ORDER BY "task_id" DESC LIMIT $6"#
        );
        assert_eq!(values.0.0.len(), 6);
        assert!(!sql.contains("it's"));
    }
}
