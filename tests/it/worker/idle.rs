//! What a worker asks while there is nothing it can do.

use super::{NewTask, Running, Worker, enqueue, start};
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

/// A database that counts them.
async fn counting() -> TestDb {
    let db = TestDb::new().await;
    // All a worker says are calls of functions, which the server counts for us.
    let name = db.name();
    db.connect()
        .await
        .execute(AssertSqlSafe(format!("alter database {name} set track_functions = 'pl'")))
        .await
        .unwrap();
    db
}

/// How often the worker that has stopped has asked. What it says at its start is left out: who it is, and its first looks.
async fn asked(db: &TestDb) -> (i64, Vec<(String, i64)>) {
    const AT_START: i64 = 6;
    // Its sessions report when they end.
    let mut seen = Vec::new();
    until("its sessions have reported", async || {
        seen = calls(db).await;
        seen.iter().any(|(name, _)| name == "exchange")
    })
    .await;
    // Each tick begins with fire_due. Where the machine is slow, more calls of a worker go on with it.
    let (ticks, calls): (Vec<_>, Vec<_>) =
        seen.iter().partition(|(name, _)| ["fire_due", "urgent_duties"].contains(&name.as_str()));
    let cut: i64 =
        ticks.iter().map(|(name, pieces)| if name == "fire_due" { -pieces } else { *pieces }).sum();
    (calls.iter().map(|(_, calls)| calls).sum::<i64>() - cut - AT_START, seen)
}

async fn pass(time: Duration) {
    let began = Instant::now();
    until("time has passed", async || began.elapsed() > time).await;
}

#[tokio::test]
async fn an_idle_worker_asks_less_than_once_a_second() {
    const WATCHED: Duration = Duration::from_secs(5);
    let db = counting().await;
    let running = start(&db, act(|_, _| Box::pin(async { Ok(Outcome::Complete(Value::Null)) })));
    pass(WATCHED).await;
    running.stop().await;
    let (times, seen) = asked(&db).await;
    // A look each 1.8 s, of which each is a tick: a second of its own would be as many again.
    assert!(times <= WATCHED.as_secs() as i64 / 2, "{times} calls in {WATCHED:?}: {seen:?}");
}

#[tokio::test]
async fn a_lone_split_is_claimed_by_one_call_and_ended_by_another() {
    const LONE: i64 = 10;
    let db = counting().await;
    let running = start(&db, act(|_, _| Box::pin(async { Ok(Outcome::Complete(Value::Null)) })));
    for ended in 1..=LONE {
        enqueue(&db, NewTask::new("act", Value::Null)).await;
        until("it has ended", async || {
            let all = "select count(*) from divvy.task where finished_at is not null";
            sqlx::query_scalar::<_, i64>(all).fetch_one(db.pool()).await.unwrap() == ended
        })
        .await;
    }
    running.stop().await;
    let (_, seen) = asked(&db).await;
    let exchanges: i64 = seen.iter().filter(|(name, _)| name == "exchange").map(|(_, calls)| calls).sum();
    // Beside the looks at its start. A look more for each would be three of each.
    assert!(exchanges <= 2 * LONE + LONE / 2, "{exchanges} exchanges for {LONE} lone splits: {seen:?}");
}

#[tokio::test]
async fn what_is_ready_and_locked_is_looked_for_ten_times_a_second() {
    const WATCHED: Duration = Duration::from_secs(3);
    let db = counting().await;
    sqlx::query("insert into divvy.task (task_type) values ('act')").execute(db.pool()).await.unwrap();
    let mut locked = db.connect().await;
    locked.execute("begin; select from divvy.task for update").await.unwrap();
    let running = start(&db, act(|_, _| Box::pin(async { Ok(Outcome::Complete(Value::Null)) })));
    pass(WATCHED).await;
    locked.execute("rollback").await.unwrap();
    until("it has ended", async || {
        let ended = "select exists (select from divvy.task where finished_at is not null)";
        sqlx::query_scalar(ended).fetch_one(db.pool()).await.unwrap()
    })
    .await;
    running.stop().await;
    let (times, seen) = asked(&db).await;
    // Each look asks what is ready, and tries to claim; the first few follow each other closer.
    assert!(times < 10 + 2 * 10 * (1 + WATCHED.as_secs() as i64), "{times} calls in {WATCHED:?}: {seen:?}");
}

#[tokio::test]
async fn what_waits_of_a_type_whose_slots_are_taken_keeps_no_worker_looking() {
    const WATCHED: Duration = Duration::from_secs(3);
    let db = counting().await;
    sqlx::query("insert into divvy.task (task_type) select 'slow' from generate_series(1, 20)")
        .execute(db.pool())
        .await
        .unwrap();
    let slow = act(|context, _| {
        Box::pin(async move {
            context.cancellation().cancelled().await;
            Ok(Outcome::Complete(Value::Null))
        })
    });
    let other = act(|_, _| Box::pin(async { Ok(Outcome::Complete(Value::Null)) }));
    let worker = Worker::builder(db.pool().clone()).handler_as("slow", slow).handler_as("other", other);
    let running = Running::start(worker.slots(1).grace(Duration::ZERO).build().unwrap());
    pass(WATCHED).await;
    running.stop().await;
    let (times, seen) = asked(&db).await;
    // It ticks, and looks for work of the other type.
    assert!(times < 2 * WATCHED.as_secs() as i64, "{times} calls in {WATCHED:?}: {seen:?}");
}
