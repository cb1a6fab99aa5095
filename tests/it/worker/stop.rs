//! How a worker stops: nothing is lost, nothing is charged that didn't fail.

use super::{client, end_of, enqueue, scalar, start};
use crate::support::act::act;
use crate::support::db::TestDb;
use crate::support::race::until;
use crate::support::running::Running;
use divvy::client::{NewTask, TaskStatus};
use divvy::handler::Outcome;
use divvy::store::state::Command;
use divvy::store::worker::command;
use divvy::worker::Worker;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// A handler that says when it starts and goes on when it may.
struct Gate {
    started: Arc<Semaphore>,
    go_on: Arc<Semaphore>,
}

impl Gate {
    fn new() -> Self {
        Self { started: Arc::new(Semaphore::new(0)), go_on: Arc::new(Semaphore::new(0)) }
    }

    fn handler(&self) -> impl divvy::handler::Handler + use<> {
        let (started, go_on) = (self.started.clone(), self.go_on.clone());
        act(move |_, _| {
            let (started, go_on) = (started.clone(), go_on.clone());
            Box::pin(async move {
                started.add_permits(1);
                go_on.acquire().await?.forget();
                Ok(Outcome::Complete(Value::Null))
            })
        })
    }

    async fn has_started(&self, splits: u32) {
        self.started.acquire_many(splits).await.unwrap().forget();
    }
}

#[tokio::test]
async fn a_stopping_worker_lets_started_splits_finish_and_claims_no_more() {
    let db = TestDb::new().await;
    let gate = Gate::new();
    let running = start(&db, gate.handler());
    let task = enqueue(&db, NewTask::new("act", json!({})).split_count(10)).await;
    gate.has_started(4).await;
    running.ask_to_stop();
    gate.go_on.add_permits(100);
    let summary = running.stop().await;
    assert_eq!((summary.succeeded, summary.total()), (4, 4), "{summary}");
    let left: i64 =
        scalar(db.pool(), "select count(*) from divvy.share where share_of = $1 and state = 'ready'", task)
            .await;
    assert_eq!(left, 6);
}

#[tokio::test]
async fn after_the_grace_a_started_split_is_given_back_and_not_charged() {
    let db = TestDb::new().await;
    let gate = Gate::new();
    let worker = Worker::builder(db.pool().clone())
        .handler(gate.handler())
        .grace(Duration::from_millis(50))
        .build()
        .unwrap();
    let running = Running::start(worker);
    let task = enqueue(&db, NewTask::new("act", json!({}))).await;
    gate.has_started(1).await;
    let summary = running.stop().await;
    assert_eq!((summary.released, summary.total()), (1, 1), "{summary}");
    let (state, attempt): (String, i32) =
        sqlx::query_as("select state::text, attempt from divvy.task where id = $1")
            .bind(task)
            .fetch_one(db.pool())
            .await
            .unwrap();
    assert_eq!((state.as_str(), attempt), ("ready", 0));
}

#[tokio::test]
async fn splits_fetched_ahead_are_given_back_at_once() {
    let db = TestDb::new().await;
    let gate = Gate::new();
    let running = start(&db, gate.handler());
    // Quick splits first, so that the worker begins to fetch ahead.
    gate.go_on.add_permits(200);
    let quick = enqueue(&db, NewTask::new("act", json!({})).split_count(200)).await;
    assert_eq!(end_of(&db, quick).await.status, TaskStatus::Succeeded);
    gate.has_started(200).await;
    let slow = enqueue(&db, NewTask::new("act", json!({})).split_count(20)).await;
    gate.has_started(4).await;
    until("the worker holds more than it runs", async || {
        scalar::<i64>(
            db.pool(),
            "select count(*) from divvy.split where task_id = $1 and status = 'running'",
            slow,
        )
        .await
            > 4
    })
    .await;
    running.ask_to_stop();
    until("what was not started is ready again", async || {
        scalar::<i64>(
            db.pool(),
            "select count(*) from divvy.split where task_id = $1 and status = 'running'",
            slow,
        )
        .await
            == 4
    })
    .await;
    assert!(!running.has_ended());
    gate.go_on.add_permits(4);
    let summary = running.stop().await;
    assert_eq!(summary.succeeded, 204, "{summary}");
    assert!(summary.released > 0, "{summary}");
}

#[tokio::test]
async fn a_handler_can_hear_the_stop_and_continue_later() {
    let db = TestDb::new().await;
    let started = Arc::new(Semaphore::new(0));
    let tell = started.clone();
    let handler = act(move |context, _| {
        let (tell, stopping) = (tell.clone(), context.stopping());
        Box::pin(async move {
            tell.add_permits(1);
            stopping.cancelled().await;
            Ok(Outcome::Continue { state: json!("half"), after: Duration::ZERO })
        })
    });
    let running = start(&db, handler);
    let task = enqueue(&db, NewTask::new("act", json!({}))).await;
    started.acquire().await.unwrap().forget();
    assert_eq!(running.stop().await.continued, 1);
    let checkpoint: Value = scalar(db.pool(), "select checkpoint from divvy.task where id = $1", task).await;
    assert_eq!(checkpoint, json!("half"));
}

#[tokio::test]
async fn an_operator_quiets_and_terminates_a_worker() {
    let db = TestDb::new().await;
    let gate = Gate::new();
    gate.go_on.add_permits(100);
    client(&db).put_task_type("act", &json!({ "lease": "1 s" })).await.unwrap();
    let worker = Worker::builder(db.pool().clone()).handler(gate.handler()).build().unwrap();
    let id = worker.id();
    let running = Running::start(worker);
    let first = enqueue(&db, NewTask::new("act", json!({}))).await;
    assert_eq!(end_of(&db, first).await.status, TaskStatus::Succeeded);
    command(db.pool(), id, Command::Quiet).await.unwrap();
    let second = enqueue(&db, NewTask::new("act", json!({}))).await;
    command(db.pool(), id, Command::Run).await.unwrap();
    assert_eq!(end_of(&db, second).await.status, TaskStatus::Succeeded);
    command(db.pool(), id, Command::Terminate).await.unwrap();
    running.ended().await;
}

#[tokio::test]
async fn all_faults_of_a_worker_are_told_at_once() {
    let db = TestDb::new().await;
    let error = Worker::builder(db.pool().clone())
        .handler_as("No Such Name", Gate::new().handler())
        .slots(0)
        .handler(Gate::new().handler())
        .handler(Gate::new().handler())
        .lease(Duration::from_millis(1))
        .poll(Duration::ZERO)
        .build()
        .unwrap_err()
        .to_string();
    for fault in [
        "\"No Such Name\" is not",
        "has 0 slots",
        "\"act\" has two handlers",
        "lease 1ms",
        "poll interval 0ns",
    ] {
        assert!(error.contains(fault), "{fault} is missing in: {error}");
    }
}
