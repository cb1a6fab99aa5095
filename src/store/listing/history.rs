//! What happened: decisions, failed attempts and log lines, as `show` and `tail` print them.

use super::{equal, fetch};
use crate::Result;
use crate::id::{EventId, SplitId, TaskId, Token};
use crate::in_sql::row;
use crate::store::state::Phase;
use chrono::{DateTime, Utc};
use sea_query::{Expr, ExprTrait, Order, Query};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgExecutor;

/// The most rows of one answer.
pub const ROWS_MAX: i64 = 1_000;

row! {
    /// A row of `divvy.event`: somebody, or a duty, decided something.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Serialize)]
    #[expect(missing_docs, reason = "the table's columns, documented in sql/README.md")]
    pub struct EventRow {
        pub event_id: EventId,
        pub at: DateTime<Utc>,
        pub actor: String,
        pub verb: String,
        pub object: String,
        pub object_id: String,
        pub reason: Option<String>,
        pub before: Option<Value>,
        pub after: Option<Value>,
    }
}

/// The last decisions on one thing, oldest first. `object` is `task`, `split`, `type`, `schedule` or `worker`.
///
/// # Errors
/// Database.
pub async fn events(
    executor: impl PgExecutor<'_>,
    object: &str,
    id: &str,
    max: i64,
) -> Result<Vec<EventRow>> {
    Ok(sqlx::query_as(
        "select event_id, at, actor, verb, object, object_id, reason, before, after
           from (select id as event_id, at, actor, verb, object, object_id, reason, before, after
                   from divvy.event where object = $1 and object_id = $2 order by id desc limit $3) e
          order by event_id",
    )
    .bind(object)
    .bind(id)
    .bind(max.clamp(1, ROWS_MAX))
    .fetch_all(executor)
    .await?)
}

/// Which decisions to list, newest first. Empty fields don't restrict.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// On things of this kind.
    pub object: Option<String>,
    /// On the thing with this id or name.
    pub object_id: Option<String>,
    /// By this role, token or duty.
    pub actor: Option<String>,
    /// Of this kind.
    pub verb: Option<String>,
    /// The page after this decision: the last one of the page before.
    pub before: Option<EventId>,
    /// Rows a page.
    pub limit: u64,
}

/// One page of decisions, newest first.
///
/// # Errors
/// Database.
pub async fn audit(executor: impl PgExecutor<'_>, filter: &EventFilter) -> Result<Vec<EventRow>> {
    let mut query = Query::select();
    query.columns(["at", "actor", "verb", "object", "object_id", "reason", "before", "after"]);
    query.expr_as(Expr::col("id"), "event_id").from(("divvy", "event"));
    query.order_by("id", Order::Desc).limit(filter.limit);
    equal(&mut query, "object", filter.object.as_deref());
    equal(&mut query, "object_id", filter.object_id.as_deref());
    equal(&mut query, "actor", filter.actor.as_deref());
    equal(&mut query, "verb", filter.verb.as_deref());
    if let Some(before) = filter.before {
        query.and_where(Expr::col("id").lt(before.0));
    }
    fetch(executor, &query).await
}

row! {
    /// An attempt that ended badly.
    #[derive(Debug, Clone, PartialEq, Serialize)]
    #[expect(missing_docs, reason = "the table's columns, documented in sql/README.md")]
    pub struct FailedAttempt {
        pub split_id: SplitId,
        pub token: Token,
        pub split_no: Option<i32>,
        pub attempt: i32,
        pub phase: Phase,
        pub outcome: String,
        pub error: Option<Value>,
        pub worker_name: Option<String>,
        pub at: DateTime<Utc>,
    }
}

/// The attempts of a task that ended badly at `since` or later, oldest first.
///
/// # Errors
/// Database.
pub async fn failed_attempts(
    executor: impl PgExecutor<'_>,
    task: TaskId,
    since: DateTime<Utc>,
) -> Result<Vec<FailedAttempt>> {
    Ok(sqlx::query_as(
        "select a.split_id, a.token, u.split_no, a.attempt, a.phase::text as phase, a.outcome, a.error,
                w.name as worker_name, a.finished_at as at
           from divvy.attempt a
           left join divvy.unit u on u.id = a.split_id
           left join divvy.worker w on w.id = a.worker
          where a.task_id = $1 and a.finished_at >= $2
          order by a.finished_at, a.split_id, a.token limit $3",
    )
    .bind(task)
    .bind(since)
    .bind(ROWS_MAX)
    .fetch_all(executor)
    .await?)
}

row! {
    /// A row of `divvy.split_log`.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Serialize)]
    #[expect(missing_docs, reason = "the table's columns, documented in sql/README.md")]
    pub struct LogLine {
        pub split_id: SplitId,
        pub token: Token,
        pub line: i32,
        pub split_no: i32,
        pub phase: Option<Phase>,
        pub at: DateTime<Utc>,
        pub level: String,
        pub message: String,
        pub fields: Option<Value>,
    }
}

/// The last log lines of a split, over all its attempts, oldest first.
///
/// # Errors
/// Database.
pub async fn split_log(executor: impl PgExecutor<'_>, split: SplitId) -> Result<Vec<LogLine>> {
    Ok(sqlx::query_as(
        "select l.split_id, l.token, l.line, u.split_no, u.phase::text as phase, l.at, l.level, l.message, l.fields
           from (select split_id, token, line, at, level, message, fields from divvy.split_log
                  where split_id = $1 order by token desc, line desc limit $2) l
           join divvy.unit u on u.id = l.split_id
          order by l.token, l.line",
    )
    .bind(split)
    .bind(ROWS_MAX)
    .fetch_all(executor)
    .await?)
}

/// A line's place in a task's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogPlace {
    /// When it was written.
    pub at: DateTime<Utc>,
    /// By which split.
    pub split: SplitId,
    /// Under which claim.
    pub token: Token,
    /// Its number.
    pub line: i32,
}

/// The log lines of all splits of a task after `place`, oldest first, at most [`ROWS_MAX`].
///
/// # Errors
/// Database.
pub async fn task_log(executor: impl PgExecutor<'_>, task: TaskId, place: LogPlace) -> Result<Vec<LogLine>> {
    Ok(sqlx::query_as(
        "select l.split_id, l.token, l.line, u.split_no, u.phase, l.at, l.level, l.message, l.fields
           from (select s.id, s.split_no, s.phase::text as phase from divvy.share s where s.share_of = $1
                 union all select k.id, k.split_no, k.phase::text from divvy.task k where k.id = $1) u
           join divvy.split_log l on l.split_id = u.id
          where (l.at, l.split_id, l.token, l.line) > ($2, $3, $4, $5)
          order by l.at, l.split_id, l.token, l.line limit $6",
    )
    .bind(task)
    .bind(place.at)
    .bind(place.split)
    .bind(place.token)
    .bind(place.line)
    .bind(ROWS_MAX)
    .fetch_all(executor)
    .await?)
}

impl LogLine {
    /// Where it stands.
    pub fn place(&self) -> LogPlace {
        LogPlace { at: self.at, split: self.split_id, token: self.token, line: self.line }
    }
}
