//! What a worker does with the splits it claims.

mod answers;
mod fence;
mod idle;
mod in_flight;
mod load;
mod outage;
mod stop;

use crate::support::act::act;
use crate::support::db::TestDb;
use crate::support::race::until;
use crate::support::running::{Running, WITHIN};
use divvy::client::{Client, NewTask, TaskResult, TaskStatus};
use divvy::handler::{Context, Handler, HandlerError, Index, Inputs, Outcome};
use divvy::id::TaskId;
use divvy::worker::Worker;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn client(db: &TestDb) -> Client {
    Client::new(db.pool().clone())
}

/// Starts a worker with four slots for this handler.
fn start(db: &TestDb, handler: impl Handler) -> Running {
    Running::start(Worker::builder(db.pool().clone()).handler(handler).slots(4).build().unwrap())
}

async fn enqueue(db: &TestDb, task: NewTask) -> TaskId {
    client(db).enqueue(task).await.unwrap().task_id
}

async fn end_of(db: &TestDb, task: TaskId) -> TaskResult {
    client(db).wait(task, WITHIN).await.unwrap()
}

/// The error of the task's first attempt, once it has failed.
async fn first_error(db: &TestDb, task: TaskId) -> Value {
    let mut error = None;
    until("the attempt has failed", async || {
        error = sqlx::query_scalar::<_, Value>(
            "select error from divvy.attempt where task_id = $1 and error is not null order by token limit 1",
        )
        .bind(task)
        .fetch_optional(db.pool())
        .await
        .unwrap();
        error.is_some()
    })
    .await;
    error.unwrap()
}

