//! Cancel, from every state.

use crate::support::both::over_both;
use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::queue::{Queue, WORKER};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

over_both! {
    what_waits_is_cancelled_at_once,
    a_running_split_hears_cancel_and_may_still_complete_within_the_grace,
    after_cancel_a_snooze_and_a_release_cancel_the_split,
    after_the_grace_the_token_is_taken_and_the_task_ends,
    a_reduce_that_completes_after_cancel_is_refused_and_its_writes_roll_back,
    a_reduce_that_commits_first_wins_over_the_cancel,
    a_delayed_split_is_cancelled_at_once,
}

async fn cancel(q: &mut Queue, task: i64) -> String {
    q.one(format!("select divvy.cancel({task}, 'no longer wanted')")).await
}

/// Duties over this many seconds, in steps that are no pause.
async fn pass(q: &mut Queue, clock: &Clock, seconds: u64) {
    for _ in 0..seconds.div_ceil(5) {
        clock.advance(Duration::from_secs(5)).await;
        q.tick().await;
    }
}

async fn what_waits_is_cancelled_at_once(db: Arc<TestDb>) {
    let mut q = Queue::on(db).await.and_types(&["a"]).await;
    q.put("planned", json!({"plan": true})).await;
    let ready = q.enqueue("a").await;
    let divided = q.enqueue_splits("a", 3).await;
    let planned = q.enqueue("planned").await;
    let undeclared = q.enqueue("nobody").await;
    let later: i64 =
        q.one("insert into divvy.task (task_type, run_at) values ('a', now() + '1 day') returning id").await;
    for (task, before) in [
        (ready, "running"),
        (divided, "running"),
        (planned, "planning"),
        (undeclared, "scheduled"),
        (later, "scheduled"),
    ] {
        assert_eq!(q.status(task).await, before);
        assert_eq!(cancel(&mut q, task).await, "cancelled");
        assert!(q.splits(task).await.iter().all(|s| s == "cancelled"));
        let event = q.last_event("task", task).await;
        assert_eq!((event.verb.as_str(), event.reason.as_deref()), ("cancel", Some("no longer wanted")));
        assert_eq!(event.before, Some(json!({"status": before})));
    }
    assert!(q.claim_up_to("a", 10).await.is_empty());
    assert!(q.claim_up_to("planned", 10).await.is_empty());
    q.put("nobody", json!({})).await;
    q.tick().await;
    assert!(q.claim_up_to("nobody", 10).await.is_empty());
}

async fn a_delayed_split_is_cancelled_at_once(db: Arc<TestDb>) {
    let mut q = Queue::on(db).await.and_types(&["a"]).await;
    for (how, divided) in
        [(", retry_in => '1 hour'", false), ("", false), (", retry_in => '1 hour'", true), ("", true)]
    {
        let task = if divided { q.enqueue_splits("a", 1).await } else { q.enqueue("a").await };
        let split = q.claim("a").await;
        assert_eq!(q.fail(&split, how).await, "delayed");
        assert_eq!(cancel(&mut q, task).await, "cancelled");
    }
}

#[tokio::test]
async fn an_ended_task_keeps_its_state() {
    let mut q = Queue::with_types(&["a"]).await;
    let task = q.enqueue("a").await;
    q.work("a").await;
    assert_eq!(cancel(&mut q, task).await, "succeeded");
    let failed = q.enqueue("a").await;
    let split = q.claim("a").await;
    q.stop(&split).await;
    assert_eq!(cancel(&mut q, failed).await, "failed");
    assert!(q.events("task", failed).await.is_empty(), "nothing was decided");
}

async fn a_running_split_hears_cancel_and_may_still_complete_within_the_grace(db: Arc<TestDb>) {
    let mut q = Queue::on(db).await.and_types(&["a"]).await;
    let task = q.enqueue_splits("a", 3).await;
    let splits = q.claim_up_to("a", 2).await;
    assert_eq!(cancel(&mut q, task).await, "running");
    assert_eq!(q.splits(task).await, ["running", "running", "cancelled"]);
    let verdicts: Vec<(Option<i64>, String)> = q
        .rows(format!(
            "select split_id, verdict from divvy.heartbeat('{WORKER}', '{{{}}}', '{{{}}}')",
            splits[0].split_id, splits[0].token
        ))
        .await;
    assert_eq!(verdicts, [(Some(splits[0].split_id), "cancel".into()), (None, "run".into())]);
    q.complete_with(&splits[0], json!(1)).await;
    assert_eq!(q.fail(&splits[1], "").await, "cancelled");
    assert_eq!(q.splits(task).await, ["succeeded", "cancelled", "cancelled"]);
    assert_eq!(q.status(task).await, "cancelled");
}

async fn after_cancel_a_snooze_and_a_release_cancel_the_split(db: Arc<TestDb>) {
    let mut q = Queue::on(db).await.and_types(&["a"]).await;
    let (snooze, release) = ("snooze({id}, {token}, '1 s')", "release({id}, {token})");
    for (call, divided) in [(snooze, false), (release, false), (snooze, true), (release, true)] {
        let task = if divided { q.enqueue_splits("a", 1).await } else { q.enqueue("a").await };
        let split = q.claim("a").await;
        cancel(&mut q, task).await;
        let call =
            call.replace("{id}", &split.split_id.to_string()).replace("{token}", &split.token.to_string());
        q.run(format!("select divvy.{call}")).await;
        assert_eq!(q.status(task).await, "cancelled");
        q.refused(format!("select divvy.complete({}, {})", split.split_id, split.token))
            .await
            .says("DV002", &[&split.split_id.to_string(), "cancelled"]);
    }
}

