//! The batch job itself, written as any user of divvy would: split, execute, reduce.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::demo::names::{self, Pairs};
use crate::demo::tables::{self, FormReport};
use crate::handler::{Context, Handler, HandlerError, Inputs, Outcome, Range};

/// Code points end before this one.
const CODE_POINTS_END: u32 = 0x11_0000;

/// Finds the names that differ and become one when they are normalised.
#[derive(Debug, Default)]
pub struct Collisions {
    /// Read once per process: every split needs the rule, and the input does not change.
    pairs: OnceCell<Pairs>,
}

/// What a task of the demo is given.
#[derive(Debug, Serialize, Deserialize)]
pub struct Payload {
    /// Into how many splits it divides itself.
    pub splits: usize,
}

/// What a split answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Written {
    /// How many names it wrote.
    pub names: u64,
}

/// What reduce answers: the report, which is the task's result.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// How many names were normalised.
    pub names: u64,
    /// How many collide, form by form.
    pub forms: Vec<FormReport>,
}

impl Collisions {
    async fn pairs(&self, context: &mut Context<'_>) -> Result<&Pairs, HandlerError> {
        let connection = context.transaction().await?;
        Ok(self.pairs.get_or_try_init(|| tables::pairs(connection)).await?)
    }
}

impl Handler for Collisions {
    const TASK_TYPE: &'static str = "demo.collisions";
    const PLAN: bool = true;
    const REDUCE: bool = true;
    type Payload = Payload;
    type Share = Range;
    type Output = Written;

    async fn split(&self, context: &mut Context<'_>, payload: &Payload) -> Result<(), HandlerError> {
        let pairs = self.pairs(context).await?;
        let connection = context.transaction().await?;
        let chars = tables::characters(connection, 0..CODE_POINTS_END).await?;
        let ranges = names::ranges(&chars, pairs, payload.splits);
        let shares = ranges.into_iter().map(|range| Range { lo: range.start.into(), hi: range.end.into() });
        context.add_splits(shares).await?;
        Ok(())
    }

    async fn execute(
        &self,
        context: &mut Context<'_>,
        _: &Payload,
        share: Range,
    ) -> Result<Outcome<Written>, HandlerError> {
        let (Ok(lo), Ok(hi)) = (u32::try_from(share.lo), u32::try_from(share.hi)) else {
            return Ok(Outcome::Stop(format!("{} to {} is no range of code points", share.lo, share.hi)));
        };
        let pairs = self.pairs(context).await?;
        // The transaction of the completion: a split that is executed a second time, because its worker
        // was killed, finds nothing of the first.
        let connection = context.transaction().await?;
        let chars = tables::characters(connection, lo..hi).await?;
        let names = tables::write(connection, pairs.normalized(&chars)).await?;
        Ok(Outcome::Complete(Written { names }))
    }

    async fn reduce(
        &self,
        context: &mut Context<'_>,
        _: &Payload,
        mut inputs: Inputs<Written>,
    ) -> Result<Outcome<Value>, HandlerError> {
        let mut names = 0;
        while let Some(input) = inputs.next(context).await? {
            names += input.output.map_or(0, |written| written.names);
        }
        let connection = context.transaction().await?;
        let found = tables::names(connection).await?;
        if found != names {
            let message =
                format!("demo.normalized has {found} names, the splits say that they wrote {names}");
            return Ok(Outcome::Stop(message));
        }
        let forms = tables::reduce(connection).await?;
        Ok(Outcome::Complete(json!(Report { names, forms })))
    }
}
