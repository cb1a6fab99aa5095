//! Pools that are safe to work with.

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use std::time::Duration;

/// How long a borrower waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pool options with divvy's guard: a connection that isn't idle (a `begin` that was given up half-way left
/// a transaction open on it) is discarded before anybody works inside that transaction.
///
/// The check replaces sqlx's own ping, so borrowing costs the same one round trip.
pub fn options() -> PgPoolOptions {
    PgPoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT).test_before_acquire(false).before_acquire(
        |connection, _| {
            Box::pin(async move {
                // Inside a transaction now() is the moment of its begin; outside, of this statement. By the
                // simple protocol: the extended one stamps bind and execute apart, and none would be idle.
                let idle = sqlx::raw_sql("select pg_catalog.now() = pg_catalog.statement_timestamp()")
                    .fetch_one(connection)
                    .await
                    .and_then(|row| sqlx::Row::try_get::<bool, _>(&row, 0));
                Ok(idle.unwrap_or(false))
            })
        },
    )
}

/// A small pool beside `pool`, to the same database: for calls that must not wait behind users' code.
/// Connects when first used.
pub fn beside(pool: &PgPool, connections: u32) -> PgPool {
    let connect: PgConnectOptions = pool.connect_options().as_ref().clone();
    options().max_connections(connections).min_connections(0).connect_lazy_with(connect)
}
