//! The same done to many tasks.

use crate::Result;
use crate::id::TaskId;
use crate::in_sql::row;
use serde::Serialize;
use serde_json::Value;
use sqlx::PgExecutor;

row! {
    /// What one call of `divvy.bulk` found and did.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
    pub struct Bulk {
        /// How many tasks match; null in a call that goes on after a task.
        pub matched: Option<i64>,
        /// How many of them it was done to by this call.
        pub done: i64,
        /// How many refused it by their state, or were held by somebody just then.
        pub refused: i64,
        /// Where the next call goes on, as `after` of its filter; null: there is no more to do.
        pub last_id: Option<TaskId>,
    }
}

/// `divvy.bulk`: does `action` to the tasks that `filter` finds, a bounded number a call; a dry run only counts.
///
/// # Errors
/// BadOption, OverLimit.
pub async fn bulk(
    executor: impl PgExecutor<'_>,
    filter: &Value,
    action: &str,
    dry_run: bool,
    options: &Value,
) -> Result<Bulk> {
    Ok(sqlx::query_as("select matched, done, refused, last_id from divvy.bulk($1, $2, $3, $4)")
        .bind(filter)
        .bind(action)
        .bind(dry_run)
        .bind(options)
        .fetch_one(executor)
        .await?)
}
