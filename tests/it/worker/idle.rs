//! What a worker asks while there is nothing to do.

use super::start;
use crate::support::act::act;
use crate::support::db::TestDb;
use crate::support::race::until;
use divvy::handler::Outcome;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor};
use std::time::{Duration, Instant};

/// The calls that have come, by function.
async fn calls(db: &TestDb) -> Vec<(String, i64)> {
    sqlx::query_as(
        "select funcname::text, calls from pg_stat_user_functions where schemaname = 'divvy'
            and funcname in ('protocol', 'register_worker', 'claim', 'exchange', 'complete_many', 'next_wait', 'heartbeat',
                'fire_due', 'urgent_duties')
          order by 1",
    )
    .fetch_all(db.pool())
    .await
    .unwrap()
}

#[tokio::test]
async fn an_idle_worker_asks_less_than_once_a_second() {
    const WATCHED: Duration = Duration::from_secs(5);
    let db = TestDb::new().await;
    // All a worker says are calls of functions, which the server counts for us.
    let name = db.name();
    db.connect()
        .await
        .execute(AssertSqlSafe(format!("alter database {name} set track_functions = 'pl'")))
        .await
        .unwrap();
    let running = start(&db, act(|_, _| Box::pin(async { Ok(Outcome::Complete(Value::Null)) })));
    let began = Instant::now();
    until("it has been idle for a while", async || began.elapsed() > WATCHED).await;
    running.stop().await;
    // Its sessions report when they end.
    let mut seen = Vec::new();
    until("its sessions have reported", async || {
        seen = calls(&db).await;
        seen.iter().any(|(name, _)| name == "exchange")
    })
    .await;
    // Each tick begins with fire_due. Where the machine is slow, more calls of a worker go on with it.
    let (ticks, calls): (Vec<_>, Vec<_>) =
        seen.iter().partition(|(name, _)| ["fire_due", "urgent_duties"].contains(&name.as_str()));
    let cut: i64 =
        ticks.iter().map(|(name, pieces)| if name == "fire_due" { -pieces } else { *pieces }).sum();
    let all = calls.iter().map(|(_, calls)| calls).sum::<i64>() - cut;
    // Beside what it says at its start: who it is, and its first looks.
    let at_start = 6;
    assert!(all - at_start < WATCHED.as_secs() as i64, "{all} calls in {WATCHED:?}: {seen:?}");
}
