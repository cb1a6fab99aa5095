//! The database's clock, and how a test sets it.

use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use std::time::Duration;

/// What time it is, by the only clock that decides.
///
/// # Errors
/// Database.
pub async fn now(executor: impl PgExecutor<'_>) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar("select divvy.clock()").fetch_one(executor).await?)
}

/// Refuses unless the database is marked as a test database.
///
/// # Errors
/// Config, saying how to mark it.
pub async fn require_test_database(connection: &mut PgConnection) -> Result<()> {
    let (name, marked): (String, bool) = sqlx::query_as(
        "select current_database()::text,
                coalesce((select value::text = 'true' from divvy.setting where name = 'test_database'), false)",
    )
    .fetch_one(connection)
    .await?;
    if marked {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Config,
        format!(
            "the clock of database {name:?} can't be set: it isn't marked as a test database \
             (divvy.setting 'test_database' is not true)"
        ),
    ))
}

/// Puts a clock that stands still in place of the real one, at the moment it is.
///
/// # Errors
/// Config when this is no test database.
pub async fn install(connection: &mut PgConnection) -> Result<()> {
    require_test_database(connection).await?;
    sqlx::raw_sql(include_str!("test_clock.sql")).execute(connection).await?;
    Ok(())
}

/// Sets the clock.
///
/// # Errors
/// Database when [`install`] wasn't called.
pub async fn set(executor: impl PgExecutor<'_>, at: DateTime<Utc>) -> Result<()> {
    sqlx::query("update divvy.test_clock set at = $1").bind(at).execute(executor).await?;
    Ok(())
}

/// Moves the clock forward and returns where it then stands.
///
/// # Errors
/// Database when [`install`] wasn't called.
pub async fn advance(executor: impl PgExecutor<'_>, by: Duration) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar("update divvy.test_clock set at = at + $1 returning at")
        .bind(super::interval(by))
        .fetch_one(executor)
        .await?)
}
