//! What a worker says about a split it holds. Each call is guarded by the token: DV001 when it is lost.

use crate::Result;
use crate::id::{SplitId, Token};
use crate::in_sql::row;
use crate::store::interval;
use crate::store::state::{Completed, SplitStatus};
use chrono::{DateTime, Utc};
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::PgExecutor;
use sqlx::types::Json;
use std::time::Duration;

/// Ids of splits of large tasks lie above all others (`divvy.id_256` and its like). To say others in runs is allowed, and
/// slower: they end one by one.
const LARGE_FROM: i64 = 1 << 50;
/// Fewer cost less one by one.
const RUN_LEAST: usize = 8;

/// A split whose work is done, with its result.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The split.
    pub split_id: SplitId,
    /// The right to finish it.
    pub token: Token,
    /// What it returned.
    pub result: Option<Box<RawValue>>,
}

row! {
    /// Where a failed split went.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Failed {
        /// Its new status.
        pub status: SplitStatus,
        /// When it will be tried again.
        pub next_at: Option<DateTime<Utc>>,
    }
}

/// `divvy.complete`: finishes one split. In a transaction, the caller's writes commit with it or not at all.
///
/// # Errors
/// LeaseLost for every call but the one that finishes the split; Cancelled; OverLimit.
pub async fn complete(
    executor: impl PgExecutor<'_>,
    split: SplitId,
    token: Token,
    result: Option<&RawValue>,
) -> Result<SplitStatus> {
    Ok(sqlx::query_scalar("select divvy.complete($1, $2, $3)::text")
        .bind(split)
        .bind(token)
        .bind(result)
        .fetch_one(executor)
        .await?)
}

/// What the splits returned, in one JSON array; null for nothing.
type Results<'r> = Option<Json<Vec<Option<&'r RawValue>>>>;

/// A batch as `divvy.exchange` takes it: ids, tokens and one JSON array of the results (drivers flatten arrays of
/// JSON, so the protocol has none); and runs of splits of large tasks, in which a split costs nothing.
pub(crate) struct Batch<'f> {
    pub(crate) splits: Vec<SplitId>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) results: Results<'f>,
    /// Token, first and last id of each.
    pub(crate) runs: Vec<i64>,
    /// In the order of the verdicts.
    order: Vec<SplitId>,
}

impl<'f> Batch<'f> {
    /// By lease, and in the order of its ids: so the database finds a whole lease at a glance.
    pub(crate) fn new(finished: &'f [Finished]) -> Self {
        let mut sorted: Vec<&Finished> = finished.iter().collect();
        sorted.sort_unstable_by_key(|one| (one.token, one.split_id));
        let (mut single, mut runs, mut in_runs) = (Vec::<&Finished>::new(), Vec::new(), Vec::new());
        for run in sorted.chunk_by(|one, next| adjoin(one, next)) {
            let (first, last) = (run[0], run[run.len() - 1]);
            if run.len() >= RUN_LEAST {
                runs.extend([first.token.0, first.split_id.0, last.split_id.0]);
                in_runs.extend(run.iter().map(|one| one.split_id));
            } else {
                single.extend(run);
            }
        }
        let splits: Vec<SplitId> = single.iter().map(|one| one.split_id).collect();
        let tokens = single.iter().map(|one| one.token).collect();
        let results = single
            .iter()
            .any(|one| one.result.is_some())
            .then(|| Json(single.iter().map(|one| one.result.as_deref()).collect()));
        let order = splits.iter().copied().chain(in_runs).collect();
        Self { splits, tokens, results, runs, order }
    }

    /// Splits and their verdicts; none: all went well.
    pub(crate) fn each(self, verdicts: Option<Vec<Completed>>) -> Vec<(SplitId, Completed)> {
        match verdicts {
            Some(verdicts) => self.order.into_iter().zip(verdicts).collect(),
            None => self.order.into_iter().map(|split| (split, Completed::Ok)).collect(),
        }
    }
}

