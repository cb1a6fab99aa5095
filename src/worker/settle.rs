//! Recording what became of one split, until the database has it or it no longer matters.

use super::backoff::Backoff;
use super::lease::Held;
use super::signals::Signals;
use super::{CALL_WITHIN, Core};
use crate::handler::{Settlement, error_json};
use crate::id::{SplitId, Token};
use crate::store::{callback, complete, sqlstate};
use crate::{ErrorKind, Result};
use std::sync::Arc;

/// How a split ended for this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    Succeeded,
    Failed,
    Continued,
    Released,
    Lost,
}

/// Stores a settlement, through outages: with the token, a second try of what was committed is refused.
///
/// Ends early when the lease is lost or the worker's grace is over; the lease then brings the split back.
pub(super) async fn settle(
    core: &Arc<Core>,
    signals: &Signals,
    (split, token): (SplitId, Token),
    held: &Held,
    mut settlement: Settlement,
) -> Settled {
    let mut backoff = Backoff::new();
    loop {
        let done = outcome_of(&settlement);
        let error = match store(core, split, token, &settlement).await {
            Ok(()) => return done,
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::LeaseLost | ErrorKind::NotFound => return Settled::Lost,
            ErrorKind::Cancelled if matches!(settlement, Settlement::Release) => return Settled::Lost,
            ErrorKind::Cancelled => settlement = Settlement::Release,
            _ if sqlstate::is_value_fault(&error) => {
                tracing::warn!(split.id = %split, %error, "the outcome of split {split} could not be stored");
                settlement = instead_of(settlement, &error);
            }
            _ => {
                tracing::warn!(split.id = %split, %error, "the outcome of split {split} waits for the database");
                if signals.abort.is_cancelled() {
                    return Settled::Lost;
                }
                tokio::select! {
                    () = held.lost() => return Settled::Lost,
                    () = signals.abort.cancelled() => {}
                    () = tokio::time::sleep(backoff.next()) => {}
                }
            }
        }
    }
}

fn outcome_of(settlement: &Settlement) -> Settled {
    match settlement {
        Settlement::Complete(_) => Settled::Succeeded,
        Settlement::Fail { .. } => Settled::Failed,
        Settlement::Snooze { .. } | Settlement::Await { .. } => Settled::Continued,
        Settlement::Release => Settled::Released,
    }
}

/// What to store when the value is refused: the refusal; and if even that is, words that can't be; and at
/// last nothing at all. So this ends after a few steps.
fn instead_of(refused: Settlement, why: &crate::Error) -> Settlement {
    const LITERAL: &str = "the error of this attempt could not be stored";
    match refused {
        Settlement::Fail { error, retry, retry_in: Some(_) } => {
            Settlement::Fail { error, retry, retry_in: None }
        }
        Settlement::Fail { error, .. } if error["message"] == LITERAL => Settlement::Release,
        Settlement::Fail { retry, .. } => {
            Settlement::Fail { error: error_json(None, LITERAL), retry, retry_in: None }
        }
        _ => {
            let error = error_json(Some("result"), &why.to_string());
            Settlement::Fail { error, retry: true, retry_in: None }
        }
    }
}

async fn store(core: &Arc<Core>, split: SplitId, token: Token, settlement: &Settlement) -> Result<()> {
    match settlement {
        Settlement::Complete(result) => {
            let result = result.clone();
            core.control
                .bounded(CALL_WITHIN, move |c| {
                    Box::pin(
                        async move { complete::complete(c, split, token, result.as_deref()).await.map(drop) },
                    )
                })
                .await
        }
        Settlement::Fail { error, retry, retry_in } => {
            let (error, retry, retry_in) = (error.clone(), *retry, *retry_in);
            core.control
                .bounded(CALL_WITHIN, move |c| {
                    Box::pin(async move {
                        complete::fail(c, split, token, &error, retry, retry_in).await.map(drop)
                    })
                })
                .await
        }
        Settlement::Snooze { after, state } => {
            let (after, state) = (*after, state.clone());
            core.control
                .bounded(CALL_WITHIN, move |c| {
                    Box::pin(async move {
                        complete::snooze(
                            c,
                            split,
                            token,
                            after,
                            Some(&state).filter(|state| !state.is_null()),
                        )
                        .await
                        .map(drop)
                    })
                })
                .await
        }
        Settlement::Await { within } => {
            let within = *within;
            core.control
                .bounded(CALL_WITHIN, move |c| {
                    Box::pin(async move { callback::wait(c, split, token, within).await.map(drop) })
                })
                .await
        }
        Settlement::Release => {
            core.control
                .bounded(CALL_WITHIN, move |c| {
                    Box::pin(async move { complete::release(c, split, token).await })
                })
                .await
        }
    }
}
