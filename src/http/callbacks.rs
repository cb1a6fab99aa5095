//! Outcomes that come later: whoever was pushed a split and answered 202 says here what became of it.
//!
//! The last part of the path is all that is asked for. It is good for one split under one claim, so it ends with the outcome, with the
//! attempt's time, and with a cancel.

use super::Api;
use super::call::{Answer, Call};
use super::problem::Problem;
use super::route::{Passing, Route, post};
use crate::ErrorKind;
use crate::handler::said::Said;
use crate::handler::{Settlement, settlement};
use crate::id::Token;
use crate::store::secret::CALLBACK;
use crate::store::state::SplitStatus;
use crate::store::{callback, complete, secret};
use crate::webhook::{Key, Ticket};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sqlx::{Connection, PgConnection};
use std::collections::HashMap;
use std::sync::Arc;

/// Splits of one call of `add_splits`.
const SPLITS_AT_ONCE: usize = 10_000;
/// The token changes once, when the worker hears of the 202: an outcome that comes just then is given twice.
const TRIES: usize = 3;

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    vec![
        post("/api/v1/callbacks/{token}", "The outcome of a split that was accepted with 202", called_back)
            .unkeyed()
            .fails(&[409])
            .without_token(known),
    ]
}

/// Where the split stands
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
struct Stands {
    /// Its status
    status: SplitStatus,
}

async fn called_back(call: Call, said: Said) -> Result<Answer<Stands>, Problem> {
    let ticket = ticket(&call.api, call.name("token")).await?;
    let outcome = Arc::new(Outcome::of(said)?);
    let mut tries = 1;
    loop {
        let outcome = outcome.clone();
        let done = call
            .api
            .store
            .bounded_apart(call.api.patience.database, move |c| {
                Box::pin(async move { settle(c, ticket, &outcome).await })
            })
            .await;
        match done {
            Ok(status) => return Answer::ok(&Stands { status }),
            Err(error) if error.kind() == ErrorKind::LeaseLost && tries < TRIES => tries += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Strangers are not read: they could send much.
fn known(api: Arc<Api>, path: HashMap<String, String>) -> Passing {
    Box::pin(async move {
        let text = path.get("token").map(String::as_str).unwrap_or_default();
        ticket(&api, text).await.map(drop)
    })
}

/// What the path says, if it was made here.
async fn ticket(api: &Api, text: &str) -> Result<Ticket, Problem> {
    let unknown = || Problem::unknown("callback", text);
    if !Ticket::is_like(text) {
        return Err(unknown());
    }
    let wanted = [CALLBACK.to_owned()];
    let own = api
        .store
        .bounded_apart(api.patience.database, move |c| {
            Box::pin(async move { secret::values(c, &wanted).await })
        })
        .await?;
    let values = own.iter().flat_map(|own| [Some(own.value.as_str()), own.previous.as_deref()]);
    let keys: Vec<Key> = values.flatten().filter_map(|value| Key::new(value).ok()).collect();
    Ticket::open(text, &keys).ok_or_else(unknown)
}

/// What is to be stored.
struct Outcome {
    splits: Vec<Box<RawValue>>,
    settlement: Settlement,
}

impl Outcome {
    fn of(mut said: Said) -> Result<Self, Problem> {
        let splits = said.splits.take();
        let one = usize::from(splits.is_some())
            + usize::from(said.result.is_some())
            + usize::from(said.snooze.is_some())
            + usize::from(said.stop.is_some())
            + usize::from(said.fail.is_some());
        if one > 1 {
            return Err(Problem::invalid("give one of result, splits, snooze, stop and fail"));
        }
        for (name, seconds) in [
            ("snooze.delay", said.snooze.as_ref().and_then(|snooze| snooze.delay)),
            ("fail.retry_in", said.fail.as_ref().and_then(|fail| fail.retry_in)),
        ] {
            super::worker::span(name, seconds)?;
        }
        Ok(Self { splits: splits.unwrap_or_default(), settlement: settlement(said.answer()) })
    }
}

async fn settle(
    connection: &mut PgConnection,
    ticket: Ticket,
    outcome: &Outcome,
) -> crate::Result<SplitStatus> {
    let mut transaction = connection.begin().await?;
    let token = callback::token(&mut *transaction, ticket.split, ticket.token).await?;
    for splits in outcome.splits.chunks(SPLITS_AT_ONCE) {
        let payloads = to_raw_value(splits).map_err(|error| {
            crate::Error::new(ErrorKind::BadOption, format!("the splits are no JSON: {error}"))
        })?;
        complete::add_splits(&mut *transaction, ticket.split, token, &payloads).await?;
    }
    let status = store(&mut transaction, ticket, token, &outcome.settlement).await?;
    transaction.commit().await?;
    Ok(status)
}

async fn store(
    connection: &mut PgConnection,
    ticket: Ticket,
    token: Token,
    settlement: &Settlement,
) -> crate::Result<SplitStatus> {
    let split = ticket.split;
    match settlement {
        Settlement::Complete(result) => complete::complete(connection, split, token, result.as_deref()).await,
        Settlement::Fail { error, retry, retry_in } => {
            Ok(complete::fail(connection, split, token, error, *retry, *retry_in).await?.status)
        }
        Settlement::Snooze { after, state } => {
            let state = Some(state).filter(|state| !state.is_null());
            let due = complete::snooze(connection, split, token, *after, state).await?;
            Ok(match due {
                None => SplitStatus::Cancelled,
                Some(_) if after.is_zero() => SplitStatus::Ready,
                Some(_) => SplitStatus::Delayed,
            })
        }
        Settlement::Await { within } => {
            callback::wait(connection, split, token, *within).await.map(|_| SplitStatus::Running)
        }
        Settlement::Release => complete::release(connection, split, token).await.map(|()| SplitStatus::Ready),
    }
}
