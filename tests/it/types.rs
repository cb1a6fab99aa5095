//! What a type decides: how often and when a split is tried, when failures are too many, how long history stays.

mod retry;
mod tolerance;

use crate::support::clock::Clock;
use crate::support::queue::Queue;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn an_option_left_out_stays_and_one_given_as_null_returns_to_its_default() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_attempts": 3, "timeout": "1 min", "reduce": true, "backoff": {"kind": "fixed", "base": 1}})).await;
    q.put("a", json!({"timeout": null, "backoff": null})).await;
    let kept: Value = q
        .one("select jsonb_build_object('max_attempts', max_attempts, 'timeout', timeout, 'reduce', reduce, 'kind', backoff -> 'kind') from divvy.task_type")
        .await;
    assert_eq!(
        kept,
        json!({"max_attempts": 3, "timeout": "00:15:00", "reduce": true, "kind": "exponential"})
    );
    let event = q.last_event("type", "a").await;
    assert_eq!(event.verb, "put_task_type");
    assert_eq!(event.before.unwrap()["timeout"], "00:01:00");
    assert_eq!(event.after, Some(json!({"timeout": null, "backoff": null})));
}

#[tokio::test]
async fn the_defaults_are_the_contracts() {
    let mut q = Queue::with_types(&["a"]).await;
    let defaults: Value = q
        .one("select to_jsonb(t) - array['no', 'limited', 'limit_epoch', 'created_at', 'updated_at', 'declared_by', 'name'] from divvy.task_type t")
        .await;
    assert_eq!(
        defaults,
        json!({"handler": {"worker": true}, "plan": false, "reduce": false, "max_attempts": 20,
            "backoff": {"kind": "exponential", "base": 5, "factor": 2, "max": 3600, "jitter": 0.2}, "timeout": "00:15:00",
            "lease": "00:00:30", "max_running": null, "max_running_per_task": null, "max_running_per_group": null, "rate": null,
            "fair_by_group": false, "max_waiting": null, "dedupe_window": "open", "max_failed": null,
            "max_failed_percent": null, "reduce_on": "tolerated", "retention_succeeded": "3 days",
            "retention_others": "30 days", "then": null, "paused_until": null, "pause_reason": null})
    );
}

#[tokio::test]
async fn a_type_with_open_tasks_is_not_dropped() {
    let mut q = Queue::with_types(&["a"]).await;
    let task = q.enqueue("a").await;
    q.refused("select divvy.drop_task_type('a')")
        .await
        .says("DV004", &["type a", &format!("task {task} is open")]);
    q.work("a").await;
    q.run("select divvy.drop_task_type('a')").await;
    assert_eq!(q.last_event("type", "a").await.verb, "drop_task_type");
    let waits = q.enqueue("a").await;
    assert_eq!(q.status(waits).await, "scheduled");
}

/// A whole round over the tasks: a tick goes on where the last one stopped, and one that stopped at the end begins anew.
async fn prune_all(q: &mut Queue) {
    for _ in 0..2 {
        q.tick().await;
    }
}

#[tokio::test]
async fn ended_tasks_go_with_all_that_is_theirs_after_their_retention() {
    let mut q = Queue::new().await;
    q.put("a", json!({"retention": {"succeeded": "1 hour", "others": "2 hours"}})).await;
    let clock = Clock::stop(&q.db).await;
    let good = q.enqueue_splits("a", 2).await;
    for split in q.claim_up_to("a", 2).await {
        q.run(format!("select divvy.log({}, {}, 'info', 'm')", split.split_id, split.token)).await;
        q.complete(&split).await;
    }
    let bad = q.enqueue("a").await;
    let split = q.claim("a").await;
    q.stop(&split).await;
    let open = q.enqueue("a").await;
    clock.advance(Duration::from_secs(3599)).await;
    prune_all(&mut q).await;
    assert_eq!(q.all::<i64>("select id from divvy.task order by id").await, [good, bad, open]);
    clock.advance(Duration::from_secs(1)).await;
    prune_all(&mut q).await;
    assert_eq!(q.all::<i64>("select id from divvy.task order by id").await, [bad, open]);
    assert_eq!(q.one::<i64>("select count(*) from divvy.share").await, 0);
    assert_eq!(q.one::<i64>("select count(*) from divvy.split_log").await, 0);
    clock.advance(Duration::from_secs(3600)).await;
    prune_all(&mut q).await;
    assert_eq!(q.all::<i64>("select id from divvy.task order by id").await, [open]);
    assert_eq!(q.one::<i64>("select count(*) from divvy.attempt").await, 0);
}

#[tokio::test]
async fn more_than_max_waiting_is_refused_until_some_are_done() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_waiting": 2})).await;
    q.run("insert into divvy.task (task_type) values ('a'), ('a')").await;
    q.refused("insert into divvy.task (task_type) values ('a')")
        .await
        .says("DV003", &["type a", "max_waiting = 2"]);
    q.refused("select divvy.enqueue('a', options => '{\"run_at\": \"2999-01-01T00:00:00Z\"}')")
        .await
        .says("DV003", &["type a"]);
    q.work("a").await;
    q.enqueue("a").await;
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 3);
}

#[tokio::test]
async fn priority_decides_within_a_type_and_plan_and_reduce_come_first() {
    let mut q = Queue::new().await;
    q.put("a", json!({"plan": true, "reduce": true})).await;
    q.run("insert into divvy.task (task_type, priority, split_count) values ('a', 4, 1), ('a', 1, 1), ('a', 2, 1), ('a', 3, 0)").await;
    q.enqueue("a").await;
    let order: Vec<(String, i32)> = q
        .rows(format!(
            "select c.phase, k.priority::int from divvy.claim('{}', '{{a}}', 9) with ordinality c
             join divvy.task k on k.id = c.task_id order by c.ordinality",
            crate::support::queue::WORKER
        ))
        .await;
    let order: Vec<(&str, i32)> = order.iter().map(|(phase, priority)| (phase.as_str(), *priority)).collect();
    assert_eq!(order, [("reduce", 3), ("plan", 2), ("execute", 1), ("execute", 2), ("execute", 4)]);
}

#[tokio::test]
async fn a_minute_of_waiting_counts_as_one_step_of_priority() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run("insert into divvy.task (task_type, priority) values ('a', 4)").await;
    clock.advance(Duration::from_secs(121)).await;
    q.run("insert into divvy.task (task_type, priority) values ('a', 2), ('a', 1)").await;
    let order: Vec<i32> = q
        .all(format!(
            "select k.priority::int from divvy.claim('{}', '{{a}}', 9) with ordinality c
             join divvy.task k on k.id = c.task_id order by c.ordinality",
            crate::support::queue::WORKER
        ))
        .await;
    assert_eq!(order, [1, 4, 2]);
}
