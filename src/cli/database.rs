//! The database a command works on: the one that was given, or the embedded Postgres.

use super::Global;
use crate::Result;
use crate::config::Addresses;
use crate::embedded::{Embedded, Settings};
use crate::store::migrate::{self, Status};
use crate::store::{connect, sqlstate};
use sqlx::PgPool;
use std::time::Duration;

/// A database that is ready for use. Keep it as long as the pool is used: it keeps the embedded Postgres up.
pub struct Database {
    /// For work.
    pub pool: PgPool,
    /// How to connect, for work and directly.
    pub addresses: Addresses,
    /// The address for other programs, when it is the embedded Postgres.
    pub embedded_url: Option<String>,
    guard: Option<Embedded>,
}

impl Database {
    /// Closes the pool and leaves the embedded Postgres, which stops when this was its last user.
    ///
    /// # Errors
    /// When the embedded Postgres does not stop.
    pub async fn close(self) -> Result<()> {
        self.pool.close().await;
        match self.guard {
            Some(embedded) => embedded.stop_if_last().await,
            None => Ok(()),
        }
    }
}

/// Finds the database, without connecting to one that was given; starts the embedded one if none was.
///
/// # Errors
/// When the address is malformed, or the embedded Postgres does not start.
pub async fn locate(global: &Global, linger: Duration) -> Result<(Addresses, Option<Embedded>)> {
    if let Some(addresses) = global.database().options()? {
        return Ok((addresses, None));
    }
    let embedded = Embedded::start(&Settings { linger, ..Settings::from_env()? }).await?;
    let options = embedded.options();
    Ok((Addresses { work: options.clone(), direct: options }, Some(embedded)))
}

/// Connects as every command does: at most `connections` at a time, to a server that can be used.
///
/// # Errors
/// When there is no usable database; the message says what to do.
pub async fn connect(global: &Global, connections: u32) -> Result<Database> {
    let (addresses, guard) = locate(global, Duration::ZERO).await?;
    let pool = connect::pool(&addresses.work.clone().application_name("divvy"), connections).await?;
    let embedded_url = guard.as_ref().map(|embedded| embedded.url(crate::embedded::DATABASE));
    Ok(Database { pool, addresses, embedded_url, guard })
}

/// Does `work` on the database and leaves it. The embedded one is brought to this version's schema first; of
/// a given one that lacks it, the error says what to do.
///
/// # Errors
/// When there is no usable database, or what `work` says.
pub async fn with(
    global: &Global,
    connections: u32,
    work: impl AsyncFnOnce(&Database) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let database = connect(global, connections).await?;
    let outcome = match prepare_embedded(&database).await {
        Ok(()) => work(&database).await.map_err(advise),
        Err(error) => Err(error.into()),
    };
    database.close().await?;
    outcome
}

async fn prepare_embedded(database: &Database) -> Result<()> {
    if database.embedded_url.is_some() && migrate::check(&database.addresses.direct).await? != Status::Current
    {
        migrate::migrate(&database.addresses.direct).await?;
    }
    Ok(())
}

/// What helps against an error that says only what Postgres saw.
fn advise(error: anyhow::Error) -> anyhow::Error {
    let code = error.chain().find_map(|cause| cause.downcast_ref::<crate::Error>()).and_then(sqlstate::code);
    match code.as_deref() {
        Some("3F000" | "42P01" | "42883" | "42703") => {
            error.context("the database has no divvy schema, or an older one: run `divvy migrate`")
        }
        Some("42501") => error.context("this role lacks a right (`divvy doctor` says which)"),
        _ => error,
    }
}
