//! A dedupe_key is held by one task at a time, for as long as its type says.

use crate::support::clock::Clock;
use crate::support::queue::{Queue, Refusal};
use crate::support::race;
use serde_json::json;
use sqlx::Executor;
use std::time::Duration;

const INSERT: &str = "insert into divvy.task (task_type, dedupe_key) values ('a', 'k') returning id";

async fn enqueue(q: &mut Queue, options: &str) -> (i64, bool) {
    q.rows(format!(
        r#"select task_id, created from divvy.enqueue('a', '{{"v": 2}}', '{{"dedupe_key": "k"{options}}}')"#
    ))
    .await[0]
}

#[tokio::test]
async fn an_open_task_bars_a_second_one_with_its_key() {
    let mut q = Queue::with_types(&["a", "b"]).await;
    let task: i64 = q.one(INSERT).await;
    let refusal = q.refused(INSERT).await;
    assert_eq!((refusal.code.as_str(), refusal.constraint.as_deref()), ("23505", Some("task_dedupe")));
    let none: Vec<i64> = q.all("insert into divvy.task (task_type, dedupe_key) values ('a', 'k') on conflict do nothing returning id").await;
    assert!(none.is_empty());
    q.run("insert into divvy.task (task_type, dedupe_key) values ('a', 'other'), ('b', 'k'), ('a', null), ('a', null)").await;
    assert_eq!(enqueue(&mut q, "").await, (task, false), "enqueue says who holds it");
    let rows: Vec<i64> = q
        .all(
            "insert into divvy.task (task_type, dedupe_key) select 'a', k from unnest(array['k', 'new', 'new']) k
             on conflict do nothing returning id",
        )
        .await;
    assert_eq!(rows.len(), 1, "of a set those come in that may");
}

#[tokio::test]
async fn an_open_window_ends_with_the_task_however_it_ends() {
    let mut q = Queue::with_types(&["a"]).await;
    for end in ["complete", "stop", "cancel", "skip"] {
        let task: i64 = q.one(INSERT).await;
        match end {
            "complete" => drop(q.work("a").await),
            "stop" => {
                let split = q.claim("a").await;
                q.stop(&split).await;
            }
            "cancel" => q.run(format!("select divvy.cancel({task})")).await,
            _ => q.run(format!("select divvy.skip_split({task})")).await,
        }
        q.tick().await;
    }
    let divided: i64 = q
        .one("insert into divvy.task (task_type, dedupe_key, split_count) values ('a', 'k', 1) returning id")
        .await;
    assert_eq!(enqueue(&mut q, "").await, (divided, false));
    q.work("a").await;
    assert!(enqueue(&mut q, "").await.1);
}

#[tokio::test]
async fn a_window_of_an_interval_counts_from_the_creation() {
    let mut q = Queue::new().await;
    q.put("a", json!({"dedupe_window": "1 hour"})).await;
    let clock = Clock::stop(&q.db).await;
    let task: i64 = q.one(INSERT).await;
    q.work("a").await;
    assert_eq!(q.status(task).await, "succeeded");
    assert_eq!(enqueue(&mut q, "").await, (task, false), "the task has ended, its window has not");
    clock.advance(Duration::from_secs(3599)).await;
    q.tick().await;
    assert_eq!(q.refused(INSERT).await.code, "23505");
    clock.advance(Duration::from_secs(1)).await;
    let (second, created) = enqueue(&mut q, "").await;
    assert!(created, "enqueue needs no tick to see that the window is over");
    assert_ne!(second, task);
    clock.advance(Duration::from_secs(3600)).await;
    q.tick().await;
    q.run(INSERT).await;
}

#[tokio::test]
async fn a_window_forever_outlasts_the_retention() {
    let mut q = Queue::new().await;
    q.put("a", json!({"dedupe_window": "forever", "retention": {"succeeded": "1 s"}})).await;
    let clock = Clock::stop(&q.db).await;
    let task: i64 = q.one(INSERT).await;
    q.work("a").await;
    clock.advance(Duration::from_secs(86_400 * 3_000)).await;
    q.tick().await;
    assert_eq!(enqueue(&mut q, "").await, (task, false));
}

#[tokio::test]
async fn a_task_that_came_before_its_type_follows_the_window_of_the_type() {
    let mut q = Queue::new().await;
    let task: i64 = q.one(INSERT).await;
    q.put("a", json!({"dedupe_window": "1 hour"})).await;
    q.work("a").await;
    assert_eq!(q.status(task).await, "succeeded");
    assert_eq!(enqueue(&mut q, "").await, (task, false));
}

