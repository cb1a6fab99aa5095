//! What a claim takes from one lane: a column an array, since rows would cost more than all else of a claim.

use super::Claimed;
use crate::Result;
use crate::id::{SplitId, TaskId, Token};
use crate::store::state::Phase;
use crate::{Error, ErrorKind};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::postgres::types::PgInterval;
use sqlx::types::Json;
use std::sync::Arc;

/// JSON columns; what users wrote stays unparsed.
type Documents = Option<Vec<Option<Json<Box<RawValue>>>>>;

/// Turns the columns of one part into splits, at the end of `claimed`.
pub(super) fn unfold(row: &PgRow, claimed: &mut Vec<Claimed>) -> Result<()> {
    let task_type: Arc<str> = row.try_get::<&str, _>("task_type")?.into();
    let token: Token = row.try_get("token")?;
    let lease_until: DateTime<Utc> = row.try_get("lease_until")?;
    let splits: Vec<SplitId> = row.try_get("split_ids")?;
    let tasks: Vec<TaskId> = row.try_get("task_ids")?;
    let phases: Vec<Phase> = row.try_get("phases")?;
    let split_nos: Vec<i32> = row.try_get("split_nos")?;
    let split_counts: Vec<i32> = row.try_get("split_counts")?;
    let attempts: Vec<i32> = row.try_get("attempts")?;
    let max_attempts: Vec<i32> = row.try_get("max_attempts")?;
    let epochs: Vec<i32> = row.try_get("epochs")?;
    let continuations: Vec<i32> = row.try_get("continuations")?;
    let scheduled_for: Vec<Option<DateTime<Utc>>> = row.try_get("scheduled_for")?;
    let timeouts: Vec<Option<PgInterval>> = row.try_get("timeouts")?;
    let mut payloads = documents(row, "payloads")?;
    let mut split_payloads = documents(row, "split_payloads")?;
    let mut checkpoints = documents(row, "checkpoints")?;
    let mut headers = documents(row, "headers")?;
    let count = splits.len();
    let lengths =
        [tasks.len(), phases.len(), split_nos.len(), split_counts.len(), attempts.len(), max_attempts.len()];
    let more = [epochs.len(), continuations.len(), scheduled_for.len(), timeouts.len()];
    if lengths.iter().chain(&more).any(|length| *length != count) {
        let message = format!("divvy.exchange answered {count} splits with columns of other lengths");
        return Err(Error::new(ErrorKind::Protocol, message));
    }
    claimed.reserve(count);
    for at in 0..count {
        let (task_id, phase, split_no) = (tasks[at], phases[at], split_nos[at]);
        claimed.push(Claimed {
            split_id: splits[at],
            task_id,
            task_type: task_type.clone(),
            phase,
            split_no,
            split_count: split_counts[at],
            attempt: attempts[at],
            max_attempts: max_attempts[at],
            token,
            lease_until,
            payload: payloads.next().flatten(),
            split_payload: split_payloads.next().flatten(),
            checkpoint: checkpoints.next().flatten(),
            headers: headers.next().flatten(),
            epoch: epochs[at],
            scheduled_for: scheduled_for[at],
            idempotency_key: idempotency_key(task_id, phase, split_no, epochs[at], continuations[at]),
            timeout: timeouts[at].clone(),
        });
    }
    Ok(())
}

fn documents(row: &PgRow, name: &str) -> Result<impl Iterator<Item = Option<Box<RawValue>>> + use<>> {
    let column: Documents = row.try_get(name)?;
    Ok(column.unwrap_or_default().into_iter().map(|document| document.map(|Json(raw)| raw)))
}

/// As `divvy.idempotency_key` writes it; a test compares the two.
fn idempotency_key(task: TaskId, phase: Phase, split_no: i32, epoch: i32, continuation: i32) -> String {
    match phase {
        Phase::Execute => format!("{task}.{split_no}.{epoch}.{continuation}"),
        Phase::Plan => format!("{task}.plan.{epoch}.{continuation}"),
        Phase::Reduce => format!("{task}.reduce.{epoch}.{continuation}"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::store::claim) fn claimed() -> Claimed {
        Claimed {
            split_id: SplitId(1),
            task_id: TaskId(1),
            task_type: "x".into(),
            phase: Phase::Execute,
            split_no: 1,
            split_count: 1,
            attempt: 1,
            max_attempts: 1,
            token: Token(1),
            lease_until: DateTime::UNIX_EPOCH,
            payload: None,
            split_payload: None,
            checkpoint: None,
            headers: None,
            epoch: 1,
            scheduled_for: None,
            idempotency_key: String::new(),
            timeout: None,
        }
    }
}
