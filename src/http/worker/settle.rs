//! What a worker says of a split that it holds.

use super::super::call::{Answer, Call};
use super::super::new_task::Text;
use super::super::problem::Problem;
use super::super::route::{Route, post};
use super::super::task_actions::{DONE, Done};
use super::{few, span};
use crate::id::{SplitId, Token};
use crate::store::complete::{self, Finished};
use crate::store::state::{Completed, SplitStatus};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

/// Rows of one look at what is to be reduced.
const INPUTS_MAX: i32 = 1_000;
/// So many are read at first, so that large results are never all in memory.
const INPUTS_READ: i32 = 16;
/// Results that are this small on average are read more at a time.
const INPUTS_SMALL_BYTES: usize = 4 << 10;
/// But never so many that the next ones, which may be of a MiB each, are too much.
const INPUTS_READ_MAX: i32 = 128;
/// Bytes of one answer, after which it ends early, though not before its first row.
const INPUTS_BYTES_MAX: usize = 8 << 20;

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    vec![
        post("/api/v1/worker/complete", "A split is done", complete_one).fails(&[404, 409]),
        post("/api/v1/worker/complete_many", "Splits are done, each with a verdict", complete_many),
        post("/api/v1/worker/fail", "An attempt failed: retry, or stop", fail).fails(&[404, 409]),
        post("/api/v1/worker/snooze", "Not finished: call again later", snooze).fails(&[404, 409]),
        post("/api/v1/worker/release", "Give a split back untouched", release).fails(&[404, 409]),
        post("/api/v1/worker/checkpoint", "Save state that a later attempt is given", checkpoint)
            .fails(&[404, 409]),
        post("/api/v1/worker/log", "A line in the attempt's log", log).fails(&[404, 409]),
        post("/api/v1/worker/add_splits", "Splits that come to be when this one completes", add_splits)
            .fails(&[404, 409]),
        post("/api/v1/worker/reduce_inputs", "What the splits returned, for the reduce", reduce_inputs)
            .fails(&[404, 409]),
    ]
}

/// A split that is done
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Ended {
    /// The split
    split_id: SplitId,
    /// The token of its claim
    token: Token,
    /// What it returns
    result: Option<Box<RawValue>>,
}

/// Where the split stands
#[derive(Debug, Serialize, JsonSchema)]
struct Stands {
    /// Its status
    status: SplitStatus,
}

async fn complete_one(call: Call, one: Ended) -> Result<Answer<Stands>, Problem> {
    let done = call
        .look(move |c| {
            Box::pin(
                async move { complete::complete(c, one.split_id, one.token, one.result.as_deref()).await },
            )
        })
        .await?;
    Answer::ok(&Stands { status: done })
}

/// Splits that are done
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ManyEnded {
    /// The splits
    #[schemars(length(max = 10_000))]
    splits: Vec<Text<Ended>>,
}

/// What became of each
#[derive(Debug, Serialize, JsonSchema)]
struct Verdicts {
    /// In the same order
    splits: Vec<Verdict>,
}

/// What became of a split
#[derive(Debug, Serialize, JsonSchema)]
struct Verdict {
    /// The split
    split_id: SplitId,
    /// ok, cancelled, lost or already
    verdict: Completed,
}

async fn complete_many(call: Call, many: ManyEnded) -> Result<Answer<Verdicts>, Problem> {
    few("splits", many.splits.len())?;
    let finished: Vec<Finished> = many
        .splits
        .into_iter()
        .map(|one| one.value)
        .map(|one| Finished { split_id: one.split_id, token: one.token, result: one.result })
        .collect();
    let done =
        call.look(move |c| Box::pin(async move { complete::complete_many(c, &finished).await })).await?;
    let splits = done.into_iter().map(|(split_id, verdict)| Verdict { split_id, verdict }).collect();
    Answer::ok(&Verdicts { splits })
}

/// A failed attempt
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Failure {
    /// The split
    split_id: SplitId,
    /// The token of its claim
    token: Token,
    /// What went wrong: {"class", "message", …}
    error: Map<String, Value>,
    /// Whether to try again; default true
    retry: Option<bool>,
    /// When, in seconds from now; default: by the type's backoff
    #[schemars(range(min = 0, max = 315_360_000))]
    retry_in: Option<f64>,
}

/// Where a failed split went
#[derive(Debug, Serialize, JsonSchema)]
struct Failed {
    /// Its status
    status: SplitStatus,
    /// When it will be tried again
    next_at: Option<DateTime<Utc>>,
}

async fn fail(call: Call, failure: Failure) -> Result<Answer<Failed>, Problem> {
    let retry_in = span("retry_in", failure.retry_in)?;
    let Failure { split_id, token, error, retry, .. } = failure;
    let failed = call
        .look(move |c| {
            Box::pin(async move {
                complete::fail(c, split_id, token, &Value::Object(error), retry.unwrap_or(true), retry_in)
                    .await
            })
        })
        .await?;
    Answer::ok(&Failed { status: failed.status, next_at: failed.next_at })
}

/// When to be called again
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Snooze {
    /// The split
    split_id: SplitId,
    /// The token of its claim
    token: Token,
    /// Seconds from now
    #[schemars(range(min = 0, max = 315_360_000))]
    delay: f64,
    /// What the next attempt is given
    checkpoint: Option<Value>,
}

/// When it comes again
#[derive(Debug, Serialize, JsonSchema)]
struct Snoozed {
    /// The moment; null when its task was cancelled
    due_at: Option<DateTime<Utc>>,
}

