//! What programs do with tasks: enqueue in their own transaction, wait, intervene; and `divvy::testing`.

use crate::support::act::act;
use crate::support::db::TestDb;
use crate::support::running::{Running, WITHIN};
use divvy::ErrorKind;
use divvy::client::{self, Client, NewTask, OnDuplicate, ReduceOn, TaskStatus};
use divvy::handler::{Context, Handler, HandlerError, Inputs, Outcome, Range};
use divvy::store::listing::{self, SplitFilter, TaskFilter};
use divvy::store::overview;
use divvy::store::state::{Phase, SplitStatus};
use divvy::testing::{self, Clock};
use divvy::worker::Worker;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn a_task_enqueued_in_a_transaction_shares_its_fate() {
    let db = TestDb::new().await;
    let client = Client::new(db.pool().clone());
    let mut transaction = db.pool().begin().await.unwrap();
    let gone = NewTask::new("act", json!({})).enqueue_with(&mut *transaction).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(client.result(gone.task_id).await.unwrap_err().kind(), ErrorKind::NotFound);

    let mut transaction = db.pool().begin().await.unwrap();
    let kept = client::enqueue(&mut *transaction, NewTask::new("act", json!({}))).await.unwrap();
    assert!(client.result(kept.task_id).await.is_err(), "not visible before the commit");
    transaction.commit().await.unwrap();
    assert_eq!(
        client.result(kept.task_id).await.unwrap().status,
        TaskStatus::Scheduled,
        "nobody declared its type"
    );
}

#[tokio::test]
async fn a_held_dedupe_key_returns_its_holder_or_names_it() {
    let db = TestDb::new().await;
    let client = Client::new(db.pool().clone());
    let task = || NewTask::new("act", json!({})).dedupe_key("k");
    let first = client.enqueue(task()).await.unwrap();
    let second = client.enqueue(task()).await.unwrap();
    assert!(first.created && !second.created);
    assert_eq!(first.task_id, second.task_id);
    let error = client.enqueue(task().on_duplicate(OnDuplicate::Raise)).await.unwrap_err();
    assert!(error.is_conflict() && error.to_string().contains(&first.task_id.to_string()), "{error}");
}

#[tokio::test]
async fn every_option_arrives_in_its_column() {
    let db = TestDb::new().await;
    let client = Client::new(db.pool().clone());
    let task = NewTask::new("act", json!({ "a": 1 }))
        .priority(3)
        .group_key("g")
        .labels(["x", "y"])
        .headers(json!({ "trace": "t" }))
        .split_range(0..10, 4)
        .max_attempts(7)
        .timeout(Duration::from_millis(1_500))
        .max_failed(1)
        .max_failed_percent(12.5)
        .reduce_on(ReduceOn::Always)
        .then(json!({ "failed": { "task_type": "alarm" } }));
    let id = client.enqueue(task).await.unwrap().task_id;
    let row: Value = sqlx::query_scalar(
        "select to_jsonb(r) from (select payload, priority, group_key, labels, headers, split_range::text, split_size,
                max_attempts, extract(epoch from timeout)::float8 as timeout, max_failed, max_failed_percent, reduce_on, \"then\"
           from divvy.task where id = $1) r",
    )
    .bind(id)
    .fetch_one(db.pool())
    .await
    .unwrap();
    let expected = json!({ "payload": { "a": 1 }, "priority": 3, "group_key": "g", "labels": ["x", "y"],
        "headers": { "trace": "t" }, "split_range": "[0,10)", "split_size": 4, "max_attempts": 7, "timeout": 1.5,
        "max_failed": 1, "max_failed_percent": 12.5, "reduce_on": "always", "then": { "failed": { "task_type": "alarm" } } });
    assert_eq!(row, expected);
}

#[tokio::test]
async fn many_tasks_are_made_in_order_and_a_bad_one_is_named() {
    let db = TestDb::new().await;
    let client = Client::new(db.pool().clone());
    let made =
        client.enqueue_many((0..25_000).map(|n| NewTask::new("act", json!({ "n": n })))).await.unwrap();
    assert_eq!(made.len(), 25_000);
    assert!(made.is_sorted_by_key(|task| task.task_id) && made.iter().all(|task| task.created));
    let tasks = [NewTask::new("act", json!({})), NewTask::new("act", json!({})).priority(9)];
    let error = client.enqueue_many(tasks).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadOption);
    assert!(error.to_string().starts_with("task 2:"), "{error}");
}

