//! What a handler writes in its transaction counts exactly once.

use super::{client, end_of, enqueue, first_error, start};
use crate::support::act::act;
use crate::support::db::TestDb;
use crate::support::race::until;
use divvy::client::{NewTask, TaskStatus};
use divvy::handler::{HandlerError, Outcome};
use divvy::store::complete;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// A table of effects; the worker's role owns it.
async fn effects(db: &TestDb) {
    sqlx::raw_sql("create table effect (note text not null)").execute(db.pool()).await.unwrap();
}

async fn notes(db: &TestDb) -> Vec<String> {
    sqlx::query_scalar("select note from effect order by note").fetch_all(db.pool()).await.unwrap()
}

#[tokio::test]
async fn a_handlers_writes_commit_with_its_completion() {
    let db = TestDb::new().await;
    effects(&db).await;
    let running = start(
        &db,
        act(|context, share| {
            Box::pin(async move {
                let note = format!("split {}", share["index"]);
                sqlx::query("insert into effect values ($1)")
                    .bind(note)
                    .execute(context.transaction().await?)
                    .await?;
                Ok(Outcome::Complete(json!("written")))
            })
        }),
    );
    let task = enqueue(&db, NewTask::new("act", json!({})).split_count(3)).await;
    assert_eq!(end_of(&db, task).await.status, TaskStatus::Succeeded);
    assert_eq!(notes(&db).await, ["split 0", "split 1", "split 2"]);
    running.stop().await;
}

#[tokio::test]
async fn whatever_does_not_complete_rolls_the_handlers_writes_back() {
    let db = TestDb::new().await;
    effects(&db).await;
    let backoff = json!({ "backoff": { "kind": "fixed", "base": 0.01, "jitter": 0 } });
    client(&db).put_task_type("act", &backoff).await.unwrap();
    let running = start(
        &db,
        act(|context, _| {
            Box::pin(async move {
                let (attempt, state) = (context.attempt(), context.checkpoint::<Value>()?);
                let note = format!("attempt {attempt} {state:?}");
                sqlx::query("insert into effect values ($1)")
                    .bind(note)
                    .execute(context.transaction().await?)
                    .await?;
                match (attempt, state.is_some()) {
                    (1, _) => Err(HandlerError::new("first")),
                    (2, _) => panic!("second"),
                    (3, false) => Ok(Outcome::Continue { state: json!(1), after: Duration::ZERO }),
                    (3, true) => std::future::pending().await,
                    _ => Ok(Outcome::Stop("fifth".into())),
                }
            })
        }),
    );
    let task = enqueue(&db, NewTask::new("act", json!({})).timeout(Duration::from_millis(300))).await;
    assert_eq!(end_of(&db, task).await.status, TaskStatus::Failed);
    assert_eq!(notes(&db).await, Vec::<String>::new());
    let summary = running.stop().await;
    assert_eq!((summary.failed, summary.continued), (4, 1), "{summary}");
}

