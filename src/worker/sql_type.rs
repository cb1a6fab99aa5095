//! A task type as three statements: a handler whose steps run in the database, as a role of their own.

use crate::handler::{Answer, Context, Erased, HandlerError, Outcome, Running};
use crate::store::state::Phase;
use crate::store::statement::{self, SqlType};
use crate::{Error, ErrorKind, Result};
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::PgPool;
use std::time::Duration;

/// Shares read at a time: what one call of `add_splits` takes.
const SHARES: u32 = 10_000;

/// How soon a split is looked at again whose type has another role now: by then it is served.
const ROLE_CHANGED: Duration = Duration::from_secs(2);

/// One type, and the connections of its role.
pub(super) struct Statements {
    name: String,
    role: String,
    connections: PgPool,
    plans: bool,
    reduces: bool,
}

impl Statements {
    pub(super) fn new(steps: &SqlType, connections: PgPool) -> Self {
        let (plans, reduces) = (steps.split.is_some(), steps.reduce.is_some());
        Self { name: steps.name.clone(), role: steps.role.clone(), connections, plans, reduces }
    }

    /// The step the split is for. All of it happens in the transaction of the split's completion.
    async fn step(&self, context: &mut Context<'_>) -> Result<Outcome<Option<Box<RawValue>>>> {
        let steps = self.current(context).await?;
        if steps.role != self.role {
            return Ok(Outcome::Continue { state: Value::Null, after: ROLE_CHANGED });
        }
        context.work_in(&self.connections);
        let (payload, share) = (context.raw_payload(), context.raw_share());
        if let Some(milliseconds) = steps.statement_timeout_ms {
            statement::limit(context.transaction().await?, milliseconds).await?;
        }
        let result = match (context.phase(), steps.split, steps.reduce) {
            (Phase::Plan, Some(split), _) => self.split(context, &split, &payload).await?,
            (Phase::Execute, ..) => {
                statement::run(context.transaction().await?, &steps.execute, &payload, &share).await?
            }
            (Phase::Reduce, _, Some(reduce)) => {
                let (split, token) = (context.split_id(), context.token());
                let connection = context.transaction().await?;
                let counts = statement::open_results(connection, split, token).await?;
                statement::run(connection, &reduce, &payload, &counts).await?
            }
            // The type had this step when the task began, and has lost it since.
            _ => return Err(Error::new(ErrorKind::BadOption, "the type has no such statement any more")),
        };
        Ok(Outcome::Complete(result))
    }

    /// The statements as they are now, so that whoever puts a type and then a task sees the new ones run.
    async fn current(&self, context: &mut Context<'_>) -> Result<SqlType> {
        let name = self.name.clone();
        let call = context.door.call(move |connection| {
            Box::pin(async move { statement::sql_types(connection, Some(&name)).await })
        });
        let missing = || Error::new(ErrorKind::NotFound, "the type is no type in SQL any more");
        call.await?.pop().ok_or_else(missing)
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
        self.plans
    }

    fn reduces(&self) -> bool {
        self.reduces
    }

    fn run<'a>(&'a self, context: &'a mut Context<'_>) -> Running<'a> {
        Box::pin(async move {
            let step = match context.phase() {
                Phase::Plan => "split",
                Phase::Execute => "execute",
                Phase::Reduce => "reduce",
            };
            self.step(context).await.map(Answer::from).map_err(|error| {
                let message = format!("{step} of type {}: {error}", self.name);
                HandlerError::new(message).class(statement::class(&error))
            })
        })
    }
}