async fn after_the_grace_the_token_is_taken_and_the_task_ends(db: Arc<TestDb>) {
    let mut q = Queue::on(db).await;
    q.put("a", json!({"lease": "5 min"})).await;
    let clock = Clock::stop(&q.db).await;
    for splits in [1, 2] {
        let task = q.enqueue_splits("a", splits).await;
        let split = q.claim("a").await;
        q.tick().await;
        cancel(&mut q, task).await;
        pass(&mut q, &clock, 25).await;
        assert_eq!(q.status(task).await, "running", "the grace is 30 s");
        pass(&mut q, &clock, 5).await;
        assert_eq!(q.status(task).await, "cancelled");
        q.refused(format!("select divvy.complete({}, {})", split.split_id, split.token))
            .await
            .says("DV002", &[&split.split_id.to_string()]);
        let outcomes: Vec<String> =
            q.all(format!("select outcome from divvy.split_attempt where task_id = {task}")).await;
        assert_eq!(outcomes, ["cancelled"]);
    }
}

#[tokio::test]
async fn a_plan_that_completes_after_cancel_starts_nothing() {
    let mut q = Queue::new().await;
    q.put("a", json!({"plan": true, "reduce": true})).await;
    let task = q.enqueue("a").await;
    let plan = q.claim("a").await;
    q.run(format!("select divvy.add_splits({}, {}, '[1, 2]')", plan.split_id, plan.token)).await;
    assert_eq!(cancel(&mut q, task).await, "planning");
    q.complete(&plan).await;
    assert_eq!(q.status(task).await, "cancelled");
    assert_eq!(q.one::<i64>("select count(*) from divvy.split where phase = 'execute'").await, 0);
    assert_eq!(q.one::<i64>("select count(*) from divvy.staged").await, 0);
}

async fn a_reduce_that_completes_after_cancel_is_refused_and_its_writes_roll_back(db: Arc<TestDb>) {
    let mut q = Queue::on(db).await;
    q.put("a", json!({"reduce": true})).await;
    q.run("create table report (n int)").await;
    let task = q.enqueue_splits("a", 1).await;
    q.work("a").await;
    let reduce = q.claim("a").await;
    assert_eq!(cancel(&mut q, task).await, "reducing");
    q.refused(format!(
        "insert into report values (1); select divvy.complete({}, {})",
        reduce.split_id, reduce.token
    ))
    .await
    .says("DV002", &[&reduce.split_id.to_string()]);
    assert_eq!(q.one::<i64>("select count(*) from report").await, 0);
    q.run(format!("select divvy.release({}, {})", reduce.split_id, reduce.token)).await;
    assert_eq!(q.status(task).await, "cancelled");
}

async fn a_reduce_that_commits_first_wins_over_the_cancel(db: Arc<TestDb>) {
    let mut q = Queue::on(db).await;
    q.put("a", json!({"reduce": true})).await;
    let task = q.enqueue_splits("a", 1).await;
    q.work("a").await;
    q.work("a").await;
    assert_eq!(cancel(&mut q, task).await, "succeeded");
}

#[tokio::test]
async fn cancelling_twice_keeps_the_first_reason() {
    let mut q = Queue::with_types(&["a"]).await;
    let task = q.enqueue("a").await;
    q.claim("a").await;
    q.run(format!("select divvy.cancel({task}, 'first')")).await;
    q.run(format!("select divvy.cancel({task}, 'second')")).await;
    let reason: String =
        q.one(format!("select reason from divvy.task_overview where task_id = {task}")).await;
    assert_eq!(reason, "first");
}

#[tokio::test]
async fn cancel_by_key_cancels_the_open_task_that_holds_the_key() {
    let mut q = Queue::with_types(&["a", "b"]).await;
    let insert = |t: &str| {
        format!("insert into divvy.task (task_type, dedupe_key) values ('{t}', 'order 7') returning id")
    };
    let other: i64 = q.one(insert("b")).await;
    let task: i64 = q.one(insert("a")).await;
    let status: String = q.one("select divvy.cancel_by_key('a', 'order 7', 'refund')").await;
    assert_eq!((status.as_str(), q.status(task).await.as_str()), ("cancelled", "cancelled"));
    assert_eq!(q.status(other).await, "running", "the key of another type is another key");
    assert_eq!(q.last_event("task", task).await.reason.as_deref(), Some("refund"));
    q.refused("select divvy.cancel_by_key('a', 'order 7')").await.says("DV011", &["order 7"]);
}

#[tokio::test]
async fn a_person_whose_reason_is_the_word_deadline_cancels_all_the_same() {
    let mut q = Queue::with_types(&["a"]).await;
    let task = q.enqueue("a").await;
    let status: String = q.one(format!("select divvy.cancel({task}, 'deadline')")).await;
    assert_eq!(status, "cancelled");
    assert_eq!(q.last_event("task", task).await.reason.as_deref(), Some("deadline"));
}
