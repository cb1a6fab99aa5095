//! One migration at a time per database.

use super::failure;
use crate::store::connect::Facts;
use crate::{Error, ErrorKind, Result};
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::Instant;

/// The advisory lock's key: the letters `divvymig`.
const KEY: i64 = i64::from_be_bytes(*b"divvymig");
/// How long to wait for another process's migration.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// The first pause between two looks; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause between two looks.
const PAUSE_MAX: Duration = Duration::from_millis(320);

/// Takes the lock for this session. Polled, because a session that waits inside `pg_advisory_lock` holds a
/// snapshot, and `create index concurrently` of the lock's holder would wait for that snapshot: a deadlock.
pub(super) async fn take(connection: &mut PgConnection, facts: &Facts) -> Result<()> {
    let started = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        let mine: bool = sqlx::query_scalar("select pg_try_advisory_lock($1)")
            .bind(KEY)
            .fetch_one(&mut *connection)
            .await
            .map_err(|cause| failure("the advisory lock", cause, facts))?;
        if mine {
            return Ok(());
        }
        if started.elapsed() >= WAIT_MAX {
            return Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "another process has been migrating database {} for {} s (it holds advisory lock {KEY})",
                    facts.database,
                    WAIT_MAX.as_secs()
                ),
            ));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