async fn snooze(call: Call, later: Snooze) -> Result<Answer<Snoozed>, Problem> {
    let delay = span("delay", Some(later.delay))?.unwrap_or_default();
    let Snooze { split_id, token, checkpoint, .. } = later;
    let due_at = call
        .look(move |c| {
            Box::pin(async move { complete::snooze(c, split_id, token, delay, checkpoint.as_ref()).await })
        })
        .await?;
    Answer::ok(&Snoozed { due_at })
}

/// A split and the token that holds it
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GivenBack {
    /// The split
    split_id: SplitId,
    /// The token of its claim
    token: Token,
}

async fn release(call: Call, held: GivenBack) -> Result<Answer<Done>, Problem> {
    call.look(move |c| Box::pin(complete::release(c, held.split_id, held.token))).await?;
    Answer::ok(&DONE)
}

/// How far it is
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Checkpoint {
    /// The split
    split_id: SplitId,
    /// The token of its claim
    token: Token,
    /// What the next attempt is given; default: as before
    state: Option<Box<RawValue>>,
    /// From 0 to 1; default: as before
    #[schemars(range(min = 0, max = 1))]
    progress: Option<f32>,
}

async fn checkpoint(call: Call, saved: Checkpoint) -> Result<Answer<Done>, Problem> {
    call.look(move |c| {
        Box::pin(async move {
            complete::checkpoint(c, saved.split_id, saved.token, saved.state.as_deref(), saved.progress).await
        })
    })
    .await?;
    Answer::ok(&DONE)
}

/// How much a line matters
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// For those who search
    Debug,
    /// For those who read
    Info,
    /// For those who look after it
    Warn,
    /// Somebody has to do something
    Error,
}

/// A line of a log
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Line {
    /// The split
    split_id: SplitId,
    /// The token of its claim
    token: Token,
    /// How much it matters
    level: Level,
    /// What happened
    message: String,
    /// More about it
    fields: Option<Map<String, Value>>,
}

async fn log(call: Call, line: Line) -> Result<Answer<Done>, Problem> {
    let level = match line.level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    let fields = line.fields.map(Value::Object);
    call.look(move |c| {
        Box::pin(async move {
            complete::log(c, line.split_id, line.token, level, &line.message, fields.as_ref()).await
        })
    })
    .await?;
    Answer::ok(&DONE)
}

/// Splits to be
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct More {
    /// The split that adds them
    split_id: SplitId,
    /// The token of its claim
    token: Token,
    /// One split for each
    #[schemars(length(max = 10_000))]
    payloads: Vec<Box<RawValue>>,
}

/// How many
#[derive(Debug, Serialize, JsonSchema)]
struct Added {
    /// Splits this one has added so far
    splits: i32,
}

async fn add_splits(call: Call, more: More) -> Result<Answer<Added>, Problem> {
    let payloads = to_raw_value(&more.payloads).map_err(|error| Problem::malformed(error.to_string()))?;
    let splits = call
        .look(move |c| {
            Box::pin(async move { complete::add_splits(c, more.split_id, more.token, &payloads).await })
        })
        .await?;
    Answer::ok(&Added { splits })
}

/// Which results
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Inputs {
    /// The reduce
    split_id: SplitId,
    /// The token of its claim
    token: Token,
    /// Those with greater numbers; default 0
    #[schemars(range(min = 0))]
    after: Option<i32>,
    /// How many at most; default and most 1,000
    #[schemars(range(min = 1, max = 1000))]
    max: Option<i32>,
}

/// Results, in the order of their numbers
#[derive(Debug, Serialize, JsonSchema)]
struct Results {
    /// The results
    items: Vec<One>,
    /// There are more: ask again with `after` the last number
    more: bool,
}

/// What a split returned
#[derive(Debug, Serialize, JsonSchema)]
struct One {
    /// Its number
    split_no: i32,
    /// How it ended
    status: SplitStatus,
    /// What it returned
    result: Option<Box<RawValue>>,
    /// Why it failed
    error: Option<Value>,
}

async fn reduce_inputs(call: Call, which: Inputs) -> Result<Answer<Results>, Problem> {
    let max = which.max.unwrap_or(INPUTS_MAX);
    if !(1..=INPUTS_MAX).contains(&max) {
        return Err(Problem::invalid(format!("max is {max}; it must be 1 to {INPUTS_MAX}")));
    }
    let mut after = which.after.unwrap_or(0);
    let (mut items, mut bytes, mut more, mut step) = (Vec::new(), 0, true, INPUTS_READ);
    while more && bytes < INPUTS_BYTES_MAX {
        let left = max - i32::try_from(items.len()).unwrap_or(max);
        if left <= 0 {
            break;
        }
        let (split, token, read) = (which.split_id, which.token, left.min(step));
        let rows =
            call.look(move |c| Box::pin(complete::reduce_inputs(c, split, token, after, read))).await?;
        more = i32::try_from(rows.len()).unwrap_or(read) == read;
        after = rows.last().map_or(after, |row| row.split_no);
        bytes +=
            rows.iter().map(|row| row.result.as_ref().map_or(0, |text| text.get().len()) + 64).sum::<usize>();
        // Small results come in larger steps.
        if bytes / (items.len() + rows.len()).max(1) < INPUTS_SMALL_BYTES {
            step = (step * 2).min(INPUTS_READ_MAX);
        }
        items.extend(rows.into_iter().map(|row| One {
            split_no: row.split_no,
            status: row.status,
            result: row.result,
            error: row.error,
        }));
    }
    Answer::ok(&Results { items, more })
}