/// Whether one may follow the other in a run.
fn adjoin(one: &Finished, next: &Finished) -> bool {
    one.split_id.0 >= LARGE_FROM
        && one.token == next.token
        && one.split_id.0 + 1 == next.split_id.0
        && one.result.is_none()
        && next.result.is_none()
}

/// Finishes a batch, with a verdict for each instead of an error: `divvy.exchange` without a claim, since
/// `divvy.complete_many` answers with a row for each split.
///
/// # Errors
/// OverLimit for a result; Database. Nothing is finished then.
pub async fn complete_many(
    executor: impl PgExecutor<'_>,
    finished: &[Finished],
) -> Result<Vec<(SplitId, Completed)>> {
    let batch = Batch::new(finished);
    let query = "select verdicts from divvy.exchange(null, $1, $2, $3, '{}', 0, runs => $4)";
    let verdicts = sqlx::query_scalar(query)
        .bind(&batch.splits)
        .bind(&batch.tokens)
        .bind(&batch.results)
        .bind(&batch.runs)
        .fetch_one(executor)
        .await?;
    Ok(batch.each(verdicts))
}

/// `divvy.fail`: records a failed attempt; `retry` false stops the split for good.
///
/// # Errors
/// LeaseLost.
pub async fn fail(
    executor: impl PgExecutor<'_>,
    split: SplitId,
    token: Token,
    error: &Value,
    retry: bool,
    retry_in: Option<Duration>,
) -> Result<Failed> {
    Ok(sqlx::query_as("select status::text as status, next_at from divvy.fail($1, $2, $3, $4, $5)")
        .bind(split)
        .bind(token)
        .bind(error)
        .bind(retry)
        .bind(retry_in.map(interval))
        .fetch_one(executor)
        .await?)
}

/// `divvy.snooze`: not finished, call again after `delay` with `state` as the checkpoint; uses no attempt.
///
/// # Errors
/// LeaseLost, OverLimit.
pub async fn snooze(
    executor: impl PgExecutor<'_>,
    split: SplitId,
    token: Token,
    delay: Duration,
    state: Option<&Value>,
) -> Result<Option<DateTime<Utc>>> {
    Ok(sqlx::query_scalar("select divvy.snooze($1, $2, $3, $4)")
        .bind(split)
        .bind(token)
        .bind(interval(delay))
        .bind(state)
        .fetch_one(executor)
        .await?)
}

/// `divvy.release`: gives a split back untouched; uses no attempt.
///
/// # Errors
/// LeaseLost.
pub async fn release(executor: impl PgExecutor<'_>, split: SplitId, token: Token) -> Result<()> {
    sqlx::query("select divvy.release($1, $2)").bind(split).bind(token).execute(executor).await?;
    Ok(())
}

/// `divvy.checkpoint`: saves state that the next attempt is given, and how far the split is; none leaves either as it is.
///
/// # Errors
/// LeaseLost, OverLimit.
pub async fn checkpoint(
    executor: impl PgExecutor<'_>,
    split: SplitId,
    token: Token,
    state: Option<&RawValue>,
    progress: Option<f32>,
) -> Result<()> {
    sqlx::query("select divvy.checkpoint($1, $2, $3, $4)")
        .bind(split)
        .bind(token)
        .bind(state)
        .bind(progress)
        .execute(executor)
        .await?;
    Ok(())
}

/// `divvy.log`: adds a line to the attempt's log; beyond the cap lines are dropped.
///
/// # Errors
/// LeaseLost.
pub async fn log(
    executor: impl PgExecutor<'_>,
    split: SplitId,
    token: Token,
    level: &str,
    message: &str,
    fields: Option<&Value>,
) -> Result<()> {
    sqlx::query("select divvy.log($1, $2, $3, $4, $5)")
        .bind(split)
        .bind(token)
        .bind(level)
        .bind(message)
        .bind(fields)
        .execute(executor)
        .await?;
    Ok(())
}

