//! What an attempt of such a handler asks of the database besides its outcome.

use crate::handler::{Context, Door};
use crate::id::{SplitId, Token};
use crate::store::Store;
use crate::store::complete::{self, ReduceInput};
use crate::worker::CALL_WITHIN;
use crate::{Error, ErrorKind, Result};
use serde_json::value::RawValue;

/// Results of one page of a reduce; each may have a MiB.
const PAGE_ROWS: i32 = 128;
/// What one call of `add_splits` takes, and about how many bytes of it.
const BATCH_ROWS: usize = 10_000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// One attempt's calls: each commits by itself, and several parts of the attempt may make them at once.
#[derive(Clone)]
pub(in crate::worker) struct Calls {
    control: Store,
    split: SplitId,
    token: Token,
}

impl Calls {
    pub(in crate::worker) fn of(context: &Context<'_>) -> Result<Self> {
        let Door::Pools { control, .. } = &context.door else {
            return Err(Error::new(ErrorKind::Config, "such a handler is run by a worker alone"));
        };
        Ok(Self { control: control.clone(), split: context.split_id(), token: context.token() })
    }

    /// What it holds.
    pub(in crate::worker) fn key(&self) -> (SplitId, Token) {
        (self.split, self.token)
    }

    /// Where calls go.
    pub(in crate::worker) fn control(&self) -> &Store {
        &self.control
    }

    pub(in crate::worker) async fn log(&self, lines: Vec<String>) -> Result<()> {
        let (split, token) = (self.split, self.token);
        let call = self.control.bounded(CALL_WITHIN, move |c| {
            Box::pin(async move { complete::log_lines(c, split, token, "info", &lines).await })
        });
        call.await
    }

    /// The ended splits after number `after`; none after the last.
    pub(in crate::worker) async fn inputs(&self, after: i32) -> Result<Vec<ReduceInput>> {
        let (split, token) = (self.split, self.token);
        let call = self.control.bounded(CALL_WITHIN, move |c| {
            Box::pin(complete::reduce_inputs(c, split, token, after, PAGE_ROWS))
        });
        call.await
    }

    async fn add_splits(&self, shares: Box<RawValue>) -> Result<()> {
        let (split, token) = (self.split, self.token);
        let call = self.control.bounded(CALL_WITHIN, move |c| {
            Box::pin(async move { complete::add_splits(c, split, token, &shares).await.map(drop) })
        });
        call.await
    }
}

/// Shares on their way into the database.
pub(in crate::worker) struct Shares {
    calls: Calls,
    rows: usize,
    text: String,
}

impl Shares {
    pub(in crate::worker) fn new(calls: Calls) -> Self {
        Self { calls, rows: 0, text: String::new() }
    }

    /// Adds one; stores them when they are many.
    pub(in crate::worker) async fn add(&mut self, share: &RawValue) -> Result<()> {
        self.text.push(if self.rows == 0 { '[' } else { ',' });
        self.text.push_str(share.get());
        self.rows += 1;
        if self.rows >= BATCH_ROWS || self.text.len() >= BATCH_BYTES {
            self.store().await?;
        }
        Ok(())
    }

    /// Stores those that are not yet.
    pub(in crate::worker) async fn store(&mut self) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        self.text.push(']');
        self.rows = 0;
        let array = RawValue::from_string(std::mem::take(&mut self.text))
            .map_err(|error| Error::new(ErrorKind::BadOption, format!("the shares are no JSON: {error}")))?;
        self.calls.add_splits(array).await
    }
}