#[tokio::test]
async fn a_lost_lease_rolls_the_handlers_writes_back() {
    let db = TestDb::new().await;
    effects(&db).await;
    let (wrote, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (tell, wait) = (wrote.clone(), go_on.clone());
    let running = start(
        &db,
        act(move |context, _| {
            let (tell, wait) = (tell.clone(), wait.clone());
            Box::pin(async move {
                let note = format!("token {}", context.token());
                sqlx::query("insert into effect values ($1)")
                    .bind(note)
                    .execute(context.transaction().await?)
                    .await?;
                tell.add_permits(1);
                wait.acquire().await?.forget();
                Ok(Outcome::Complete(Value::Null))
            })
        }),
    );
    let task = enqueue(&db, NewTask::new("act", json!({}))).await;
    wrote.acquire().await.unwrap().forget();
    let (split, token): (divvy::id::SplitId, divvy::id::Token) =
        sqlx::query_as("select id, token from divvy.split where id = $1")
            .bind(task)
            .fetch_one(db.pool())
            .await
            .unwrap();
    // Somebody takes the split away; a second execution begins while the first still believes it holds it.
    complete::release(db.pool(), split, token).await.unwrap();
    wrote.acquire().await.unwrap().forget();
    go_on.add_permits(2);
    assert_eq!(end_of(&db, task).await.status, TaskStatus::Succeeded);
    let notes = notes(&db).await;
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_ne!(notes[0], format!("token {token}"));
    let summary = running.stop().await;
    assert_eq!((summary.succeeded, summary.lost), (1, 1), "{summary}");
}

#[tokio::test]
async fn heartbeats_keep_a_split_that_runs_longer_than_its_lease() {
    let db = TestDb::new().await;
    client(&db).put_task_type("act", &json!({ "lease": "1 s" })).await.unwrap();
    let go_on = Arc::new(Semaphore::new(0));
    let wait = go_on.clone();
    let running = start(
        &db,
        act(move |context, _| {
            let wait = wait.clone();
            let attempt = context.attempt();
            Box::pin(async move {
                wait.acquire().await?.forget();
                Ok(Outcome::Complete(json!(attempt)))
            })
        }),
    );
    let task = enqueue(&db, NewTask::new("act", json!({}))).await;
    until("the lease has been renewed past its first end", async || {
        let renewed: Option<bool> = sqlx::query_scalar(
            "select divvy.clock() > claimed_at + interval '1.5 s' and lease_until > divvy.clock() from divvy.lease",
        )
        .fetch_optional(db.pool())
        .await
        .unwrap();
        sqlx::query("select divvy.tick()").execute(db.pool()).await.unwrap();
        renewed == Some(true)
    })
    .await;
    go_on.add_permits(1);
    assert_eq!(end_of(&db, task).await.result, Some(json!(1)), "no other attempt was made");
    running.stop().await;
}

#[tokio::test]
async fn a_cancelled_task_reaches_its_running_handler() {
    let db = TestDb::new().await;
    let started = Arc::new(Semaphore::new(0));
    let tell = started.clone();
    let running = start(
        &db,
        act(move |context, _| {
            let tell = tell.clone();
            let cancelled = context.cancellation();
            Box::pin(async move {
                tell.add_permits(1);
                cancelled.cancelled().await;
                Err(HandlerError::new("told to stop"))
            })
        }),
    );
    let task = enqueue(&db, NewTask::new("act", json!({}))).await;
    started.acquire().await.unwrap().forget();
    client(&db).cancel(task, "changed my mind").await.unwrap();
    assert_eq!(end_of(&db, task).await.status, TaskStatus::Cancelled);
    running.stop().await;
}

#[tokio::test]
async fn a_transaction_that_fails_at_its_commit_is_a_failed_attempt() {
    let db = TestDb::new().await;
    effects(&db).await;
    sqlx::raw_sql("alter table effect add constraint once unique (note) deferrable initially deferred")
        .execute(db.pool())
        .await
        .unwrap();
    sqlx::raw_sql("insert into effect values ('taken')").execute(db.pool()).await.unwrap();
    let running = start(
        &db,
        act(|context, _| {
            Box::pin(async move {
                sqlx::query("insert into effect values ('taken')")
                    .execute(context.transaction().await?)
                    .await?;
                Ok(Outcome::Complete(Value::Null))
            })
        }),
    );
    let task = enqueue(&db, NewTask::new("act", json!({})).max_attempts(1)).await;
    assert_eq!(end_of(&db, task).await.status, TaskStatus::Failed);
    let error = first_error(&db, task).await;
    assert_eq!(error["class"], "23505");
    assert!(error["message"].as_str().unwrap().contains("once"), "{error}");
    running.stop().await;
}

#[tokio::test]
async fn a_handler_stuck_in_the_database_lets_its_locks_go_at_its_timeout() {
    let db = TestDb::new().await;
    effects(&db).await;
    let running = start(
        &db,
        act(|context, _| {
            Box::pin(async move {
                let connection = context.transaction().await?;
                sqlx::raw_sql("lock table effect").execute(&mut *connection).await?;
                sqlx::raw_sql("select pg_sleep(3600)").execute(connection).await?;
                Ok(Outcome::Complete(Value::Null))
            })
        }),
    );
    let task =
        enqueue(&db, NewTask::new("act", json!({})).max_attempts(1).timeout(Duration::from_millis(300)))
            .await;
    assert_eq!(end_of(&db, task).await.status, TaskStatus::Failed);
    until("the lock is free", async || {
        sqlx::raw_sql("set lock_timeout = '50ms'; insert into effect values ('free')")
            .execute(db.pool())
            .await
            .is_ok()
    })
    .await;
    running.stop().await;
}
