//! One connection that is kept between calls.

use super::{Store, Work};
use crate::store::sqlstate;
use crate::{Error, ErrorKind, Result};
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A connection for calls that come one after the other, each a statement of its own. A pool would ask the server
/// before and after each of them whether the connection still lives, and hand out another one each time, which
/// remembers less of where its last claim has come.
#[derive(Debug)]
pub struct Line {
    store: Store,
    kept: Mutex<Option<PoolConnection<Postgres>>>,
}

impl Line {
    /// A line that connects by `pool` when it is first used, and again after a failure.
    pub fn new(pool: PgPool) -> Self {
        Self { store: Store::new(pool), kept: Mutex::default() }
    }

    /// As [`Store::bounded`]; a call beside another one has a connection of its own.
    ///
    /// # Errors
    /// What `work` returns; [`ErrorKind::Database`] when there is no connection or no answer in time.
    pub async fn bounded<T, F>(&self, limit: Duration, work: F) -> Result<T>
    where
        F: for<'c> FnOnce(&'c mut sqlx::PgConnection) -> Work<'c, T>,
    {
        let kept = self.lock().take();
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.store.pool().acquire().await?,
        };
        let answer = tokio::time::timeout(limit, work(&mut connection)).await.unwrap_or_else(|_| {
            let message = format!("the database did not answer within {limit:?}");
            Err(Error::new(ErrorKind::Database, message))
        });
        match &answer {
            // An error of the server's leaves the connection as good as it was.
            Err(error) if sqlstate::code(error).is_none() || sqlstate::is_connection_lost(error) => {
                connection.close_on_drop();
            }
            _ => *self.lock() = Some(connection),
        }
        answer
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<PoolConnection<Postgres>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
