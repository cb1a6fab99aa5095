//! Claims that wait. A client that goes away while it waits holds nothing: what was claimed for it and can't be handed to
//! its connection is released at once; what was handed over and never arrived comes back when its lease ends.

use super::super::call::{Answer, Call};
use super::super::new_task::Name;
use super::super::problem::Problem;
use super::super::tasks::seconds;
use super::super::{Api, wake};
use crate::apart;
use crate::id::{SplitId, TaskId, Token};
use crate::jitter::about;
use crate::store::claim::{self, Ask, Claimed, next_wait};
use crate::store::complete;
use crate::store::state::Phase;
use crate::{Error, ErrorKind};
use axum::body::{Body, Bytes};
use chrono::{DateTime, Utc};
use http_body::{Frame, SizeHint};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

/// The longest wait, in seconds.
const WAIT_MAX: f64 = 30.0;
/// The pause between two looks: woken earlier when work comes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A wait of zero would be a busy loop.
const PAUSE_LEAST: Duration = Duration::from_millis(5);
/// Splits of one claim at most.
const CLAIM_MAX: i32 = 5_000;

/// What to claim
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// The registered worker
    worker: Uuid,
    /// The types to take from
    #[schemars(length(max = 1000))]
    task_types: Vec<Name>,
    /// How many splits at most; default 1
    #[schemars(range(min = 1, max = 5000))]
    max: Option<i32>,
    /// How many of each type, in the same order; default: max
    per_type: Option<Vec<i32>>,
    /// For how long, in seconds; default: the longest of the types'
    #[schemars(range(min = 0, max = 315_360_000))]
    lease: Option<f64>,
    /// How long to wait for the first, in seconds: 0 to 30; default 0
    #[schemars(range(min = 0, max = 30))]
    wait: Option<f64>,
}

/// What was claimed
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Given {
    /// The splits; none when there was nothing in time
    splits: Vec<Split>,
}

/// One claimed split, with everything needed to run it
#[derive(Debug, Serialize, JsonSchema)]
struct Split {
    /// The split
    split_id: SplitId,
    /// Its task
    task_id: TaskId,
    /// The type that selects the handler
    task_type: String,
    /// Plan, execute or reduce
    phase: Phase,
    /// Its number in the task, from 1; 0 for plan and reduce
    split_no: i32,
    /// How many splits the task has, as far as that is known
    split_count: i32,
    /// Which charged attempt this is, from 1
    attempt: i32,
    /// How many attempts it may use
    max_attempts: i32,
    /// The right to finish it
    token: Token,
    /// When the lease ends unless it is renewed
    lease_until: DateTime<Utc>,
    /// The task's payload
    payload: Option<Box<RawValue>>,
    /// The split's share of it
    split_payload: Option<Box<RawValue>>,
    /// What an earlier attempt saved
    checkpoint: Option<Box<RawValue>>,
    /// Lineage and the like, carried from the producer
    headers: Option<Box<RawValue>>,
    /// 1, and one more after each redrive
    epoch: i32,
    /// The moment the task was meant for
    scheduled_for: Option<DateTime<Utc>>,
    /// The same over retries and reclaims: send it along with effects elsewhere
    idempotency_key: String,
    /// How long it may run, in seconds, where the database says so
    timeout_seconds: Option<f64>,
}

impl From<&Claimed> for Split {
    fn from(one: &Claimed) -> Self {
        Self {
            split_id: one.split_id,
            task_id: one.task_id,
            task_type: one.task_type.to_string(),
            phase: one.phase,
            split_no: one.split_no,
            split_count: one.split_count,
            attempt: one.attempt,
            max_attempts: one.max_attempts,
            token: one.token,
            lease_until: one.lease_until,
            payload: one.payload.clone(),
            split_payload: one.split_payload.clone(),
            checkpoint: one.checkpoint.clone(),
            headers: one.headers.clone(),
            epoch: one.epoch,
            scheduled_for: one.scheduled_for,
            idempotency_key: one.idempotency_key.clone(),
            timeout_seconds: one.limit().map(|limit| limit.as_secs_f64()),
        }
    }
}

