//! Numbers for those who draw curves: the database's health now, and what waited and ran minute by minute.

use crate::Result;
use crate::in_sql::row;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;

/// `divvy.database_health` where it says numbers: moments in seconds, switches as 0 and 1.
///
/// # Errors
/// Database.
pub async fn health(executor: impl PgExecutor<'_>) -> Result<Vec<(String, f64)>> {
    let query = "
        select name, n from (
            select name, case
                when name in ('oldest_transaction', 'last_tick') then extract(epoch from value::interval)::float8
                when name = 'notification_queue' then value::float8
                when name in ('fsync', 'synchronous_commit', 'full_page_writes') then (value <> 'off')::int::float8
                when name = 'leader' then (value is not null)::int::float8 end as n
              from divvy.database_health) h
         where n is not null order by name";
    Ok(sqlx::query_as(query).fetch_all(executor).await?)
}

row! {
    /// A row of `divvy.metric_minute`: one type in one minute.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Serialize)]
    #[expect(missing_docs, reason = "the view's columns, documented in sql/README.md")]
    pub struct MinuteRow {
        pub at: DateTime<Utc>,
        pub task_type: String,
        pub ready: i64,
        pub delayed: i64,
        pub running: i64,
        pub scheduled: i64,
        pub held: i64,
        pub workers: i64,
        pub oldest_ready_seconds: Option<f64>,
    }
}

/// Which minutes: after one moment, before another, of one type or of all.
#[derive(Debug, Clone, Default)]
pub struct MinuteFilter {
    /// Of this type.
    pub task_type: Option<String>,
    /// From this moment on.
    pub from: Option<DateTime<Utc>>,
    /// Up to this moment, which is not included.
    pub to: Option<DateTime<Utc>>,
    /// The page after this minute and type.
    pub after: Option<(DateTime<Utc>, String)>,
    /// Rows a page.
    pub limit: i64,
}

/// Minutes, oldest first.
///
/// # Errors
/// Database.
pub async fn minutes(executor: impl PgExecutor<'_>, filter: &MinuteFilter) -> Result<Vec<MinuteRow>> {
    let (after_at, after_type) = filter.after.clone().unzip();
    Ok(sqlx::query_as(
        "select at, task_type, ready, delayed, running, scheduled, held, workers,
                extract(epoch from oldest_ready)::float8 as oldest_ready_seconds
           from divvy.metric_minute
          where ($1::text is null or task_type = $1) and ($2::timestamptz is null or at >= $2)
            and ($3::timestamptz is null or at < $3) and ($4::timestamptz is null or (at, task_type) > ($4, $5::text))
          order by at, task_type limit $6",
    )
    .bind(&filter.task_type)
    .bind(filter.from)
    .bind(filter.to)
    .bind(after_at)
    .bind(after_type)
    .bind(filter.limit)
    .fetch_all(executor)
    .await?)
}
