//! One connection that is kept between calls.

use super::{Store, Work, pool};
use crate::store::sqlstate;
use crate::{Error, ErrorKind, Result};
use sqlx::pool::PoolConnection;
use sqlx::{Executor, PgPool, Postgres};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Room for one call, and a second one beside it.
const CONNECTIONS: u32 = 2;

/// glibc gives memory back to the system at the end of each call, and fetches it again, page by page, in the next: a
/// quarter of what a call with hundreds of splits costs the server. Once a process has freed a block of this size, it
/// keeps twice as much (`M_TRIM_THRESHOLD` in mallopt(3)). Other allocators don't mind.
const KEEP_MEMORY: &str = "select pg_catalog.length(pg_catalog.repeat('x', 4194304))";

/// A connection for calls that come one after the other, each a statement of its own. A pool would ask the server
/// before and after each of them whether the connection still lives, and hand out another one each time, which
/// remembers less of where its last claim has come.
#[derive(Debug)]
pub struct Line {
    store: Store,
    kept: Mutex<Option<PoolConnection<Postgres>>>,
}

impl Line {
    /// A line beside `pool`, to the same database, that connects when it is first used, and again after a failure.
    pub fn beside(pool: &PgPool) -> Self {
        let options = pool::options().max_connections(CONNECTIONS).after_connect(|connection, _| {
            Box::pin(async move { connection.execute(KEEP_MEMORY).await.map(drop) })
        });
        let connect = pool.connect_options().as_ref().clone();
        Self { store: Store::new(options.connect_lazy_with(connect)), kept: Mutex::default() }
    }

    /// Connects before the first call, which a failure is left to.
    pub async fn open(&self) {
        let connection = self.store.pool().acquire().await.ok();
        *self.lock() = connection;
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
