//! Handlers without their types, so that one worker can hold many.

use super::{Context, Handler, HandlerError, Inputs, Outcome};
use crate::store::state::Phase;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// How a step ended that did not fail.
#[derive(Debug)]
pub(crate) enum Answer {
    /// As users' own handlers answer.
    Outcome(Outcome<Option<Box<RawValue>>>),
    /// The outcome comes by a callback: the split runs on, and its slot is free.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "only what is pushed is called back"))]
    Awaits {
        /// How long; none: as long as its attempt may take.
        within: Option<Duration>,
    },
    /// Given back untouched: no attempt is used, and it comes again with the same key.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "only what is pushed has a breaker"))]
    GivesBack,
}

impl From<Outcome<Option<Box<RawValue>>>> for Answer {
    fn from(outcome: Outcome<Option<Box<RawValue>>>) -> Self {
        Self::Outcome(outcome)
    }
}

/// What a running step comes to.
pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = Result<Answer, HandlerError>> + Send + 'a>>;

/// A handler behind JSON.
pub(crate) trait Erased: Send + Sync {
    /// Whether it has a split step.
    fn plans(&self) -> bool;
    /// Whether it has a reduce step.
    fn reduces(&self) -> bool;
    /// Runs the step the split is for.
    fn run<'a>(&'a self, context: &'a mut Context<'_>) -> Running<'a>;
    /// Ends what it started besides, when its worker has ended.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

/// Takes the types away.
pub(crate) fn erase<H: Handler>(handler: H) -> Arc<dyn Erased> {
    Arc::new(Typed(handler))
}

struct Typed<H>(H);

impl<H: Handler> Erased for Typed<H> {
    fn plans(&self) -> bool {
        H::PLAN
    }

    fn reduces(&self) -> bool {
        H::REDUCE
    }

    fn run<'a>(&'a self, context: &'a mut Context<'_>) -> Running<'a> {
        Box::pin(async move {
            let payload: H::Payload = context.payload()?;
            match context.phase() {
                Phase::Plan => {
                    self.0.split(context, &payload).await?;
                    Ok(Outcome::Complete(None).into())
                }
                Phase::Execute => {
                    let share: H::Share = context.share()?;
                    json(self.0.execute(context, &payload, share).await?)
                }
                Phase::Reduce => json(self.0.reduce(context, &payload, Inputs::new()).await?),
            }
        })
    }
}

fn json<T: Serialize>(outcome: Outcome<T>) -> Result<Answer, HandlerError> {
    Ok(Answer::Outcome(match outcome {
        Outcome::Complete(output) => {
            let result = to_raw_value(&output).map_err(|error| {
                HandlerError::new(format!("the result is no JSON: {error}")).class("result")
            })?;
            // JSON's null says no more than no result.
            Outcome::Complete((result.get() != "null").then_some(result))
        }
        Outcome::Stop(reason) => Outcome::Stop(reason),
        Outcome::Continue { state, after } => Outcome::Continue { state, after },
    }))
}