async fn scalar<T>(pool: &PgPool, sql: &'static str, task: TaskId) -> T
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    sqlx::query_scalar(sql).bind(task).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_task_runs_and_keeps_what_its_handler_returned() {
    let db = TestDb::new().await;
    let running = start(
        &db,
        act(|context, _| {
            let seen = json!({ "attempt": context.attempt(), "split_no": context.split_no(), "epoch": context.epoch() });
            Box::pin(async move { Ok(Outcome::Complete(seen)) })
        }),
    );
    let task = enqueue(&db, NewTask::new("act", json!({}))).await;
    let end = end_of(&db, task).await;
    assert_eq!(end.status, TaskStatus::Succeeded);
    assert_eq!(end.result, Some(json!({ "attempt": 1, "split_no": 1, "epoch": 1 })));
    assert_eq!(running.stop().await.succeeded, 1);
}

/// Counts letters: planned into words, executed one by one, reduced to a sum.
struct Letters;

impl Handler for Letters {
    const TASK_TYPE: &'static str = "letters";
    const PLAN: bool = true;
    const REDUCE: bool = true;
    type Payload = String;
    type Share = String;
    type Output = usize;

    async fn split(&self, context: &mut Context<'_>, text: &String) -> Result<(), HandlerError> {
        context.add_splits(text.split(' ')).await?;
        Ok(())
    }

    async fn execute(
        &self,
        _: &mut Context<'_>,
        _: &String,
        word: String,
    ) -> Result<Outcome<usize>, HandlerError> {
        Ok(Outcome::Complete(word.len()))
    }

    async fn reduce(
        &self,
        context: &mut Context<'_>,
        _: &String,
        mut inputs: Inputs<usize>,
    ) -> Result<Outcome<Value>, HandlerError> {
        let mut letters = 0;
        while let Some(input) = inputs.next(context).await? {
            letters += input.output.unwrap_or(0);
        }
        Ok(Outcome::Complete(json!({ "letters": letters, "words": inputs.succeeded() })))
    }
}

#[tokio::test]
async fn a_planned_task_is_split_executed_and_reduced() {
    let db = TestDb::new().await;
    let running = start(&db, Letters);
    let task = enqueue(&db, NewTask::new("letters", "to be or not to be")).await;
    let end = end_of(&db, task).await;
    assert_eq!(end.result, Some(json!({ "letters": 13, "words": 6 })), "{:?}", end.error);
    assert_eq!(running.stop().await.succeeded, 8, "one plan, six words, one reduce");
}

/// Adds up the indices of its splits.
struct Sum;

impl Handler for Sum {
    const TASK_TYPE: &'static str = "sum";
    const REDUCE: bool = true;
    type Payload = Value;
    type Share = Index;
    type Output = u64;

    async fn execute(
        &self,
        _: &mut Context<'_>,
        _: &Value,
        share: Index,
    ) -> Result<Outcome<u64>, HandlerError> {
        Ok(Outcome::Complete(share.index))
    }

    async fn reduce(
        &self,
        context: &mut Context<'_>,
        _: &Value,
        mut inputs: Inputs<u64>,
    ) -> Result<Outcome<Value>, HandlerError> {
        let mut sum = 0;
        while let Some(input) = inputs.next(context).await? {
            sum += input.output.unwrap_or(0);
        }
        Ok(Outcome::Complete(json!(sum)))
    }
}

#[tokio::test]
async fn a_share_that_a_rule_says_is_what_the_database_shows() {
    let db = TestDb::new().await;
    let running = start(&db, act(|_, share| Box::pin(async move { Ok(Outcome::Complete(share)) })));
    let far = i64::MAX - 5;
    let tasks = [
        NewTask::new("act", json!({})).split_count(50),
        NewTask::new("act", json!({})).split_range(-17..300, 7),
        NewTask::new("act", json!({})).split_range(far - 100..far, 3),
    ];
    for task in tasks {
        let task = enqueue(&db, task).await;
        assert_eq!(end_of(&db, task).await.status, TaskStatus::Succeeded);
        let odd = "select count(*) from divvy.split where task_id = $1 and result is distinct from payload";
        assert_eq!(scalar::<i64>(db.pool(), odd, task).await, 0);
        assert!(
            scalar::<i64>(db.pool(), "select count(*) from divvy.ended where share_of = $1", task).await > 0
        );
    }
    running.stop().await;
}

#[tokio::test]
async fn many_splits_over_two_workers_are_each_counted_once() {
    let db = TestDb::new().await;
    let worker = || Worker::builder(db.pool().clone()).handler(Sum).slots(64).build().unwrap();
    let (one, two) = (Running::start(worker()), Running::start(worker()));
    let task = enqueue(&db, NewTask::new("sum", json!({})).split_count(5_000)).await;
    assert_eq!(end_of(&db, task).await.result, Some(json!(4_999 * 5_000 / 2)));
    let (one, two) = (one.stop().await, two.stop().await);
    assert_eq!(one.succeeded + two.succeeded, 5_001, "{one} / {two}");
}

#[tokio::test]
async fn a_full_type_does_not_delay_another() {
    let db = TestDb::new().await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let held = gate.clone();
    let slow = act(move |_, _| {
        let gate = held.clone();
        Box::pin(async move {
            let _open = gate.acquire().await?;
            Ok(Outcome::Complete(Value::Null))
        })
    });
    let worker =
        Worker::builder(db.pool().clone()).handler(slow).slots(1).handler(Letters).slots(1).build().unwrap();
    let running = Running::start(worker);
    let mut blocked = Vec::new();
    for _ in 0..50 {
        blocked.push(enqueue(&db, NewTask::new("act", json!({}))).await);
    }
    let quick = enqueue(&db, NewTask::new("letters", "quick")).await;
    assert_eq!(end_of(&db, quick).await.status, TaskStatus::Succeeded);
    gate.add_permits(1);
    for task in blocked {
        assert_eq!(end_of(&db, task).await.status, TaskStatus::Succeeded);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_poll_only_worker_finds_work_without_being_told() {
    let db = TestDb::new().await;
    let worker = Worker::builder(db.pool().clone())
        .handler(Letters)
        .poll_only()
        .poll(Duration::from_millis(20))
        .build()
        .unwrap();
    let running = Running::start(worker);
    let task = enqueue(&db, NewTask::new("letters", "a b")).await;
    assert_eq!(end_of(&db, task).await.status, TaskStatus::Succeeded);
    running.stop().await;
}

#[tokio::test]
async fn splits_run_side_by_side_up_to_the_slots_and_no_further() {
    let db = TestDb::new().await;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (n, m) = (now.clone(), most.clone());
    let running = start(
        &db,
        act(move |_, _| {
            let (now, most) = (n.clone(), m.clone());
            Box::pin(async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(Outcome::Complete(Value::Null))
            })
        }),
    );
    let task = enqueue(&db, NewTask::new("act", json!({})).split_count(400)).await;
    assert_eq!(end_of(&db, task).await.status, TaskStatus::Succeeded);
    let most = most.load(Ordering::SeqCst);
    assert!((1..=4).contains(&most), "{most} at once in four slots");
    running.stop().await;
}

#[tokio::test]
async fn a_worker_with_no_free_slot_still_lets_time_go_on() {
    let db = TestDb::new().await;
    let started = Arc::new(tokio::sync::Semaphore::new(0));
    let tell = started.clone();
    let busy = act(move |_, _| {
        tell.add_permits(1);
        Box::pin(std::future::pending())
    });
    let worker = Worker::builder(db.pool().clone()).handler(busy).grace(Duration::ZERO).build().unwrap();
    let running = Running::start(worker);
    enqueue(&db, NewTask::new("act", json!({}))).await;
    started.acquire().await.unwrap().forget();
    client(&db).put_task_type("later", &json!({})).await.unwrap();
    let soon = divvy::store::clock::now(db.pool()).await.unwrap() + Duration::from_millis(100);
    let later = enqueue(&db, NewTask::new("later", json!({})).run_at(soon)).await;
    until("what was due has been started", async || {
        client(&db).result(later).await.unwrap().status == TaskStatus::Running
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_dropped_worker_leaves_no_handler_running() {
    let db = TestDb::new().await;
    let (started, alive) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(()));
    let (tell, life) = (started.clone(), Arc::downgrade(&alive));
    let keep = std::sync::Mutex::new(Some(alive));
    let handler = act(move |_, _| {
        let mine = keep.lock().unwrap().take();
        tell.add_permits(1);
        Box::pin(async move {
            let _mine = mine;
            std::future::pending().await
        })
    });
    let worker = Worker::builder(db.pool().clone()).handler(handler).build().unwrap();
    let run = tokio::spawn(async move { worker.run(tokio_util::sync::CancellationToken::new()).await });
    enqueue(&db, NewTask::new("act", json!({}))).await;
    started.acquire().await.unwrap().forget();
    run.abort();
    until("the handler's future is gone", async || life.upgrade().is_none()).await;
}
