//! What a handler knows about the split it works on, and what it may do besides returning.

use super::outcome::clipped;
use super::trace::trace;
use super::{Door, HandlerError};
use crate::id::{SplitId, TaskId, Token};
use crate::store::claim::Claimed;
use crate::store::complete;
use crate::store::state::Phase;
use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use sqlx::{PgConnection, PgPool, PgTransaction};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The longest log line the protocol takes; what is longer is cut rather than refused.
const LOG_BYTES_MAX: usize = 8 * 1024;
/// The most splits one call of the protocol takes.
const ADD_SPLITS_ROWS_MAX: usize = 10_000;
/// And about how many bytes are sent in one.
const ADD_SPLITS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One attempt at one split.
pub struct Context<'c> {
    split: Box<Claimed>,
    cancelled: CancellationToken,
    stopping: Arc<CancellationToken>,
    pub(crate) door: Door<'c>,
}

impl<'c> Context<'c> {
    pub(crate) fn new(
        split: Box<Claimed>,
        cancelled: CancellationToken,
        stopping: Arc<CancellationToken>,
        door: Door<'c>,
    ) -> Self {
        Self { split, cancelled, stopping, door }
    }

    /// The task.
    pub fn task_id(&self) -> TaskId {
        self.split.task_id
    }

    /// The task's type.
    pub fn task_type(&self) -> &str {
        &self.split.task_type
    }

    /// The split.
    pub fn split_id(&self) -> SplitId {
        self.split.split_id
    }

    /// Plan, execute or reduce.
    pub fn phase(&self) -> Phase {
        self.split.phase
    }

    /// The split's number in its task, from 1; 0 in plan and reduce.
    pub fn split_no(&self) -> i32 {
        self.split.split_no
    }

    /// How many splits the task has, as far as that is known.
    pub fn split_count(&self) -> i32 {
        self.split.split_count
    }

    /// Which charged attempt this is, from 1.
    pub fn attempt(&self) -> i32 {
        self.split.attempt
    }

    /// How many attempts the split may use.
    pub fn max_attempts(&self) -> i32 {
        self.split.max_attempts
    }

    /// 1, and one more after each redrive.
    pub fn epoch(&self) -> i32 {
        self.split.epoch
    }

    /// The right to finish this split: greater for every later claim, so it fences writes elsewhere.
    pub fn token(&self) -> Token {
        self.split.token
    }

    /// The same over retries and reclaims of this piece of work, new after each `Continue` and redrive.
    /// Pass it on wherever an effect outside this database must not happen twice.
    pub fn idempotency_key(&self) -> &str {
        &self.split.idempotency_key
    }

    /// The moment the task was meant for: its `run_at`, or the schedule's moment.
    pub fn scheduled_for(&self) -> Option<DateTime<Utc>> {
        self.split.scheduled_for
    }

    /// What the producer sent along: lineage, trace ids.
    ///
    /// # Errors
    /// Protocol when it is no JSON this version can read.
    pub fn headers(&self) -> Result<Value> {
        Ok(typed(self.split.headers.as_deref(), "headers")?.unwrap_or(Value::Null))
    }

    /// The trace that the producer began: the header `traceparent`, the same in plan, splits and reduce. None where it is
    /// missing or malformed.
    pub fn traceparent(&self) -> Option<String> {
        trace(self.split.headers.as_deref()).0
    }

    /// The header `tracestate`, beside a `traceparent`.
    pub fn tracestate(&self) -> Option<String> {
        trace(self.split.headers.as_deref()).1
    }

    /// Fires when the task is cancelled, the lease is lost or the time is up: stop soon.
    pub fn cancellation(&self) -> CancellationToken {
        self.cancelled.clone()
    }

    /// Fires when the worker begins to stop. Long work may save a checkpoint and return `Continue`; what is
    /// not finished within the grace period is given back.
    pub fn stopping(&self) -> CancellationToken {
        CancellationToken::clone(&self.stopping)
    }

