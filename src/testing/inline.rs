//! One task, run in the test's own transaction.

use crate::client::NewTask;
use crate::handler::{Context, Door, Erased, Handler, Settlement, erase, settlement};
use crate::id::TaskId;
use crate::store::claim::{Ask, Claimed, claim};
use crate::store::state::TaskStatus;
use crate::store::worker::{Registration, register};
use crate::store::{callback, complete, enqueue, lock, operate};
use crate::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How many splits an inline task may have; a drain is for more.
const SPLITS_MAX: usize = 10_000;
/// How much one tick does.
const TICK_MAX: i32 = 500;

/// What an inline run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Ran {
    /// The task.
    pub task_id: TaskId,
    /// Where it stands: ended, or open when it waits (a retry, a continuation).
    pub status: TaskStatus,
    /// What it returned.
    pub result: Option<Value>,
    /// Why it failed.
    pub error: Option<Value>,
    /// The errors of all failed attempts, in order.
    pub errors: Vec<String>,
    /// How many splits ran.
    pub splits: usize,
}

/// Enqueues a task and runs all of it that is ready (plan, splits, reduce) with `handler`, on this connection and
/// in its transaction, one split after the other. The handler's transaction is the same one, under a savepoint.
///
/// Retries and continuations with a delay are not waited for; a panic in the handler is the test's.
///
/// # Errors
/// Config outside a transaction; what the database refuses; Busy above 10,000 splits.
pub async fn run_inline<H: Handler>(connection: &mut PgConnection, handler: H, task: NewTask) -> Result<Ran> {
    lock::require_transaction(connection).await?;
    let handler = erase(handler);
    let worker = Uuid::now_v7();
    let steps = json!({ "plan": handler.plans(), "reduce": handler.reduces() });
    let who = Registration {
        worker,
        name: "inline".to_owned(),
        task_types: vec![task.task_type().to_owned()],
        slots: 1,
        meta: json!({ "types": { task.task_type(): steps } }),
    };
    register(&mut *connection, &who).await?;
    let ask = Ask { worker, task_types: who.task_types, per_type: vec![1], most: 1, lease: None };
    let task_id = task.enqueue_with(&mut *connection).await?.task_id;
    let mut errors = Vec::new();
    let mut splits = 0;
    while let Some(split) = next(connection, &ask).await? {
        splits += 1;
        if splits > SPLITS_MAX {
            let message = format!("task {task_id} has more than {SPLITS_MAX} splits ready: drain it instead");
            return Err(Error::new(ErrorKind::Busy, message));
        }
        if let Some(error) = run_split(connection, handler.as_ref(), split).await? {
            errors.push(error);
        }
    }
    let end = enqueue::task_result(connection, task_id).await?;
    Ok(Ran { task_id, status: end.status, result: end.result, error: end.error, errors, splits })
}

/// The next ready split, after a tick if there is none: that is where a reduce is decided.
async fn next(connection: &mut PgConnection, ask: &Ask) -> Result<Option<Claimed>> {
    if let Some(split) = claim(&mut *connection, ask).await?.pop() {
        return Ok(Some(split));
    }
    operate::tick(&mut *connection, TICK_MAX).await?;
    Ok(claim(connection, ask).await?.pop())
}

/// Runs one split and stores its outcome; returns its error, if it failed.
async fn run_split(
    connection: &mut PgConnection,
    handler: &dyn Erased,
    split: Claimed,
) -> Result<Option<String>> {
    let (id, token) = (split.split_id, split.token);
    let never = CancellationToken::new();
    let door = Door::Inline { connection: &mut *connection, opened: false };
    let mut context = Context::new(Box::new(split), never.clone(), Arc::new(never), door);
    let answer = handler.run(&mut context).await;
    let opened = context.wrote_inline();
    let settlement = settlement(answer);
    if opened && !matches!(settlement, Settlement::Complete(_)) {
        lock::rollback_to_savepoint(connection).await?;
    }
    match settlement {
        Settlement::Complete(result) => {
            complete::complete(connection, id, token, result.as_deref()).await?;
            Ok(None)
        }
        Settlement::Fail { error, retry, retry_in } => {
            complete::fail(connection, id, token, &error, retry, retry_in).await?;
            Ok(Some(error["message"].as_str().unwrap_or_default().to_owned()))
        }
        Settlement::Snooze { after, state } => {
            complete::snooze(connection, id, token, after, Some(&state).filter(|state| !state.is_null()))
                .await?;
            Ok(None)
        }
        Settlement::Await { within } => {
            callback::wait(connection, id, token, within).await?;
            Ok(None)
        }
        Settlement::Release => {
            complete::release(connection, id, token).await?;
            Ok(None)
        }
    }
}
