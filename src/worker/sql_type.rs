//! A task type as three statements: a handler whose steps run in the database, as a role of their own.

use crate::handler::{Context, Erased, HandlerError, Outcome};
use crate::store::state::Phase;
use crate::store::statement::{self, SqlType};
use crate::{Error, ErrorKind, Result};
use serde_json::value::RawValue;
use sqlx::PgPool;
use std::future::Future;
use std::pin::Pin;

/// Shares read at a time: what one call of `add_splits` takes.
const SHARES: u32 = 10_000;

type Answer = Result<Outcome<Option<Box<RawValue>>>, HandlerError>;

/// One type, and the connections of its role.
pub(super) struct Statements {
    steps: SqlType,
    role: PgPool,
}

impl Statements {
    pub(super) fn new(steps: SqlType, role: PgPool) -> Self {
        Self { steps, role }
    }

    /// The step the split is for. All of it happens in the transaction of the split's completion.
    async fn step(&self, context: &mut Context<'_>) -> Result<Option<Box<RawValue>>> {
        context.work_in(&self.role);
        let (payload, share) = (context.raw_payload(), context.raw_share());
        if let Some(milliseconds) = self.steps.statement_timeout_ms {
            statement::limit(context.transaction().await?, milliseconds).await?;
        }
        match (context.phase(), &self.steps.split, &self.steps.reduce) {
            (Phase::Plan, Some(split), _) => self.split(context, split, &payload).await,
            (Phase::Execute, ..) => {
                statement::run(context.transaction().await?, &self.steps.execute, &payload, &share).await
            }
            (Phase::Reduce, _, Some(reduce)) => {
                let (split, token) = (context.split_id(), context.token());
                let connection = context.transaction().await?;
                let counts = statement::open_results(connection, split, token).await?;
                statement::run(connection, reduce, &payload, &counts).await
            }
            // The type had this step when the task began, and has lost it since.
            _ => Err(Error::new(ErrorKind::BadOption, "the type has no such statement any more")),
        }
    }

    async fn split(
        &self,
        context: &mut Context<'_>,
        statement: &str,
        payload: &RawValue,
    ) -> Result<Option<Box<RawValue>>> {
        statement::open_shares(context.transaction().await?, statement, payload).await?;
        loop {
            let shares = statement::next_shares(context.transaction().await?, SHARES).await?;
            if shares.is_empty() {
                return Ok(None);
            }
            context.add_splits(shares).await?;
        }
    }
}

impl Erased for Statements {
    fn plans(&self) -> bool {
        self.steps.split.is_some()
    }

    fn reduces(&self) -> bool {
        self.steps.reduce.is_some()
    }

    fn run<'a>(&'a self, context: &'a mut Context<'_>) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
        Box::pin(async move {
            let step = match context.phase() {
                Phase::Plan => "split",
                Phase::Execute => "execute",
                Phase::Reduce => "reduce",
            };
            self.step(context).await.map(Outcome::Complete).map_err(|error| {
                let message = format!("{step} of type {}: {error}", self.steps.name);
                HandlerError::new(message).class(statement::class(&error))
            })
        })
    }
}
