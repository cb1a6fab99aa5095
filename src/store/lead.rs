//! The leader's own connection: the advisory lock, the term, and whether a pooler stands between.

use crate::store::{connect, duty};
use crate::{Error, ErrorKind, Result};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};
use std::time::Duration;
use uuid::Uuid;

/// The advisory lock's key: the letters `divvylea`.
const KEY: i64 = i64::from_be_bytes(*b"divvylea");

/// The server ends the lock's session when it has heard nothing for so long: a leader that is stopped or cut
/// off loses the lock, not only its belief in it.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Connections of the duties: one for the slow ones, one so that the others need not wait.
const DUTY_CONNECTIONS: u32 = 2;

/// How long a duty's connection may wait for nothing before it is closed.
const DUTY_IDLE: Duration = Duration::from_secs(30);

/// Rounds of the search for a pooler; with few clients the first one tells.
const PROBE_ROUNDS: usize = 3;

/// Opens the connection that may hold the lock. It is never taken from a pool: a pool's lifetime would end
/// the leadership, and a pooler would give the lock to two.
///
/// # Errors
/// When the server can't be reached.
pub async fn open(options: &PgConnectOptions) -> Result<PgConnection> {
    let mut connection = connect::connect(&options.clone().application_name("divvy leader")).await?;
    // Settings by statement, not at start-up, where poolers refuse them. tcp_user_timeout frees the lock of a
    // host that vanished; a unix socket ignores it.
    sqlx::query(
        "select set_config('statement_timeout', $1, false), set_config('tcp_user_timeout', $2, false)",
    )
    .bind(format!("{}ms", SILENCE_MAX.as_millis()))
    .bind(format!("{}ms", SILENCE_MAX.as_millis() - 1_000))
    .execute(&mut connection)
    .await?;
    Ok(connection)
}

/// Takes the lock, if nobody holds it. From then on the session must not be silent for longer than [`SILENCE_MAX`].
///
/// # Errors
/// When the connection is lost.
pub async fn try_lock(connection: &mut PgConnection) -> Result<bool> {
    let taken = sqlx::query_scalar(
        "select case when pg_try_advisory_lock($1) then set_config('idle_session_timeout', $2, false) is not null else false end",
    );
    Ok(taken.bind(KEY).bind(format!("{}ms", SILENCE_MAX.as_millis())).fetch_one(connection).await?)
}

/// Tells the server that this session lives, and learns whether it does; and for how many seconds each duty may rest. None
/// does while the server can't say, as when somebody has a table locked.
///
/// # Errors
/// When the connection is lost, and the lock with it.
pub async fn look(connection: &mut PgConnection) -> Result<Vec<(String, f64)>> {
    match duty::rests(&mut *connection).await {
        Ok(rests) => Ok(rests),
        Err(error) => {
            tracing::debug!(%error, "how long the duties may rest is not known: {error}");
            sqlx::query("select 1").execute(connection).await?;
            Ok(Vec::new())
        }
    }
}

/// Gives the lock back by ending its session.
pub async fn resign(connection: PgConnection) {
    // A connection that can't be closed in order is dropped, which ends the session as well.
    connection.close().await.ok();
}

/// `divvy.lead`: opens a new term for the holder of the lock.
///
/// # Errors
/// When the schema is missing or older, or the role lacks the right.
pub async fn lead(connection: &mut PgConnection, leader: Uuid, name: &str) -> Result<i64> {
    Ok(sqlx::query_scalar("select divvy.lead($1, $2)").bind(leader).bind(name).fetch_one(connection).await?)
}

/// The small pool of the duties, opened as needed. No statement may outlast `limit`.
pub fn duty_pool(options: &PgConnectOptions, limit: Duration) -> PgPool {
    let limit = format!("{}ms", limit.as_millis());
    PgPoolOptions::new()
        .max_connections(DUTY_CONNECTIONS)
        .idle_timeout(DUTY_IDLE)
        .after_connect(move |connection, _| {
            let limit = limit.clone();
            Box::pin(async move {
                let set = sqlx::query("select set_config('statement_timeout', $1, false)").bind(limit);
                set.execute(connection).await.map(|_| ())
            })
        })
        .connect_lazy_with(options.clone().application_name("divvy duties"))
}

/// True when a transaction pooler stands between: then no lock, LISTEN or setting of a session can be
/// relied upon. Two idle sessions of one's own that are the same server process prove it.
///
/// # Errors
/// When the server can't be reached.
pub async fn is_pooled(options: &PgConnectOptions) -> Result<bool> {
    let options = options.clone().application_name("divvy probe");
    let mut first = connect::connect(&options).await?;
    let mut second = connect::connect(&options).await?;
    let own = backend(&mut first).await?;
    let mut pooled = false;
    for _ in 0..PROBE_ROUNDS {
        let other = backend(&mut second).await?;
        pooled |= other == own || backend(&mut first).await? != own;
    }
    resign(first).await;
    resign(second).await;
    Ok(pooled)
}

async fn backend(connection: &mut PgConnection) -> Result<i32> {
    // The simple protocol: a pooler that knows no prepared statements fails with them before it can be told.
    let row = sqlx::raw_sql("select pg_backend_pid()").fetch_one(connection).await?;
    let pid: String = sqlx::Row::try_get_unchecked(&row, 0)?;
    pid.parse().map_err(|_| Error::new(ErrorKind::Database, format!("pg_backend_pid() answered {pid:?}")))
}