/// `divvy.log` for several lines, in order, in one round trip.
///
/// # Errors
/// LeaseLost.
pub async fn log_lines(
    executor: impl PgExecutor<'_>,
    split: SplitId,
    token: Token,
    level: &str,
    messages: &[String],
) -> Result<()> {
    sqlx::query(
        "select divvy.log($1, $2, $3, m) from unnest($4::text[]) with ordinality l (m, n) order by n",
    )
    .bind(split)
    .bind(token)
    .bind(level)
    .bind(messages)
    .execute(executor)
    .await?;
    Ok(())
}

/// `divvy.add_splits`: stages splits that appear when the adding split completes.
///
/// # Errors
/// LeaseLost; OverLimit above 10,000 a call or 1,000,000 a task; Conflict when the task is sealed.
pub async fn add_splits(
    executor: impl PgExecutor<'_>,
    split: SplitId,
    token: Token,
    payloads: &RawValue,
) -> Result<i32> {
    Ok(sqlx::query_scalar("select divvy.add_splits($1, $2, $3)::int")
        .bind(split)
        .bind(token)
        .bind(payloads)
        .fetch_one(executor)
        .await?)
}

row! {
    /// One ended split, as reduce sees it.
    #[derive(Debug, Clone)]
    pub struct ReduceInput {
        /// Its number in the task.
        pub split_no: i32,
        /// How it ended.
        pub status: SplitStatus,
        /// What it returned.
        pub result: Option<Box<RawValue>>,
        /// Why it failed.
        pub error: Option<Value>,
    }
}

/// `divvy.reduce_inputs`: a page of the task's ended splits, by number.
///
/// # Errors
/// LeaseLost.
pub async fn reduce_inputs(
    executor: impl PgExecutor<'_>,
    split: SplitId,
    token: Token,
    after: i32,
    max: i32,
) -> Result<Vec<ReduceInput>> {
    Ok(sqlx::query_as(
        "select split_no::int as split_no, status::text as status, result, error
           from divvy.reduce_inputs($1, $2, $3, $4)",
    )
    .bind(split)
    .bind(token)
    .bind(after)
    .bind(max)
    .fetch_all(executor)
    .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_adjoins_goes_in_runs_and_verdicts_find_their_splits() {
        let finished = |id: i64, token: i64, result: Option<&str>| Finished {
            split_id: SplitId(id),
            token: Token(token),
            result: result.map(|text| RawValue::from_string(text.to_owned()).unwrap()),
        };
        let at = |n: i64| LARGE_FROM + n;
        let mut all: Vec<Finished> =
            (0..20).rev().map(|n| finished(at(n), 7, (n == 9).then_some("1"))).collect();
        all.extend((1..30).map(|id| finished(id, 8, None)));
        all.extend((30..35).map(|n| finished(at(n), 7, None)));
        let batch = Batch::new(&all);
        assert_eq!(batch.runs, [7, at(0), at(8), 7, at(10), at(19)]);
        let single: Vec<i64> = batch.splits.iter().map(|id| id.0).collect();
        let expected: Vec<i64> = [at(9)].into_iter().chain((30..35).map(at)).chain(1..30).collect();
        assert_eq!(single, expected);
        assert_eq!(batch.tokens[5..7], [Token(7), Token(8)]);
        let returned = |results: &Results| results.as_ref().unwrap().0.iter().flatten().count();
        assert_eq!((batch.tokens.len(), returned(&batch.results)), (35, 1));
        let mut verdicts = vec![Completed::Ok; 54];
        verdicts[0] = Completed::Lost;
        verdicts[35 + 9] = Completed::Cancelled;
        let each = batch.each(Some(verdicts));
        assert_eq!(each.len(), 54);
        assert_eq!(each[0], (SplitId(at(9)), Completed::Lost));
        assert_eq!(each[44], (SplitId(at(10)), Completed::Cancelled));
    }
}