#[tokio::test]
async fn waiting_ends_with_the_task_or_says_where_it_stands() {
    let db = TestDb::new().await;
    let client = Client::new(db.pool().clone());
    client.put_task_type("act", &json!({})).await.unwrap();
    let id = client.enqueue(NewTask::new("act", json!({}))).await.unwrap().task_id;
    let error = client.wait(id, Duration::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(error.to_string(), format!("task {id} has not ended within 0ns: running"));
    assert_eq!(client.cancel(id, "no need").await.unwrap(), TaskStatus::Cancelled);
    assert_eq!(client.wait(id, WITHIN).await.unwrap().status, TaskStatus::Cancelled);
}

#[tokio::test]
async fn a_redriven_task_runs_its_failed_splits_again_and_keeps_the_others() {
    let db = TestDb::new().await;
    let client = Client::new(db.pool().clone());
    let handler = act(|context, share| {
        let epoch = context.epoch();
        Box::pin(async move {
            if epoch == 1 && share["index"] == 1 {
                return Err(HandlerError::new("the file is missing").class("io"));
            }
            Ok(Outcome::Complete(json!(epoch)))
        })
    });
    let running = Running::start(Worker::builder(db.pool().clone()).handler(handler).build().unwrap());
    let id =
        client.enqueue(NewTask::new("act", json!({})).split_count(3).max_attempts(1)).await.unwrap().task_id;
    assert_eq!(client.wait(id, WITHIN).await.unwrap().status, TaskStatus::Failed);

    let failed =
        SplitFilter { task: Some(id), statuses: vec![SplitStatus::Failed], ..SplitFilter::default() };
    let rows = listing::splits(db.pool(), &failed).await.unwrap();
    assert_eq!(
        rows.iter().map(|row| (row.split_no, row.error_class.as_deref())).collect::<Vec<_>>(),
        [(2, Some("io"))]
    );
    assert_eq!(overview::dead(db.pool()).await.unwrap()[0].fingerprint.as_deref(), Some("io"));

    assert_eq!(client.redrive(id).await.unwrap(), 1);
    assert_eq!(client.wait(id, WITHIN).await.unwrap().status, TaskStatus::Succeeded);
    let results: Vec<Value> =
        sqlx::query_scalar("select result from divvy.share where share_of = $1 order by split_no")
            .bind(id)
            .fetch_all(db.pool())
            .await
            .unwrap();
    assert_eq!(results, [json!(1), json!(2), json!(1)]);
    running.stop().await;
}

#[tokio::test]
async fn lists_filter_and_turn_pages() {
    let db = TestDb::new().await;
    let client = Client::new(db.pool().clone());
    client.put_task_type("a", &json!({ "reduce": true })).await.unwrap();
    let mut ids = Vec::new();
    for n in 0..5 {
        let label = if n % 2 == 0 { "even" } else { "odd" };
        let task = NewTask::new("a", json!({ "n": n })).labels([label]).split_count(2);
        ids.push(client.enqueue(task).await.unwrap().task_id);
    }
    client.cancel(ids[4], "one less").await.unwrap();
    let filter = TaskFilter {
        task_type: Some("a".into()),
        label: Some("even".into()),
        statuses: vec![TaskStatus::Running],
        limit: Some(1),
        ..TaskFilter::default()
    };
    let first = listing::tasks(db.pool(), &filter).await.unwrap();
    let next = listing::tasks(db.pool(), &TaskFilter { before: Some(first[0].task_id), ..filter.clone() })
        .await
        .unwrap();
    let last =
        listing::tasks(db.pool(), &TaskFilter { before: Some(next[0].task_id), ..filter }).await.unwrap();
    assert_eq!((first[0].task_id, next[0].task_id, last.len()), (ids[2], ids[0], 0));

    let of_task = SplitFilter { task: Some(ids[0]), phase: Some(Phase::Execute), ..SplitFilter::default() };
    let splits = listing::splits(db.pool(), &of_task).await.unwrap();
    assert_eq!(
        splits.iter().map(|split| (split.split_no, split.status)).collect::<Vec<_>>(),
        [(1, SplitStatus::Ready), (2, SplitStatus::Ready)]
    );
    let progress = overview::progress(db.pool(), ids[0]).await.unwrap().unwrap();
    assert_eq!((progress.splits, progress.ready, progress.succeeded), (2, 2, 0));
    client.pause("a", None, "lunch").await.unwrap();
    let types = overview::types(db.pool()).await.unwrap();
    assert_eq!((types[0].paused, types[0].paused_until, types[0].ready), (true, None, 8));
    assert!(overview::workers(db.pool()).await.unwrap().is_empty());
    assert!(overview::schedules(db.pool()).await.unwrap().is_empty());
}

/// Sums keys of a range; each share is written in the transaction of its completion.
struct Keys;

impl Handler for Keys {
    const TASK_TYPE: &'static str = "keys";
    const REDUCE: bool = true;
    type Payload = Value;
    type Share = Range;
    type Output = i64;

    async fn execute(
        &self,
        context: &mut Context<'_>,
        _: &Value,
        share: Range,
    ) -> Result<Outcome<i64>, HandlerError> {
        let connection = context.transaction().await?;
        sqlx::query("insert into seen select generate_series($1, $2)")
            .bind(share.lo)
            .bind(share.hi - 1)
            .execute(connection)
            .await?;
        if share.lo == 6 {
            return Err(HandlerError::new("six is odd"));
        }
        Ok(Outcome::Complete((share.lo..share.hi).sum()))
    }

    async fn reduce(
        &self,
        context: &mut Context<'_>,
        _: &Value,
        mut inputs: Inputs<i64>,
    ) -> Result<Outcome<Value>, HandlerError> {
        let mut sum = 0;
        while let Some(input) = inputs.next(context).await? {
            sum += input.output.unwrap_or(0);
        }
        context.log("info", "added").await?;
        Ok(Outcome::Complete(json!({ "sum": sum, "failed": inputs.failed() })))
    }
}

#[tokio::test]
async fn a_task_runs_inline_and_a_rollback_leaves_nothing() {
    let db = TestDb::new().await;
    sqlx::raw_sql("create table seen (key bigint not null)").execute(db.pool()).await.unwrap();
    let mut transaction = db.pool().begin().await.unwrap();
    let task = NewTask::new("keys", json!({})).split_range(0..10, 3).max_attempts(1).max_failed(1);
    let ran = testing::run_inline(&mut transaction, Keys, task).await.unwrap();
    assert_eq!(ran.status, TaskStatus::Partial, "{ran:?}");
    assert_eq!(ran.result, Some(json!({ "sum": 1 + 2 + 3 + 4 + 5 + 9, "failed": 1 })));
    assert_eq!((ran.splits, ran.errors.as_slice()), (5, ["six is odd".to_owned()].as_slice()));
    let seen: Vec<i64> =
        sqlx::query_scalar("select key from seen order by key").fetch_all(&mut *transaction).await.unwrap();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 9], "the failed share's writes are undone");
    transaction.rollback().await.unwrap();
    let left: i64 = sqlx::query_scalar("select count(*) from divvy.task").fetch_one(db.pool()).await.unwrap();
    assert_eq!(left, 0);

    let mut plain = db.connect().await;
    let error = testing::run_inline(&mut plain, Keys, NewTask::new("keys", json!({}))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn draining_runs_what_is_ready_and_what_follows_from_it() {
    let db = TestDb::new().await;
    let client = Client::new(db.pool().clone());
    sqlx::raw_sql("create table seen (key bigint not null)").execute(db.pool()).await.unwrap();
    let worker = Worker::builder(db.pool().clone()).handler(Keys).slots(8).build().unwrap();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(
            client.enqueue(NewTask::new("keys", json!({})).split_range(10..40, 10)).await.unwrap().task_id,
        );
    }
    let summary = testing::drain(db.pool(), &worker).await.unwrap();
    assert_eq!((summary.succeeded, summary.total()), (12, 12), "{summary}");
    for id in ids {
        assert_eq!(client.result(id).await.unwrap().status, TaskStatus::Succeeded);
    }
}

