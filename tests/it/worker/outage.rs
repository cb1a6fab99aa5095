//! The database goes away and comes back; connections are left in a mess.

use super::{client, end_of, enqueue, start};
use crate::support::act::act;
use crate::support::db::{TestDb, fast_dir, settings};
use crate::support::running::{Running, WITHIN};
use divvy::ErrorKind;
use divvy::client::{Client, NewTask, TaskStatus};
use divvy::embedded::{self, Embedded, Settings};
use divvy::handler::Outcome;
use divvy::id::TaskId;
use divvy::store::{lock, migrate, pool};
use divvy::worker::Worker;
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgPool};
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_worker_whose_connections_are_all_killed_goes_on() {
    let db = TestDb::new().await;
    // A claim whose answer was lost with its connection comes back when its lease ends.
    client(&db).put_task_type("act", &json!({ "lease": "1 s" })).await.unwrap();
    let running = start(&db, act(|_, _| Box::pin(async { Ok(Outcome::Complete(Value::Null)) })));
    let mut admin = db.connect().await;
    for _ in 0..3 {
        let task = enqueue(&db, NewTask::new("act", json!({})).split_count(500)).await;
        let killed: Vec<bool> = sqlx::query_scalar(
            "select pg_terminate_backend(pid) from pg_stat_activity
              where datname = current_database() and pid <> pg_backend_pid()",
        )
        .fetch_all(&mut admin)
        .await
        .unwrap();
        assert!(!killed.is_empty());
        assert_eq!(end_of(&db, task).await.status, TaskStatus::Succeeded);
    }
    running.stop().await;
    let held: i64 = sqlx::query_scalar("select count(*) from divvy.unit where state = 'running'")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(held, 0);
}

/// A task whose insert is prepared, by the name of `late`.
async fn prepared(pool: &PgPool) -> TaskId {
    let mut session = pool.acquire().await.unwrap();
    sqlx::raw_sql("set divvy.notify = off; begin").execute(&mut *session).await.unwrap();
    let task = sqlx::query_scalar("insert into divvy.task (task_type) values ('act') returning id")
        .fetch_one(&mut *session)
        .await
        .unwrap();
    sqlx::raw_sql("prepare transaction 'late'").execute(&mut *session).await.unwrap();
    session.close_on_drop();
    task
}

#[tokio::test]
async fn a_worker_outlives_a_stop_and_start_of_the_server() {
    let root = fast_dir().join(format!("divvy-test-restart-{}", uuid::Uuid::new_v4().simple()));
    let settings = Settings { discard: false, ..settings(root.clone()) };
    let server = Embedded::start(&settings).await.unwrap();
    server.create_database("restart").await.unwrap();
    let options = server.options().database("restart");
    migrate::migrate(&options).await.unwrap();
    let client = Client::new(pool::options().connect_lazy_with(options.clone()));
    let quick = json!({ "lease": "1 s", "backoff": { "kind": "fixed", "base": 0.1, "jitter": 0 } });
    client.put_task_type("act", &quick).await.unwrap();

    let half = Arc::new(Semaphore::new(0));
    let tell = half.clone();
    let handler = act(move |context, _| {
        let tell = tell.clone();
        Box::pin(async move {
            sqlx::query("select 1").execute(context.transaction().await?).await?;
            tell.add_permits(1);
            Ok(Outcome::Complete(Value::Null))
        })
    });
    let own = pool::options().connect_lazy_with(options);
    let running = Running::start(Worker::builder(own).handler(handler).slots(4).build().unwrap());
    let task = client.enqueue(NewTask::new("act", json!({})).split_count(2_000)).await.unwrap().task_id;
    half.acquire_many(200).await.unwrap().forget();
    let late = prepared(client.pool()).await;
    assert!(embedded::stop(&root, true).await.unwrap());
    let _again = Embedded::start(&settings).await.unwrap();
    assert_eq!(client.wait(task, WITHIN).await.unwrap().status, TaskStatus::Succeeded);
    // What a producer had prepared before is worked off when it commits now.
    sqlx::query("commit prepared 'late'").execute(client.pool()).await.unwrap();
    assert_eq!(client.wait(late, WITHIN).await.unwrap().status, TaskStatus::Succeeded);
    running.stop().await;
    drop(server);
    embedded::stop(&root, true).await.unwrap();
    std::fs::remove_dir_all(&root).unwrap();
}

