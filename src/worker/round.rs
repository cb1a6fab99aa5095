//! One round trip: complete the last batch, claim the next.

use super::pace::BRISK_LOOK;
use super::signals::Signals;
use super::{CALL_WITHIN, Core};
use crate::handler::error_json;
use crate::id::SplitId;
use crate::store::claim::{self, Ask, Claimed, Exchange, next_wait};
use crate::store::complete::{self, Finished, complete_many};
use crate::store::sqlstate;
use crate::store::state::Completed;
use crate::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What a round brought.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// What became of the finished splits.
    pub(super) completed: Vec<(SplitId, Completed)>,
    /// Splits whose result could not be stored: failed attempts.
    pub(super) refused: Vec<SplitId>,
    /// The next splits.
    pub(super) claimed: Vec<Claimed>,
    /// When nothing was there: how long nothing is expected to be.
    pub(super) wait: Option<Duration>,
}

/// Why a round looks for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Something has ended, or somebody says that there is work.
    Asked,
    /// Time has passed: most likely there is none, so the cheaper question comes first.
    Unasked,
    /// Work comes in so fast that nobody has to wake us.
    Brisk,
}

/// Completes `batch` and claims what `ask` has room for; registers first if the database forgot us. Where nothing was
/// there, the database is told that we wait for producers to wake us, unless work comes in briskly.
pub(super) async fn round(
    core: &Arc<Core>,
    signals: &Signals,
    batch: &[Finished],
    ask: Option<Ask>,
    look: Look,
) -> Result<Round> {
    if signals.unknown.load(Ordering::Relaxed) {
        let (command, _) = core.register().await?;
        signals.unknown.store(false, Ordering::Relaxed);
        signals.obey(command);
    }
    if let Some(ask) = &ask
        && look == Look::Unasked
    {
        let wait = told_to_wait(core, signals, ask).await?;
        if wait.is_some_and(|wait| !wait.is_zero()) {
            return Ok(Round { wait, ..Round::default() });
        }
    }
    let answer = match exchange(core, batch, ask.as_ref()).await {
        Ok(exchange) => {
            Ok(Round { completed: exchange.completed, claimed: exchange.claimed, ..Round::default() })
        }
        Err(error) if !batch.is_empty() && sqlstate::is_value_fault(&error) => {
            complete_singly(core, batch).await
        }
        Err(error) => Err(error),
    };
    let mut round = match answer {
        Ok(round) => round,
        Err(error) => {
            // The worker's row was pruned, or the database is another one now: say again who we are.
            if error.kind() == ErrorKind::NotFound || sqlstate::is_connection_lost(&error) {
                signals.unknown.store(true, Ordering::Relaxed);
            }
            return Err(error);
        }
    };
    if let Some(ask) = &ask
        && round.claimed.is_empty()
    {
        round.wait = match look {
            Look::Brisk => Some(BRISK_LOOK),
            _ => told_to_wait(core, signals, ask).await?,
        };
    }
    Ok(round)
}

/// How long nothing is expected of the types that have room; from here on the database knows that we wait for them. What waits of
/// a type whose slots are all taken is no reason to look again.
async fn told_to_wait(core: &Arc<Core>, signals: &Signals, ask: &Ask) -> Result<Option<Duration>> {
    let types = ask.with_room();
    let wait = core.lines[0]
        .bounded(CALL_WITHIN, move |c| Box::pin(async move { next_wait(c, &types).await }))
        .await?;
    signals.tick_due.after(wait.unwrap_or_default());
    Ok(wait)
}

async fn exchange(core: &Arc<Core>, batch: &[Finished], ask: Option<&Ask>) -> Result<Exchange> {
    let (batch, ask) = (batch.to_vec(), ask.cloned());
    let line = &core.lines[usize::from(ask.is_none())];
    line.bounded(CALL_WITHIN, move |c| {
        Box::pin(async move {
            match ask {
                Some(ask) => claim::exchange(c, &batch, &ask).await,
                None => Ok(Exchange { completed: complete_many(c, &batch).await?, claimed: Vec::new() }),
            }
        })
    })
    .await
}

/// One of the batch has a result that can't be stored: the others must not suffer for it.
async fn complete_singly(core: &Arc<Core>, batch: &[Finished]) -> Result<Round> {
    let mut round = Round::default();
    for one in batch {
        let own = vec![one.clone()];
        let verdicts = core
            .control
            .bounded(CALL_WITHIN, move |c| Box::pin(async move { complete_many(c, &own).await }))
            .await;
        match verdicts {
            Ok(verdicts) => round.completed.extend(verdicts),
            Err(error) if sqlstate::is_value_fault(&error) => {
                refuse(core, one, &error).await?;
                round.refused.push(one.split_id);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(round)
}

async fn refuse(core: &Arc<Core>, one: &Finished, why: &Error) -> Result<()> {
    let (split, token, error) = (one.split_id, one.token, error_json(Some("result"), &why.to_string()));
    tracing::warn!(split.id = %split, error = %why, "the result of split {split} could not be stored");
    let failed = core
        .control
        .bounded(CALL_WITHIN, move |c| {
            Box::pin(async move { complete::fail(c, split, token, &error, true, None).await })
        })
        .await;
    match failed {
        Err(error) if !error.is_lease_lost() => Err(error),
        _ => Ok(()),
    }
}
