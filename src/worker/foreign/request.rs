//! What a handler in any language is told of a split: a JSON object.

use super::calls::Calls;
use crate::handler::HandlerError;
use crate::store::claim::Claimed;
use crate::store::complete::ReduceInput;
use crate::store::state::{Phase, SplitStatus};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The object. Ids are texts: not every language has whole numbers of 64 bits.
#[derive(Serialize)]
pub(in crate::worker) struct Request<'a> {
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
    pub(in crate::worker) fn new(split: &'a Claimed, id: Option<u64>) -> Self {
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
    pub(in crate::worker) fn line(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        if self.phase == Phase::Reduce {
            line.pop();
            line.extend_from_slice(br#","inputs":["#);
        }
        Ok(line)
    }
}

/// The inputs of a reduce, a page at a time.
pub(in crate::worker) struct Inputs<'a> {
    calls: &'a Calls,
    after: i32,
}

impl<'a> Inputs<'a> {
    pub(in crate::worker) fn new(calls: &'a Calls) -> Self {
        Self { calls, after: 0 }
    }

    /// Adds the next page to the open object. After the last it closes the object, and is false.
    pub(in crate::worker) async fn add_to(&mut self, line: &mut Vec<u8>) -> Result<bool, HandlerError> {
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
