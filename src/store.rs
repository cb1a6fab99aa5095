//! The one door to Postgres: each SQL function of the protocol has one typed Rust function here.
//!
//! Every function takes any [`sqlx::PgExecutor`] (a pool, a connection, the caller's transaction), so
//! whatever may join a transaction can. The rules live in `sql/`; nothing here decides anything.
//! A file per noun; [`sqlstate`] alone knows error codes, [`listing`] alone builds SQL at run time.

pub mod alert;
pub mod answer;
pub mod breaker;
pub mod bulk;
pub mod calendar;
pub mod callback;
pub mod claim;
pub mod clock;
pub mod complete;
pub mod connect;
pub mod doctor;
pub mod duty;
pub mod enqueue;
pub mod exec_type;
pub mod explain;
pub mod http_type;
pub mod lead;
pub mod line;
pub mod listen;
pub mod listing;
pub mod lock;
pub mod metric;
pub mod migrate;
pub mod operate;
pub mod overview;
pub mod pool;
pub mod schedule;
pub mod secret;
pub mod sqlstate;
pub mod state;
pub mod statement;
pub mod token;
pub mod worker;

use crate::{Error, ErrorKind, Result, apart};
use sqlx::pool::PoolConnection;
use sqlx::postgres::types::PgInterval;
use sqlx::{PgConnection, PgPool, Postgres};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// A future that borrows a connection: what [`Store::bounded`] runs.
pub type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'c>>;

/// A pool that protocol calls go through, with a bound on how long each may take.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// A store over `pool`.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The pool, for calls that need no bound.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Runs `work` on one connection and gives up after `limit`.
    ///
    /// A connection whose call was given up, or which failed below the protocol, is closed instead of
    /// going back to the pool: a half-open socket would hold the next borrower for as long again.
    ///
    /// # Errors
    /// What `work` returns; [`ErrorKind::Database`] when there is no connection or no answer in time.
    pub async fn bounded<T, F>(&self, limit: Duration, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T> + Send + 'static,
    {
        let (work, value) = telling(work);
        run(self.pool.acquire().await?, limit, work).await?;
        value.await.map_err(|_| did_not_end())
    }

    /// The same in a task of its own: `work` goes on when whoever asked is dropped. A connection that is left in the middle
    /// of a call waits for its end without any limit, and nobody else has it meanwhile.
    ///
    /// # Errors
    /// As [`Store::bounded`].
    pub async fn bounded_apart<T, F>(&self, limit: Duration, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T> + Send + 'static,
    {
        let (work, value) = telling(work);
        apart::spawn(run(self.pool.acquire().await?, limit, work)).await.map_err(|_| did_not_end())??;
        value.await.map_err(|_| did_not_end())
    }
}

/// Work that tells what it came to by a channel: so what is around it, much more than itself, is built once and not for each call
/// of the protocol.
type Telling = Box<dyn for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, ()> + Send>;

fn telling<T, F>(work: F) -> (Telling, oneshot::Receiver<T>)
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T> + Send + 'static,
{
    let (told, value) = oneshot::channel();
    let telling: Telling = Box::new(move |connection| {
        let work = work(connection);
        Box::pin(async move {
            // Whoever asked may be gone.
            let _ = told.send(work.await?);
            Ok(())
        })
    });
    (telling, value)
}

fn did_not_end() -> Error {
    Error::new(ErrorKind::Database, "the call did not end: its task panicked or was cancelled")
}

/// Runs a call. A connection that nobody should borrow again is closed.
async fn run(mut connection: PoolConnection<Postgres>, limit: Duration, work: Telling) -> Result<()> {
    let done = timeout(limit, work(&mut connection)).await.unwrap_or_else(|_| {
        connection.close_on_drop();
        Err(Error::new(ErrorKind::Database, format!("the database did not answer within {limit:?}")))
    });
    if done.as_ref().is_err_and(sqlstate::is_connection_lost) {
        connection.close_on_drop();
    }
    done
}

/// A duration as Postgres takes it: whole microseconds, and no longer than an interval can hold.
pub(crate) fn interval(duration: Duration) -> PgInterval {
    let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}

/// Seconds as Postgres gives them; what is negative or no number is no wait at all.
pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
}
