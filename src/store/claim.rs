//! Taking splits, and taking the next ones in the round trip that completes the last.

use crate::id::{SplitId, TaskId, Token};
use crate::store::complete::Finished;
use crate::store::state::{Completed, Phase};
use crate::store::{interval, seconds};
use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::PgExecutor;
use sqlx::types::Json;
use std::time::Duration;
use uuid::Uuid;

/// One claimed split, with everything needed to run it. What users wrote stays unparsed until the
/// split's own failure boundary, so that one malformed value harms one split.
#[derive(Debug, Clone, Deserialize, sqlx::FromRow)]
pub struct Claimed {
    /// The split.
    pub split_id: SplitId,
    /// Its task.
    pub task_id: TaskId,
    /// The type that selects the handler.
    pub task_type: String,
    /// Plan, execute or reduce.
    pub phase: Phase,
    /// Its number in the task, from 1; 0 for plan and reduce.
    pub split_no: i32,
    /// How many splits the task has, as far as that is known.
    pub split_count: i32,
    /// Which charged attempt this is, from 1.
    pub attempt: i32,
    /// How many attempts it may use.
    pub max_attempts: i32,
    /// The right to finish it.
    pub token: Token,
    /// When the lease ends unless it is renewed.
    pub lease_until: DateTime<Utc>,
    /// The task's payload.
    pub payload: Option<Box<RawValue>>,
    /// The split's share of it.
    pub split_payload: Option<Box<RawValue>>,
    /// What an earlier attempt saved.
    pub checkpoint: Option<Box<RawValue>>,
    /// Lineage and the like, carried from the producer.
    pub headers: Option<Box<RawValue>>,
    /// 1, and one more after each redrive.
    pub epoch: i32,
    /// The moment the task was meant for.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// The same over retries and reclaims; new after each continuation and redrive.
    pub idempotency_key: String,
    /// How long it may run, as Postgres writes intervals; see [`Claimed::limit`].
    pub timeout: Option<String>,
}

impl Claimed {
    /// How long it may run, where the database says so.
    pub fn limit(&self) -> Option<Duration> {
        self.timeout.as_deref().and_then(clock_time)
    }
}

/// Reads what Postgres writes for an interval: `[N mon[s]] [N day[s]] HH:MM:SS[.fraction]`. A month has 30 days, as
/// when Postgres compares intervals.
fn clock_time(text: &str) -> Option<Duration> {
    let mut words = text.split_ascii_whitespace();
    let mut total = 0.0;
    while let Some(word) = words.next() {
        if word.starts_with('-') {
            return None;
        }
        if word.contains(':') {
            let mut seconds = 0.0;
            for part in word.split(':') {
                seconds = seconds * 60.0 + part.parse::<f64>().ok()?;
            }
            total += seconds;
        } else {
            let days = match words.next()?.trim_end_matches('s') {
                "day" => 1.0,
                "mon" => 30.0,
                "year" => 360.0,
                _ => return None,
            };
            total += word.parse::<f64>().ok()? * days * 86_400.0;
        }
    }
    Duration::try_from_secs_f64(total).ok().filter(|limit| !limit.is_zero())
}

/// What to claim.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The registered worker.
    pub worker: Uuid,
    /// The types to take from.
    pub task_types: Vec<String>,
    /// How many of each at most, in the same order.
    pub per_type: Vec<i32>,
    /// How many at most over all types.
    pub most: i32,
    /// The lease; none for the types' own.
    pub lease: Option<Duration>,
}

impl Ask {
    /// How many splits at most, over all types.
    pub fn max(&self) -> i32 {
        self.per_type.iter().fold(0i32, |sum, n| sum.saturating_add(*n)).min(self.most)
    }
}

/// `divvy.claim`: takes ready splits under one new lease.
///
/// # Errors
/// NotFound when the worker isn't registered; Database.
pub async fn claim(executor: impl PgExecutor<'_>, ask: &Ask) -> Result<Vec<Claimed>> {
    Ok(sqlx::query_as(
        "select split_id, task_id, task_type, phase::text as phase, split_no::int as split_no,
                split_count::int as split_count, attempt::int as attempt,
                max_attempts::int as max_attempts, token, lease_until, payload, split_payload,
                checkpoint, headers, epoch::int as epoch, scheduled_for, idempotency_key, timeout::text as timeout
           from divvy.claim($1, $2, $3, $4, $5)",
    )
    .bind(ask.worker)
    .bind(&ask.task_types)
    .bind(ask.max())
    .bind(ask.lease.map(interval))
    .bind(&ask.per_type)
    .fetch_all(executor)
    .await?)
}

/// What one [`complete_and_claim`] answered.
#[derive(Debug, Default)]
pub struct Exchange {
    /// What became of each finished split.
    pub completed: Vec<(SplitId, Completed)>,
    /// The splits taken.
    pub claimed: Vec<Claimed>,
}

/// A JSON column that is read into its own types afterwards.
type RawJson = Option<Json<Box<RawValue>>>;

#[derive(Deserialize)]
struct Verdict {
    split_id: SplitId,
    verdict: Completed,
}

/// `divvy.complete_and_claim`: completes the last batch and takes the next in one round trip.
///
/// # Errors
/// As [`claim`] and [`crate::store::complete::complete_many`]; neither half has happened then.
pub async fn complete_and_claim(
    executor: impl PgExecutor<'_>,
    finished: &[Finished],
    ask: &Ask,
) -> Result<Exchange> {
    let (splits, tokens, results) = crate::store::complete::columns(finished);
    let (completed, claimed): (RawJson, RawJson) = sqlx::query_as(
        "select completed, claimed from divvy.complete_and_claim($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(ask.worker)
    .bind(splits)
    .bind(tokens)
    .bind(results)
    .bind(&ask.task_types)
    .bind(ask.max())
    .bind(ask.lease.map(interval))
    .bind(&ask.per_type)
    .fetch_one(executor)
    .await?;
    let completed: Vec<Verdict> = parsed(completed)?;
    Ok(Exchange {
        completed: completed.into_iter().map(|row| (row.split_id, row.verdict)).collect(),
        claimed: parsed(claimed)?,
    })
}

fn parsed<T: for<'de> Deserialize<'de>>(answer: RawJson) -> Result<Vec<T>> {
    let Some(Json(raw)) = answer else { return Ok(Vec::new()) };
    serde_json::from_str::<Option<Vec<T>>>(raw.get()).map(Option::unwrap_or_default).map_err(|error| {
        Error::new(
            ErrorKind::Protocol,
            format!("divvy.complete_and_claim answered what this version can't read: {error}"),
        )
        .caused_by(error)
    })
}

/// `divvy.next_wait`: how long until something of these types may become ready; runs a small tick.
///
/// # Errors
/// Database.
pub async fn next_wait(executor: impl PgExecutor<'_>, task_types: &[String]) -> Result<Option<Duration>> {
    let wait: Option<f64> = sqlx::query_scalar("select extract(epoch from divvy.next_wait($1))::float8")
        .bind(task_types)
        .fetch_one(executor)
        .await?;
    Ok(wait.map(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_as_postgres_writes_it() {
        for (text, seconds) in [
            ("00:15:00", 900.0),
            ("00:00:00.25", 0.25),
            ("1 day", 86_400.0),
            ("2 days 01:00:00", 176_400.0),
            ("1 mon 1 day", 2_678_400.0),
        ] {
            assert_eq!(clock_time(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "P1D", "-00:00:01", "soon"] {
            assert_eq!(clock_time(text), None, "{text}");
        }
    }
}
