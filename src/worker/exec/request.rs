//! What a command is told of a split: a JSON object, and the same in short as environment variables.

use super::calls::Calls;
use crate::handler::{Context, HandlerError};
use crate::store::claim::Claimed;
use crate::store::complete::ReduceInput;
use crate::store::state::{Phase, SplitStatus};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::process::Command;

/// The object. Ids are texts: not every language has whole numbers of 64 bits.
#[derive(Serialize)]
pub(super) struct Request<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    task_id: String,
    split_id: String,
    task_type: &'a str,
    phase: Phase,
    split_no: i32,
    split_count: i32,
    attempt: i32,
    max_attempts: i32,
    epoch: i32,
    token: String,
    idempotency_key: &'a str,
    scheduled_for: Option<DateTime<Utc>>,
    payload: Option<&'a RawValue>,
    split_payload: Option<&'a RawValue>,
    checkpoint: Option<&'a RawValue>,
    headers: Option<&'a RawValue>,
}

/// One ended split, for a reduce.
#[derive(Serialize)]
struct Input<'a> {
    split_no: i32,
    status: SplitStatus,
    result: Option<&'a RawValue>,
    error: Option<&'a Value>,
}

impl<'a> Request<'a> {
    /// `id`: how an answer names it, where one process has several.
    pub(super) fn new(split: &'a Claimed, id: Option<u64>) -> Self {
        Self {
            id,
            task_id: split.task_id.to_string(),
            split_id: split.split_id.to_string(),
            task_type: &split.task_type,
            phase: split.phase,
            split_no: split.split_no,
            split_count: split.split_count,
            attempt: split.attempt,
            max_attempts: split.max_attempts,
            epoch: split.epoch,
            token: split.token.to_string(),
            idempotency_key: &split.idempotency_key,
            scheduled_for: split.scheduled_for,
            payload: split.payload.as_deref(),
            split_payload: split.split_payload.as_deref(),
            checkpoint: split.checkpoint.as_deref(),
            headers: split.headers.as_deref(),
        }
    }

    /// The object as one line without its end. A reduce's is left open, for its inputs.
    pub(super) fn line(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        if self.phase == Phase::Reduce {
            line.pop();
            line.extend_from_slice(br#","inputs":["#);
        }
        Ok(line)
    }
}

/// The inputs of a reduce, a page at a time.
pub(super) struct Inputs<'a> {
    calls: &'a Calls,
    after: i32,
}

impl<'a> Inputs<'a> {
    pub(super) fn new(calls: &'a Calls) -> Self {
        Self { calls, after: 0 }
    }

    /// Adds the next page to the open object. After the last it closes the object, and is false.
    pub(super) async fn add_to(&mut self, line: &mut Vec<u8>) -> Result<bool, HandlerError> {
        let page = self.calls.inputs(self.after).await?;
        let Some(last) = page.last() else {
            line.extend_from_slice(b"]}");
            return Ok(false);
        };
        for (at, input) in page.iter().enumerate() {
            if at > 0 || self.after > 0 {
                line.push(b',');
            }
            let ReduceInput { split_no, status, result, error } = input;
            let (result, error) = (result.as_deref(), error.as_ref());
            serde_json::to_writer(
                &mut *line,
                &Input { split_no: *split_no, status: *status, result, error },
            )?;
        }
        self.after = last.split_no;
        Ok(true)
    }
}

/// The variables of a command that is started for one split.
pub(super) fn set_variables(command: &mut Command, context: &Context<'_>) {
    let Claimed {
        split_id, task_id, phase, split_no, split_count, attempt, max_attempts, token, epoch, ..
    } = context.claimed();
    command
        .env("DIVVY_TASK_ID", task_id.to_string())
        .env("DIVVY_SPLIT_ID", split_id.to_string())
        .env("DIVVY_TASK_TYPE", context.task_type())
        .env("DIVVY_PHASE", phase.as_str())
        .env("DIVVY_SPLIT_NO", split_no.to_string())
        .env("DIVVY_SPLIT_COUNT", split_count.to_string())
        .env("DIVVY_ATTEMPT", attempt.to_string())
        .env("DIVVY_MAX_ATTEMPTS", max_attempts.to_string())
        .env("DIVVY_EPOCH", epoch.to_string())
        .env("DIVVY_TOKEN", token.to_string())
        .env("DIVVY_IDEMPOTENCY_KEY", context.idempotency_key());
    // A trace of divvy's own process is not the task's.
    for (name, value) in [("TRACEPARENT", context.traceparent()), ("TRACESTATE", context.tracestate())] {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}
