//! Splits whose outcome comes by a callback.

use crate::Result;
use crate::id::{SplitId, Token};
use crate::store::interval;
use chrono::{DateTime, Utc};
use sqlx::PgExecutor;
use std::time::Duration;

/// `divvy.await_callback`: the split runs on without heartbeats, until its callback comes or its time is over. Until when;
/// none when its task was cancelled meanwhile.
///
/// # Errors
/// LeaseLost, also when the callback was faster.
pub async fn wait(
    executor: impl PgExecutor<'_>,
    split: SplitId,
    token: Token,
    within: Option<Duration>,
) -> Result<Option<DateTime<Utc>>> {
    Ok(sqlx::query_scalar("select divvy.await_callback($1, $2, $3)")
        .bind(split)
        .bind(token)
        .bind(within.map(interval))
        .fetch_one(executor)
        .await?)
}

/// `divvy.callback_token`: the token that holds the split now, for the one that its callback knows.
///
/// # Errors
/// Database.
pub async fn token(executor: impl PgExecutor<'_>, split: SplitId, token: Token) -> Result<Token> {
    Ok(sqlx::query_scalar("select divvy.callback_token($1, $2)")
        .bind(split)
        .bind(token)
        .fetch_one(executor)
        .await?)
}
