//! Taking splits, and taking the next ones in the round trip that completes the last.

mod part;
mod rule;

use crate::Result;
use crate::id::{SplitId, TaskId, Token};
use crate::in_sql::row;
use crate::store::complete::{Batch, Finished};
use crate::store::state::{Completed, Phase};
use crate::store::{interval, seconds};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::postgres::types::PgInterval;
use sqlx::{PgExecutor, Row};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

row! {
    /// One claimed split, with everything needed to run it. What users wrote stays unparsed until the
    /// split's own failure boundary, so that one malformed value harms one split.
    #[derive(Debug, Clone)]
    pub struct Claimed {
        /// The split.
        pub split_id: SplitId,
        /// Its task.
        pub task_id: TaskId,
        /// The type that selects the handler.
        pub task_type: Arc<str>,
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
        /// How long it may run, where the database says so; see [`Claimed::limit`].
        pub timeout: Option<PgInterval>,
    }
}

impl Claimed {
    /// How long it may run, where the database says so.
    pub fn limit(&self) -> Option<Duration> {
        let timeout = self.timeout.as_ref()?;
        // A month has 30 days, as when Postgres compares intervals.
        let days = i64::from(timeout.months) * 30 + i64::from(timeout.days);
        let total = days.saturating_mul(86_400_000_000).saturating_add(timeout.microseconds);
        u64::try_from(total).ok().filter(|total| *total > 0).map(Duration::from_micros)
    }
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

    /// The types of which something may come.
    pub fn with_room(&self) -> Vec<String> {
        let rooms = self.task_types.iter().zip(&self.per_type);
        rooms.filter(|(_, room)| **room > 0).map(|(name, _)| name.clone()).collect()
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
                checkpoint, headers, epoch::int as epoch, scheduled_for, idempotency_key, timeout
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

/// What one [`exchange`] answered.
#[derive(Debug, Default)]
pub struct Exchange {
    /// What became of each finished split.
    pub completed: Vec<(SplitId, Completed)>,
    /// The splits taken.
    pub claimed: Vec<Claimed>,
}

/// `divvy.exchange`: completes the last batch and takes the next in one round trip.
///
/// # Errors
/// As [`claim`] and [`crate::store::complete::complete_many`]; neither half has happened then.
pub async fn exchange(executor: impl PgExecutor<'_>, finished: &[Finished], ask: &Ask) -> Result<Exchange> {
    let batch = Batch::new(finished);
    let rows =
        sqlx::query("select verdicts, (part).* from divvy.exchange($1, $2, $3, $4, $5, $6, $7, $8, $9)")
            .bind(ask.worker)
            .bind(&batch.splits)
            .bind(&batch.tokens)
            .bind(&batch.results)
            .bind(&ask.task_types)
            .bind(ask.max())
            .bind(ask.lease.map(interval))
            .bind(&ask.per_type)
            .bind(&batch.runs)
            .fetch_all(executor)
            .await?;
    let mut answer = Exchange::default();
    let Some((first, parts)) = rows.split_first() else { return Ok(answer) };
    answer.completed = batch.each(first.try_get("verdicts")?);
    for part in parts {
        part::unfold(part, &mut answer.claimed)?;
    }
    Ok(answer)
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
    fn a_limit_is_read_as_postgres_means_it() {
        let limit = |months, days, microseconds| {
            let mut split = part::tests::claimed();
            split.timeout = Some(PgInterval { months, days, microseconds });
            split.limit()
        };
        assert_eq!(limit(0, 0, 900_000_000), Some(Duration::from_secs(900)));
        assert_eq!(limit(1, 1, 250_000), Some(Duration::from_secs(31 * 86_400) + Duration::from_millis(250)));
        assert_eq!((limit(0, 0, 0), limit(0, -1, 5), limit(i32::MAX, 0, 1).is_some()), (None, None, true));
    }
}