pub(super) async fn claim(call: Call, wanted: Wanted) -> Result<Answer<Given>, Problem> {
    let wait = seconds("wait", wanted.wait, WAIT_MAX)?;
    let lease = super::span("lease", wanted.lease)?;
    let max = wanted.max.unwrap_or(1);
    if !(1..=CLAIM_MAX).contains(&max) {
        return Err(Problem::invalid(format!("max is {max}; it must be 1 to {CLAIM_MAX}")));
    }
    let task_types = super::names(wanted.task_types)?;
    let per_type = wanted.per_type.unwrap_or_else(|| vec![max; task_types.len()]);
    let ask = Arc::new(Ask { worker: wanted.worker, task_types, per_type, most: max, lease });
    let until = Instant::now() + wait;
    // Before the first look, so that what comes in after it is heard.
    let mut heard = call.api.wake.subscribe();
    if call.api.stop.is_cancelled() {
        return Err(Problem::unavailable("the service is shutting down"));
    }
    let mut least = PAUSE_LEAST;
    loop {
        let held = take(&call.api, &ask).await?;
        if !held.splits.is_empty() || Instant::now() >= until || call.api.stop.is_cancelled() {
            return held.into_answer();
        }
        let types = ask.clone();
        // From here on producers know that somebody waits, and notify.
        let pause =
            call.look(move |c| Box::pin(async move { next_wait(c, &types.with_room()).await })).await?;
        let most = about(LOOK_EVERY);
        let pause = pause.unwrap_or(most).clamp(least, most.max(least)).min(until - Instant::now());
        // What is ready and yet not given (the worker is to be quiet, a limit is reached) is asked for less and less.
        least = (least * 2).min(LOOK_EVERY);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = wake::of_types(&mut heard, &ask.task_types) => {}
            () = call.api.stop.cancelled() => {}
        }
        call.still_let_in().await?;
    }
}

/// Claims in a task of its own: dropped half-way, a claim could be committed with nobody who knows its token.
async fn take(api: &Arc<Api>, ask: &Arc<Ask>) -> Result<Held, Error> {
    let (tell, told) = oneshot::channel();
    let (api, ask) = (api.clone(), ask.clone());
    apart::spawn(async move {
        let within = api.patience.database;
        let claimed =
            api.store.bounded(within, move |c| Box::pin(async move { claim::claim(c, &ask).await }));
        let held = claimed.await.map(|splits| Held { splits, api });
        // Where nobody listens any more, dropping it releases.
        tell.send(held).ok();
    });
    told.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Busy, "the claim ended early")))
}

/// Claimed splits that nobody has got yet: dropped, they are released.
struct Held {
    splits: Vec<Claimed>,
    api: Arc<Api>,
}

impl Held {
    fn into_answer(self) -> Result<Answer<Given>, Problem> {
        let given = Given { splits: self.splits.iter().map(Split::from).collect() };
        let text = serde_json::to_vec(&given).map_err(|error| Problem::invalid(error.to_string()))?;
        let body = Handed { text: Some(text.into()), held: self };
        Ok(Answer::flowing("application/json", Body::new(body)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let splits = std::mem::take(&mut self.splits);
        if splits.is_empty() {
            return;
        }
        let api = self.api.clone();
        tracing::debug!(splits = splits.len(), "a client has gone: its splits are released");
        apart::spawn(async move {
            for split in splits {
                let (id, token) = (split.split_id, split.token);
                let release = api
                    .store
                    .bounded(api.patience.database, move |c| Box::pin(complete::release(c, id, token)));
                if let Err(error) = release.await {
                    tracing::debug!(split.id = %id, %error, "split {id} is left to its lease");
                }
            }
        });
    }
}

/// The answer on its way: once the connection takes it, the splits are the client's.
struct Handed {
    text: Option<Bytes>,
    held: Held,
}

impl http_body::Body for Handed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let text = self.text.take();
        self.held.splits.clear();
        Poll::Ready(text.map(|text| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.text.as_ref().map_or(0, |text| text.len() as u64))
    }
}
