//! The splits' results, as reduce reads them: page by page, never all in memory.

use super::{Context, HandlerError};
use crate::store::complete::{ReduceInput, reduce_inputs};
use crate::store::state::SplitStatus;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::VecDeque;
use std::marker::PhantomData;

/// How many results one page holds.
const PAGE_ROWS: i32 = 1_000;

/// One ended split.
#[derive(Debug, Clone, PartialEq)]
pub struct Input<T> {
    /// Its number in the task, from 1.
    pub split_no: i32,
    /// How it ended.
    pub status: SplitStatus,
    /// What it returned, if it succeeded.
    pub output: Option<T>,
    /// Why it failed, if it did.
    pub error: Option<Value>,
}

/// A cursor over the task's ended splits, in the order of their numbers.
///
/// ```no_run
/// # use divvy::handler::{Context, HandlerError, Inputs};
/// # async fn sum(context: &mut Context<'_>, mut inputs: Inputs<i64>) -> Result<i64, HandlerError> {
/// let mut sum = 0;
/// while let Some(input) = inputs.next(context).await? {
///     sum += input.output.unwrap_or(0);
/// }
/// # Ok(sum) }
/// ```
#[derive(Debug)]
pub struct Inputs<T> {
    after: i32,
    page: VecDeque<ReduceInput>,
    ended: bool,
    succeeded: u64,
    failed: u64,
    other: u64,
    output: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Inputs<T> {
    pub(crate) fn new() -> Self {
        let page = VecDeque::new();
        Self { after: 0, page, ended: false, succeeded: 0, failed: 0, other: 0, output: PhantomData }
    }

    /// The next split, or none after the last.
    ///
    /// # Errors
    /// When the lease is lost, or a result does not parse as `T`.
    pub async fn next(&mut self, context: &mut Context<'_>) -> Result<Option<Input<T>>, HandlerError> {
        if self.page.is_empty() && !self.ended {
            self.turn_page(context).await?;
        }
        let Some(row) = self.page.pop_front() else { return Ok(None) };
        match row.status {
            SplitStatus::Succeeded => self.succeeded += 1,
            SplitStatus::Failed => self.failed += 1,
            _ => self.other += 1,
        }
        let output = match row.result {
            Some(result) if row.status == SplitStatus::Succeeded => {
                Some(serde_json::from_str(result.get()).map_err(|error| {
                    let message = format!(
                        "the result of split number {} of task {} does not fit the handler: {error}",
                        row.split_no,
                        context.task_id()
                    );
                    HandlerError::new(message).class("result")
                })?)
            }
            _ => None,
        };
        Ok(Some(Input { split_no: row.split_no, status: row.status, output, error: row.error }))
    }

    async fn turn_page(&mut self, context: &mut Context<'_>) -> Result<(), HandlerError> {
        let (split, token, after) = (context.split_id(), context.token(), self.after);
        let rows =
            context.door.call(move |c| Box::pin(reduce_inputs(c, split, token, after, PAGE_ROWS))).await?;
        // A page may be cut short by bytes as well, so only an empty one is the end.
        self.ended = rows.is_empty();
        if let Some(last) = rows.last() {
            self.after = last.split_no;
        }
        self.page = rows.into();
        Ok(())
    }

    /// How many of those read so far succeeded.
    pub fn succeeded(&self) -> u64 {
        self.succeeded
    }

    /// How many of those read so far failed.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// How many of those read so far were cancelled or skipped.
    pub fn set_aside(&self) -> u64 {
        self.other
    }
}
