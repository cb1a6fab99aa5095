//! Races without sleeping: wait until Postgres itself says that the other side has come to the point.

use sqlx::{PgConnection, PgPool};
use std::time::Duration;
use tokio::time::Instant;

/// How long anything that must happen may take; generous, for loaded machines. Only a failing test waits so long.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// The process of this session on the server.
pub async fn backend_pid(connection: &mut PgConnection) -> i32 {
    sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(connection)
        .await
        .expect("asking for the backend's pid")
}

/// Waits until the session `pid` waits for a lock.
pub async fn until_waiting_for_lock(pool: &PgPool, pid: i32) {
    until(&format!("session {pid} waits for a lock"), async || {
        sqlx::query_scalar(
            "select exists (select from pg_stat_activity where pid = $1 and wait_event_type = 'Lock')",
        )
        .bind(pid)
        .fetch_one(pool)
        .await
        .expect("looking at pg_stat_activity")
    })
    .await;
}

/// Waits until `happened` says so; panics with `what` when it doesn't in time.
pub async fn until(what: &str, mut happened: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !happened().await {
        assert!(started.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain until {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test]
async fn a_session_that_waits_for_a_lock_is_seen() {
    let db = super::db::TestDb::new().await;
    let (mut first, mut second) = (db.connect().await, db.connect().await);
    sqlx::query("select pg_advisory_lock(7)").execute(&mut first).await.unwrap();
    let pid = backend_pid(&mut second).await;
    let waiting =
        tokio::spawn(async move { sqlx::query("select pg_advisory_lock(7)").execute(&mut second).await });
    until_waiting_for_lock(db.pool(), pid).await;
    assert!(!waiting.is_finished());
    sqlx::query("select pg_advisory_unlock(7)").execute(&mut first).await.unwrap();
    waiting.await.unwrap().unwrap();
}
