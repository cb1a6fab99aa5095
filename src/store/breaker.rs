//! Breakers of types that are pushed: the database decides, for all workers at once.

use crate::Result;
use crate::id::{SplitId, Token};
use crate::store::interval;
use chrono::{DateTime, Utc};
use sqlx::PgExecutor;
use std::time::Duration;

/// `divvy.open_breaker`: pauses the type for `base`, and twice as long each time again, up to `most`. Until when; none when
/// that was decided before.
///
/// # Errors
/// NotFound when there is no such type.
pub async fn open(
    executor: impl PgExecutor<'_>,
    task_type: &str,
    (split, token): (SplitId, Token),
    reason: &str,
    (base, most): (Duration, Duration),
) -> Result<Option<DateTime<Utc>>> {
    Ok(sqlx::query_scalar("select divvy.open_breaker($1, $2, $3, $4, $5, $6)")
        .bind(task_type)
        .bind(split)
        .bind(token)
        .bind(reason)
        .bind(interval(base))
        .bind(interval(most))
        .fetch_one(executor)
        .await?)
}

/// `divvy.probe_breaker`: whether this split may try.
///
/// # Errors
/// NotFound when there is no such type.
pub async fn probe(
    executor: impl PgExecutor<'_>,
    task_type: &str,
    (split, token): (SplitId, Token),
    within: Duration,
) -> Result<bool> {
    Ok(sqlx::query_scalar("select divvy.probe_breaker($1, $2, $3, $4)")
        .bind(task_type)
        .bind(split)
        .bind(token)
        .bind(interval(within))
        .fetch_one(executor)
        .await?)
}

/// `divvy.close_breaker`: the split that tried was answered.
///
/// # Errors
/// NotFound when there is no such type.
pub async fn close(
    executor: impl PgExecutor<'_>,
    task_type: &str,
    (split, token): (SplitId, Token),
) -> Result<bool> {
    Ok(sqlx::query_scalar("select divvy.close_breaker($1, $2, $3)")
        .bind(task_type)
        .bind(split)
        .bind(token)
        .fetch_one(executor)
        .await?)
}

/// The types whose breaker is not closed.
///
/// # Errors
/// Database.
pub async fn not_closed(executor: impl PgExecutor<'_>) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar("select b.task_type from divvy.breaker b").fetch_all(executor).await?)
}