    /// What an earlier attempt or `Continue` left.
    ///
    /// # Errors
    /// Protocol when it doesn't parse as `T`.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        typed(self.split.checkpoint.as_deref(), "checkpoint")
    }

    /// Saves what a later attempt should find, at once and whatever becomes of this one.
    ///
    /// # Errors
    /// LeaseLost: stop. OverLimit above 256 KiB.
    pub async fn save_checkpoint<T: Serialize + Sync>(&mut self, state: &T) -> Result<()> {
        let (split, token, state) = (self.split.split_id, self.split.token, raw(state, "checkpoint")?);
        self.split.checkpoint = Some(state.clone());
        self.door
            .call(move |c| {
                Box::pin(async move { complete::checkpoint(c, split, token, Some(&state), None).await })
            })
            .await
    }

    /// Says how far this split is, 0 to 1.
    ///
    /// # Errors
    /// LeaseLost: stop.
    pub async fn progress(&mut self, done: f32) -> Result<()> {
        let (split, token, done) = (self.split.split_id, self.split.token, done.clamp(0.0, 1.0));
        self.door
            .call(move |c| {
                Box::pin(async move { complete::checkpoint(c, split, token, None, Some(done)).await })
            })
            .await
    }

    /// Adds a line to the attempt's log (`debug`, `info`, `warn`, `error`). Lines are cut at 8 KiB, and dropped
    /// beyond 1,000 an attempt.
    ///
    /// # Errors
    /// LeaseLost: stop.
    pub async fn log(&mut self, level: &str, message: &str) -> Result<()> {
        let (split, token) = (self.split.split_id, self.split.token);
        let (level, message) = (level.to_owned(), clipped(message, LOG_BYTES_MAX));
        self.door
            .call(move |c| {
                Box::pin(async move { complete::log(c, split, token, &level, &message, None).await })
            })
            .await
    }

    /// Adds splits to the task: the shares of a splitter, or siblings of a running split. They appear all
    /// at once when this split completes, and never if it doesn't. Streams: no more than one batch is held.
    ///
    /// # Errors
    /// LeaseLost: stop. OverLimit: a share above 256 KiB, or a task above 1,000,000 splits.
    pub async fn add_splits<I>(&mut self, shares: I) -> Result<u64>
    where
        I: IntoIterator,
        I::Item: Serialize,
        I::IntoIter: Send,
    {
        let mut shares = shares.into_iter();
        let mut added = 0;
        while let Some((batch, rows)) = next_batch(&mut shares)? {
            let (split, token) = (self.split.split_id, self.split.token);
            self.door
                .call(move |c| Box::pin(async move { complete::add_splits(c, split, token, &batch).await }))
                .await?;
            added += rows as u64;
        }
        Ok(added)
    }

    /// The transaction in which this split's outcome will be written, begun at the first call.
    ///
    /// `Complete` commits it together with the completion: exactly once, because a lost lease rolls it
    /// back. Everything else (an error, `Stop`, `Continue`, a panic, a timeout) rolls it back. Don't end it
    /// yourself.
    ///
    /// # Errors
    /// Database when there is no connection.
    pub async fn transaction(&mut self) -> Result<&mut PgConnection> {
        self.door.transaction().await
    }

    /// Begins the transaction on a connection of `pool` instead of the worker's.
    pub(crate) fn work_in(&mut self, pool: &PgPool) {
        if let Door::Pools { work, .. } = &mut self.door {
            *work = pool.clone();
        }
    }

    /// Everything that the claim brought, unparsed.
    #[cfg(feature = "cli")]
    pub(crate) fn claimed(&self) -> &Claimed {
        &self.split
    }

    /// The task's payload, unparsed.
    pub(crate) fn raw_payload(&self) -> Box<RawValue> {
        self.split.payload.clone().unwrap_or_else(null)
    }

    /// What the split carries, unparsed.
    pub(crate) fn raw_share(&self) -> Box<RawValue> {
        self.split.split_payload.clone().unwrap_or_else(null)
    }

    /// The transaction the handler began, if it did.
    pub(crate) fn into_transaction(self) -> Option<PgTransaction<'static>> {
        match self.door {
            Door::Pools { transaction, .. } => transaction,
            Door::Inline { .. } => None,
        }
    }

    /// Whether the handler asked for the transaction of an inline run.
    pub(crate) fn wrote_inline(&self) -> bool {
        matches!(self.door, Door::Inline { opened: true, .. })
    }

    pub(crate) fn payload<T: DeserializeOwned>(&self) -> Result<T, HandlerError> {
        self.user_value(self.split.payload.as_deref(), "payload")
    }

    pub(crate) fn share<T: DeserializeOwned>(&self) -> Result<T, HandlerError> {
        self.user_value(self.split.split_payload.as_deref(), "share")
    }

    fn user_value<T: DeserializeOwned>(
        &self,
        value: Option<&RawValue>,
        what: &str,
    ) -> Result<T, HandlerError> {
        let text = value.map_or("null", RawValue::get);
        serde_json::from_str(text).map_err(|error| {
            let message = format!(
                "the {what} of split {} (task {}) does not fit the handler of {:?}: {error}",
                self.split.split_id, self.split.task_id, self.split.task_type
            );
            HandlerError::new(message).class(what)
        })
    }
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

fn typed<T: DeserializeOwned>(value: Option<&RawValue>, what: &str) -> Result<Option<T>> {
    value.filter(|raw| raw.get() != "null").map(|raw| serde_json::from_str(raw.get())).transpose().map_err(
        |error| {
            Error::new(ErrorKind::Protocol, format!("the {what} can't be read: {error}")).caused_by(error)
        },
    )
}

fn raw<T: Serialize>(value: &T, what: &str) -> Result<Box<RawValue>> {
    to_raw_value(value).map_err(|error| {
        Error::new(ErrorKind::BadOption, format!("the {what} is no JSON: {error}")).caused_by(error)
    })
}

/// The next shares as one JSON array, bounded in rows and bytes.
fn next_batch<S: Serialize>(shares: &mut impl Iterator<Item = S>) -> Result<Option<(Box<RawValue>, usize)>> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    while batch.len() < ADD_SPLITS_ROWS_MAX && bytes < ADD_SPLITS_BYTES_MAX {
        let Some(share) = shares.next() else { break };
        let share = raw(&share, "share")?;
        bytes += share.get().len();
        batch.push(share);
    }
    if batch.is_empty() {
        return Ok(None);
    }
    Ok(Some((raw(&batch, "array of shares")?, batch.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_shares_is_bounded_in_rows_and_bytes() {
        let mut many = 0..25_000u32;
        let mut sizes = Vec::new();
        while let Some((_, rows)) = next_batch(&mut many).unwrap() {
            sizes.push(rows);
        }
        assert_eq!(sizes, [10_000, 10_000, 5_000]);

        let mut wide = std::iter::repeat_n("x".repeat(1024 * 1024), 9);
        let (batch, rows) = next_batch(&mut wide).unwrap().unwrap();
        assert_eq!(rows, 4);
        assert!(batch.get().len() < 5 * 1024 * 1024);
    }
}