#[tokio::test]
async fn on_duplicate_raise_names_the_holder() {
    let mut q = Queue::with_types(&["a"]).await;
    let task: i64 = q.one(INSERT).await;
    q.refused(r#"select divvy.enqueue('a', '{}', '{"dedupe_key": "k", "on_duplicate": "raise"}')"#)
        .await
        .says("DV004", &["type a", "dedupe_key 'k'", &format!("task {task}")]);
}

#[tokio::test]
async fn on_duplicate_replace_gives_a_waiting_holder_the_new_payload_and_policy() {
    let mut q = Queue::with_types(&["a"]).await;
    let task: i64 = q.one(INSERT).await;
    let more = r#", "on_duplicate": "replace", "priority": 1, "labels": ["x"], "max_attempts": 3, "group_key": "g",
        "then": {"succeeded": {"task_type": "b"}}, "deadline_at": "2999-01-01T00:00:00Z""#;
    assert_eq!(enqueue(&mut q, more).await, (task, false));
    let kept: serde_json::Value = q
        .one(format!(
            "select jsonb_build_object('labels', labels, 'priority', priority, 'group_key', group_key,
                'deadline', deadline_at is not null, 'then', \"then\") from divvy.task where id = {task}"
        ))
        .await;
    assert_eq!(
        kept,
        json!({"labels": ["x"], "priority": 1, "group_key": "g", "deadline": true, "then": {"succeeded": {"task_type": "b"}}})
    );
    let split = q.claim("a").await;
    assert_eq!((split.payload.clone(), split.max_attempts), (json!({"v": 2}), 3));
    let running = enqueue(&mut q, r#", "on_duplicate": "replace", "labels": ["too late"]"#).await;
    assert_eq!(running, (task, false));
    assert_eq!(q.one::<Vec<String>>(format!("select labels from divvy.task where id = {task}")).await, ["x"]);
    q.complete(&split).await;
}

#[tokio::test]
async fn on_duplicate_replace_moves_the_holder_to_the_new_moment() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    let task: i64 = q.one(INSERT).await;
    for seconds in [60, 30] {
        let at = (clock.now().await + Duration::from_secs(seconds)).to_rfc3339();
        enqueue(&mut q, &format!(r#", "on_duplicate": "replace", "run_at": "{at}""#)).await;
        q.tick().await;
        assert!(q.claim_up_to("a", 1).await.is_empty(), "a debounced task waits");
    }
    clock.advance(Duration::from_secs(30)).await;
    q.tick().await;
    assert_eq!(q.work("a").await.task_id, task);
}

#[tokio::test]
async fn on_duplicate_replace_obeys_the_limits() {
    let mut q = Queue::with_types(&["a"]).await;
    let task: i64 = q.one(INSERT).await;
    for (payload, option, code) in [
        ("jsonb_build_object('x', repeat('x', 1048576))", "", "DV003"),
        ("'{}'", r#", "priority": 9"#, "DV010"),
    ] {
        q.refused(format!(
            r#"select divvy.enqueue('a', {payload}, '{{"dedupe_key": "k", "on_duplicate": "replace"{option}}}')"#
        ))
        .await
        .says(code, &["type a"]);
    }
    assert_eq!(q.claim("a").await.payload, json!({}));
    assert_eq!(q.status(task).await, "running");
}

#[tokio::test]
async fn two_producers_at_once_make_one_task() {
    let mut q = Queue::with_types(&["a"]).await;
    let mut other = q.db.connect().await;
    let pid = race::backend_pid(&mut other).await;
    q.run("begin").await;
    let task: i64 = q.one(INSERT).await;
    let racing = tokio::spawn(async move {
        sqlx::query_as::<_, (i64, bool)>(
            "select task_id, created from divvy.enqueue('a', '{}', '{\"dedupe_key\": \"k\"}')",
        )
        .fetch_one(&mut other)
        .await
    });
    race::until_waiting_for_lock(q.db.pool(), pid).await;
    q.run("commit").await;
    assert_eq!(racing.await.unwrap().unwrap(), (task, false));
}

#[tokio::test]
async fn a_producer_whose_rival_rolls_back_makes_the_task() {
    let mut q = Queue::with_types(&["a"]).await;
    let mut other = q.db.connect().await;
    let pid = race::backend_pid(&mut other).await;
    q.run("begin").await;
    q.run(INSERT).await;
    let racing =
        tokio::spawn(async move { sqlx::query_scalar::<_, i64>(INSERT).fetch_one(&mut other).await });
    race::until_waiting_for_lock(q.db.pool(), pid).await;
    q.run("rollback").await;
    let task = racing.await.unwrap().unwrap();
    assert_eq!(q.work("a").await.task_id, task);
}

#[tokio::test]
async fn in_repeatable_read_a_key_taken_meanwhile_asks_for_another_try() {
    let mut q = Queue::with_types(&["a"]).await;
    let mut other = q.db.connect().await;
    q.run("begin isolation level repeatable read; select count(*) from divvy.task_type").await;
    other.execute(INSERT).await.unwrap();
    let refusal = q
        .refused("insert into divvy.task (task_type, dedupe_key) values ('a', 'k') on conflict do nothing")
        .await;
    assert_eq!(refusal.code, "40001");
    q.run("begin isolation level repeatable read; select count(*) from divvy.task_type").await;
    other.execute("select divvy.cancel_by_key('a', 'k')").await.unwrap();
    other.execute(INSERT).await.unwrap();
    let Err(error) = q.session.execute("select divvy.enqueue('a', '{}', '{\"dedupe_key\": \"k\"}')").await
    else {
        panic!("an old snapshot can't tell who holds the key")
    };
    assert_eq!(Refusal::of(error).code, "40001");
}
