//! Handlers made of a closure, for tests that need a split to do one particular thing.

use divvy::handler::{Context, Handler, HandlerError, Outcome};
use serde_json::Value;
use std::pin::Pin;

/// What such a handler answers.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Outcome<Value>, HandlerError>> + Send + 'a>>;

/// A handler of type `act` whose execute step is the closure; the share is passed on, the payload is not.
pub struct Act<F>(F);

/// Makes one: `act(|context, share| Box::pin(async move { … }))`.
pub fn act<F>(f: F) -> Act<F>
where
    F: for<'a, 'c> Fn(&'a mut Context<'c>, Value) -> Answer<'a> + Send + Sync + 'static,
{
    Act(f)
}

impl<F> Handler for Act<F>
where
    F: for<'a, 'c> Fn(&'a mut Context<'c>, Value) -> Answer<'a> + Send + Sync + 'static,
{
    const TASK_TYPE: &'static str = "act";
    type Payload = Value;
    type Share = Value;
    type Output = Value;

    async fn execute(
        &self,
        context: &mut Context<'_>,
        _: &Value,
        share: Value,
    ) -> Result<Outcome<Value>, HandlerError> {
        (self.0)(context, share).await
    }
}