#[tokio::test]
async fn what_was_enqueued_can_be_asserted_before_the_commit() {
    let db = TestDb::new().await;
    let mut transaction = db.pool().begin().await.unwrap();
    let task = NewTask::new("mail", json!({ "to": "ada" })).dedupe_key("welcome");
    let id = task.enqueue_with(&mut *transaction).await.unwrap().task_id;
    let found = testing::assert_enqueued(&mut transaction, "mail", &json!({ "to": "ada" })).await;
    assert_eq!((found.task_id, found.dedupe_key.as_deref()), (id, Some("welcome")));
    assert_eq!(testing::enqueued(&mut transaction, "sms").await.unwrap(), []);
}

#[tokio::test]
async fn the_clock_can_be_set_only_in_a_database_marked_for_tests() {
    let db = TestDb::new().await;
    let mut connection = db.connect().await;
    let error = Clock::install(&mut connection).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains(db.name()), "{error}");
    sqlx::raw_sql("insert into divvy.setting (name, value) values ('test_database', 'true')")
        .execute(&mut connection)
        .await
        .unwrap();
    let clock = Clock::install(&mut connection).await.unwrap();
    let before = divvy::store::clock::now(db.pool()).await.unwrap();
    let after = clock.advance(&mut connection, Duration::from_secs(86_400)).await.unwrap();
    assert_eq!(after - before, chrono::Duration::days(1));
    assert_eq!(divvy::store::clock::now(db.pool()).await.unwrap(), after);
}
