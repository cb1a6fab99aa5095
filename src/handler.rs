//! What users write: one trait with three steps, and how it answers.
//!
//! ```
//! use divvy::handler::{Context, Handler, HandlerError, Outcome};
//!
//! struct Greet;
//!
//! impl Handler for Greet {
//!     const TASK_TYPE: &'static str = "greet";
//!     type Payload = String;
//!     type Share = ();
//!     type Output = String;
//!
//!     async fn execute(&self, _: &mut Context<'_>, name: &String, _: ()) -> Result<Outcome<String>, HandlerError> {
//!         Ok(Outcome::Complete(format!("hello, {name}")))
//!     }
//! }
//! ```

mod context;
mod door;
mod erased;
mod inputs;
mod outcome;
#[cfg(feature = "cli")]
pub(crate) mod said;
mod share;
mod trace;

pub use context::Context;
pub use inputs::{Input, Inputs};
pub use outcome::{HandlerError, Outcome};
pub use share::{Index, Range};

pub(crate) use door::Door;
pub(crate) use erased::{Answer, Erased, Running, erase};
pub(crate) use outcome::{Settlement, error_json, settlement};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::future::Future;

/// The code behind a task type.
///
/// A split is executed at least once: write effects through [`Context::transaction`] (exactly once, in the
/// same database) or make them idempotent by [`Context::idempotency_key`].
///
/// Futures may be dropped at any `.await` when the split times out or its lease is lost.
pub trait Handler: Send + Sync + 'static {
    /// The type it serves unless x says another.
    const TASK_TYPE: &'static str;
    /// Whether tasks without given splits begin with [`Handler::split`].
    const PLAN: bool = false;
    /// Whether tasks end with [`Handler::reduce`].
    const REDUCE: bool = false;

    /// The task's payload.
    type Payload: DeserializeOwned + Send + Sync;
    /// What a split carries; `()` where a task is one piece. See [`Index`] and [`Range`] for given splits.
    type Share: Serialize + DeserializeOwned + Send;
    /// What a split returns.
    type Output: Serialize + DeserializeOwned + Send;

    /// Divides the task: emits shares through [`Context::add_splits`]. They appear all at once when it
    /// returns, and not at all when it fails.
    fn split(
        &self,
        context: &mut Context<'_>,
        payload: &Self::Payload,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send {
        let _ = (context, payload);
        async { Err(HandlerError::new(format!("handler of {:?} has no split step", Self::TASK_TYPE))) }
    }

    /// Does one share.
    fn execute(
        &self,
        context: &mut Context<'_>,
        payload: &Self::Payload,
        share: Self::Share,
    ) -> impl Future<Output = Result<Outcome<Self::Output>, HandlerError>> + Send;

    /// Runs once, after the last split; what it returns is the task's result.
    fn reduce(
        &self,
        context: &mut Context<'_>,
        payload: &Self::Payload,
        inputs: Inputs<Self::Output>,
    ) -> impl Future<Output = Result<Outcome<Value>, HandlerError>> + Send {
        let _ = (context, payload, inputs);
        async { Err(HandlerError::new(format!("handler of {:?} has no reduce step", Self::TASK_TYPE))) }
    }
}