#[tokio::test]
async fn a_worker_that_was_forgotten_registers_again() {
    let db = TestDb::new().await;
    let running = start(&db, act(|_, _| Box::pin(async { Ok(Outcome::Complete(Value::Null)) })));
    let first = enqueue(&db, NewTask::new("act", json!({}))).await;
    end_of(&db, first).await;
    sqlx::query("delete from divvy.worker").execute(db.pool()).await.unwrap();
    let second = enqueue(&db, NewTask::new("act", json!({}))).await;
    assert_eq!(end_of(&db, second).await.status, TaskStatus::Succeeded);
    running.stop().await;
}

#[tokio::test]
async fn a_worker_started_before_its_database_waits_for_it() {
    let db = TestDb::new().await;
    let nowhere = db.options().clone().socket("/nonexistent-divvy").port(1);
    let handler = act(|_, _| Box::pin(async { Ok(Outcome::Complete(Value::Null)) }));
    let worker =
        Worker::builder(pool::options().connect_lazy_with(nowhere)).handler(handler).build().unwrap();
    let running = Running::start(worker);
    tokio::task::yield_now().await;
    assert!(!running.has_ended());
    assert_eq!(running.stop().await.total(), 0);
}

#[tokio::test]
async fn a_database_without_the_schema_is_told_at_once() {
    let db = TestDb::empty().await;
    let handler = act(|_, _| Box::pin(async { Ok(Outcome::Complete(Value::Null)) }));
    let worker = Worker::builder(db.pool().clone()).handler(handler).build().unwrap();
    let error = worker.run(CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Database);
    assert!(error.to_string().contains("divvy"), "{error}");
}

#[tokio::test]
async fn a_connection_left_in_a_transaction_is_discarded() {
    let db = TestDb::new().await;
    let guarded = pool::options().max_connections(1).connect_lazy_with(db.options().clone());
    let mut connection = guarded.acquire().await.unwrap();
    let first: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *connection).await.unwrap();
    drop(connection);
    // An idle connection is kept …
    let mut connection = guarded.acquire().await.unwrap();
    let again: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *connection).await.unwrap();
    assert_eq!(again, first);
    // … one on which a begin was given up half-way is not: sqlx itself doesn't notice.
    sqlx::raw_sql("begin").execute(&mut *connection).await.unwrap();
    assert!(!connection.is_in_transaction());
    drop(connection);
    let next: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&guarded).await.unwrap();
    assert_ne!(next, first);
}

/// Polls a future this many times at most; whether it was dropped before it ended.
async fn dropped_after<F: Future>(future: F, polls: u64) -> bool {
    let mut future = std::pin::pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(true);
        }
        left -= 1;
        future.as_mut().poll(context).map(|_| false)
    })
    .await
}

/// sqlx's trap: a future dropped inside `begin` leaves a transaction open on a pooled connection, and what the next
/// borrower writes is in it. So the `begin` is given up after each of its steps.
#[tokio::test]
async fn a_begin_that_is_given_up_leaves_no_transaction_behind() {
    let db = TestDb::new().await;
    sqlx::raw_sql("create table written (polls int8 not null)").execute(db.pool()).await.unwrap();
    let plain = PgPoolOptions::new().max_connections(1).connect_lazy_with(db.options().clone());
    // Connected, or the first steps would be those of connecting.
    sqlx::query("select 1").execute(&plain).await.unwrap();
    let mut dropped = 0;
    for polls in 0..10 {
        dropped += u32::from(dropped_after(lock::begin(&plain, WITHIN), polls).await);
        sqlx::query("insert into written values ($1)").bind(polls as i64).execute(&plain).await.unwrap();
        let seen: bool = sqlx::query_scalar("select exists (select from written where polls = $1)")
            .bind(polls as i64)
            .fetch_one(db.pool())
            .await
            .unwrap();
        assert!(seen, "given up after {polls} polls, the connection was left in a transaction");
    }
    assert!(dropped > 0, "none was given up");
}
