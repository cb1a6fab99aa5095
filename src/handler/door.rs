//! How a running handler reaches the database: through pools in a worker, through the caller's own
//! connection when a test runs a task inline.

use crate::Result;
use crate::store::{Store, Work, lock};
use sqlx::{PgConnection, PgPool, PgTransaction};
use std::time::Duration;

/// How long one call of the protocol may take.
const CALL_WITHIN: Duration = Duration::from_secs(30);

pub(crate) enum Door<'c> {
    /// Protocol calls go through `control`, so a handler that uses up `work` can't block its own checkpoint.
    Pools {
        control: Store,
        work: PgPool,
        /// How long a transaction's statements may take: what is left of the split's time at most.
        limit: Duration,
        transaction: Option<PgTransaction<'static>>,
    },
    /// Everything happens in the caller's transaction; `opened` tells whether the handler's savepoint stands.
    Inline { connection: &'c mut PgConnection, opened: bool },
}

impl Door<'_> {
    /// One call of the protocol, committed by itself in a worker.
    pub(crate) async fn call<T, F>(&mut self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut PgConnection) -> Work<'a, T> + Send + 'static,
    {
        match self {
            Door::Pools { control, .. } => control.bounded(CALL_WITHIN, work).await,
            Door::Inline { connection, .. } => work(connection).await,
        }
    }

    /// The transaction in which the outcome will be written, begun when first asked for.
    pub(crate) async fn transaction(&mut self) -> Result<&mut PgConnection> {
        match self {
            Door::Pools { work, limit, transaction, .. } => {
                if transaction.is_none() {
                    *transaction = Some(lock::begin(work, *limit).await?);
                }
                match transaction {
                    Some(begun) => Ok(begun),
                    None => unreachable!("it was begun above"),
                }
            }
            Door::Inline { connection, opened } => {
                if !*opened {
                    lock::savepoint(connection).await?;
                    *opened = true;
                }
                Ok(connection)
            }
        }
    }
}
