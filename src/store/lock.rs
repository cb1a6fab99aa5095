//! Transactions for users' code, and advisory locks.
//!
//! sqlx 0.9 has a trap: a future dropped inside `Pool::begin` leaves a transaction open on a pooled
//! connection, and the next borrower works inside it. So every `begin` of divvy runs in a task of its
//! own that nobody drops, and [`crate::store::pool`] discards connections that aren't idle.

use crate::{Error, ErrorKind, Result, apart};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, PgTransaction};
use std::time::Duration;

/// The longest statement limit Postgres takes, in milliseconds.
const STATEMENT_TIMEOUT_MAX: u128 = i32::MAX as u128;

/// Begins a READ COMMITTED transaction in which no statement, and no pause between two, outlives `limit`,
/// so that a handler that was given up can't hold its locks longer than it was allowed to run.
///
/// # Errors
/// Database when there is no connection.
pub async fn begin(pool: &PgPool, limit: Duration) -> Result<PgTransaction<'static>> {
    let milliseconds = limit.as_millis().clamp(1, STATEMENT_TIMEOUT_MAX);
    let begin = format!(
        "begin isolation level read committed; set local statement_timeout = {milliseconds}; \
         set local idle_in_transaction_session_timeout = {milliseconds}"
    );
    let pool = pool.clone();
    let begun = apart::spawn(async move { pool.begin_with(AssertSqlSafe(begin)).await });
    match begun.await {
        Ok(transaction) => Ok(transaction?),
        Err(error) => {
            Err(Error::new(ErrorKind::Database, "the task that began a transaction ended early")
                .caused_by(error))
        }
    }
}

/// Refuses a connection that isn't in a transaction.
///
/// # Errors
/// Config.
pub async fn require_transaction(connection: &mut PgConnection) -> Result<()> {
    // SAVEPOINT outside a transaction is an error of its own class; inside, it costs nothing.
    sqlx::query("savepoint divvy_inline").execute(&mut *connection).await.map_err(|error| {
        Error::new(
            ErrorKind::Config,
            "the connection is not in a transaction: begin one, and roll it back at the end",
        )
        .caused_by(error)
    })?;
    sqlx::query("release savepoint divvy_inline").execute(connection).await?;
    Ok(())
}

/// Opens the savepoint that [`rollback_to_savepoint`] returns to.
///
/// # Errors
/// Database; also when the connection isn't in a transaction.
pub async fn savepoint(connection: &mut PgConnection) -> Result<()> {
    sqlx::query("savepoint divvy_handler").execute(connection).await?;
    Ok(())
}

/// Undoes what was written since [`savepoint`].
///
/// # Errors
/// Database.
pub async fn rollback_to_savepoint(connection: &mut PgConnection) -> Result<()> {
    sqlx::query("rollback to savepoint divvy_handler").execute(connection).await?;
    Ok(())
}

/// Takes a session's advisory lock if nobody holds it. The lock lives as long as the connection: use one
/// that no pool recycles.
///
/// # Errors
/// Database.
pub async fn try_advisory_lock(connection: &mut PgConnection, key: i64) -> Result<bool> {
    Ok(sqlx::query_scalar("select pg_try_advisory_lock($1)").bind(key).fetch_one(connection).await?)
}
