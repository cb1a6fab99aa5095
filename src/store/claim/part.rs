//! What a claim takes from one lane: a column an array, since rows would cost more than all else of a claim.

use super::Claimed;
use super::rule::Rule;
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
    let mut splits: Vec<SplitId> = row.try_get("split_ids")?;
    let tasks: Vec<TaskId> = row.try_get("task_ids")?;
    let phases: Vec<Phase> = row.try_get("phases")?;
    let mut split_nos: Vec<i32> = row.try_get("split_nos")?;
    let rule: Option<Json<Rule>> = row.try_get("rule")?;
    if let ([first, last], [no]) = (&splits[..], &split_nos[..]) {
        (splits, split_nos) = run(*first, *last, *no);
    }
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
        [tasks.len(), phases.len(), split_counts.len(), attempts.len(), max_attempts.len(), epochs.len()];
    let more = [continuations.len(), scheduled_for.len(), timeouts.len()];
    let fits = |length: &usize| *length == count || *length == 1;
    if split_nos.len() != count || !lengths.iter().chain(&more).all(fits) {
        let message = format!("divvy.exchange answered {count} splits with columns of other lengths");
        return Err(Error::new(ErrorKind::Protocol, message));
    }
    claimed.reserve(count);
    for at in 0..count {
        let (task_id, phase, epoch) = (*nth(&tasks, at), *nth(&phases, at), *nth(&epochs, at));
        let split_no = split_nos[at];
        claimed.push(Claimed {
            split_id: splits[at],
            task_id,
            task_type: task_type.clone(),
            phase,
            split_no,
            split_count: *nth(&split_counts, at),
            attempt: *nth(&attempts, at),
            max_attempts: *nth(&max_attempts, at),
            token,
            lease_until,
            payload: take(&mut payloads, at),
            split_payload: match &rule {
                Some(Json(rule)) => rule.payload(split_no),
                None => take(&mut split_payloads, at),
            },
            checkpoint: take(&mut checkpoints, at),
            headers: take(&mut headers, at),
            epoch,
            scheduled_for: *nth(&scheduled_for, at),
            idempotency_key: idempotency_key(task_id, phase, split_no, epoch, *nth(&continuations, at)),
            timeout: *nth(&timeouts, at),
        });
    }
    Ok(())
}

/// The ids and numbers of a run, of which the first and the last id are said, and the first number.
fn run(first: SplitId, last: SplitId, no: i32) -> (Vec<SplitId>, Vec<i32>) {
    let ids: Vec<SplitId> = (first.0..=last.0).map(SplitId).collect();
    let nos = (no..).take(ids.len()).collect();
    (ids, nos)
}

/// The value of a split; a column with one value has it for all.
fn nth<T>(column: &[T], at: usize) -> &T {
    column.get(at).unwrap_or(&column[0])
}

/// The same of documents, which are moved where each split has its own.
fn take(column: &mut [Option<Box<RawValue>>], at: usize) -> Option<Box<RawValue>> {
    match column {
        [all] => all.clone(),
        _ => column.get_mut(at)?.take(),
    }
}

fn documents(row: &PgRow, name: &str) -> Result<Vec<Option<Box<RawValue>>>> {
    let column: Documents = row.try_get(name)?;
    Ok(column.unwrap_or_default().into_iter().map(|document| document.map(|Json(raw)| raw)).collect())
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
