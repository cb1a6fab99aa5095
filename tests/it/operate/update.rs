//! update_task, reschedule and skip_split.

use crate::support::clock::Clock;
use crate::support::queue::Queue;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_payload_changes_only_while_the_task_is_scheduled() {
    let mut q = Queue::with_types(&["a"]).await;
    let later: i64 =
        q.one("insert into divvy.task (task_type, run_at) values ('a', now() + '1 day') returning id").await;
    q.run(format!(r#"select divvy.update_task({later}, '{{"payload": {{"v": 2}}, "reason": "typo"}}')"#))
        .await;
    let event = q.last_event("task", later).await;
    assert_eq!((event.verb.as_str(), event.reason.as_deref()), ("update_task", Some("typo")));
    assert_eq!(
        (event.before, event.after),
        (Some(json!({"payload": {}})), Some(json!({"payload": {"v": 2}})))
    );
    q.run(format!("select divvy.reschedule({later}, null)")).await;
    q.tick().await;
    assert_eq!(q.claim("a").await.payload, json!({"v": 2}));
    q.refused(format!(r#"select divvy.update_task({later}, '{{"payload": {{}}}}')"#))
        .await
        .says("DV004", &[&later.to_string(), "running", "only while it is scheduled"]);
}

#[tokio::test]
async fn limits_priority_and_deadline_change_while_the_task_is_open() {
    let mut q = Queue::with_types(&["a"]).await;
    let slow = q.enqueue_splits("a", 2).await;
    let urgent = q.enqueue("a").await;
    q.run(format!(
        r#"select divvy.update_task({urgent}, '{{"priority": 1, "max_attempts": 3, "timeout": "1 min", "labels": ["x"],
            "deadline_at": "2999-01-01T00:00:00Z", "max_failed": 1, "max_failed_percent": 5}}')"#
    ))
    .await;
    let split = q.claim("a").await;
    assert_eq!((split.task_id, split.max_attempts), (urgent, 3), "priority 1 comes first");
    q.run(format!(r#"select divvy.update_task({slow}, '{{"max_attempts": 5, "priority": 1}}')"#)).await;
    assert!(q.claim_up_to("a", 2).await.iter().all(|s| s.max_attempts == 5 && s.task_id == slow));
    q.complete(&split).await;
    q.refused(format!(r#"select divvy.update_task({urgent}, '{{"priority": 2}}')"#))
        .await
        .says("DV004", &[&urgent.to_string(), "succeeded", "ended"]);
}

#[tokio::test]
async fn an_update_obeys_the_limits_of_an_insert() {
    let mut q = Queue::new().await;
    let task = q.enqueue("nobody").await;
    for (options, code, name) in [
        ("jsonb_build_object('payload', repeat('x', 1048576))".to_owned(), "DV003", "payload is 1048578"),
        ("'{\"priority\": 5}'".into(), "DV010", "priority is 5"),
        ("'{\"max_attempts\": 1001}'".into(), "DV010", "max_attempts is 1001"),
        ("'{\"deadline_at\": \"infinity\"}'".into(), "DV010", "deadline_at is infinity"),
    ] {
        q.refused(format!("select divvy.update_task({task}, {options})"))
            .await
            .says(code, &[&format!("task {task}"), name]);
    }
    assert!(q.events("task", task).await.is_empty());
}

#[tokio::test]
async fn reschedule_moves_what_waits_to_another_moment() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    let ready = q.enqueue("a").await;
    let later: i64 = q
        .one("insert into divvy.task (task_type, run_at) values ('a', divvy.clock() + '1 day') returning id")
        .await;
    for task in [ready, later] {
        let moved: i64 =
            q.one(format!("select divvy.reschedule({task}, divvy.clock() + interval '10 s', 1)")).await;
        assert_eq!(moved, 1);
        let event = q.last_event("task", task).await;
        assert_eq!(event.verb, "reschedule");
        assert_eq!(event.after.unwrap()["priority"], 1);
    }
    q.tick().await;
    assert!(q.claim_up_to("a", 9).await.is_empty());
    clock.advance(Duration::from_secs(10)).await;
    q.tick().await;
    let splits = q.claim_up_to("a", 9).await;
    assert_eq!(splits.len(), 2);
    let priorities: Vec<i32> = q.all("select priority::int from divvy.task").await;
    assert_eq!(priorities, [1, 1]);
    q.refused(format!("select divvy.reschedule({ready}, null)"))
        .await
        .says("DV004", &[&ready.to_string(), "running", "nothing of it waits"]);
    q.refused(format!("select divvy.reschedule({ready}, null, 5)"))
        .await
        .says("DV010", &[&ready.to_string(), "priority is 5"]);
}

#[tokio::test]
async fn reschedule_brings_a_retry_forward() {
    let mut q = Queue::with_types(&["a"]).await;
    let task = q.enqueue("a").await;
    let split = q.claim("a").await;
    assert_eq!(q.fail(&split, ", retry_in => '1 day'").await, "delayed");
    q.run(format!("select divvy.reschedule({task}, null)")).await;
    assert_eq!(q.claim("a").await.attempt, 2);
}

#[tokio::test]
async fn a_skipped_split_counts_neither_as_failed_nor_as_done() {
    let mut q = Queue::new().await;
    q.put("a", json!({"reduce": true})).await;
    let task = q.enqueue_splits("a", 3).await;
    let splits = q.claim_up_to("a", 2).await;
    let ready: i64 =
        q.one(format!("select id from divvy.split where task_id = {task} and status = 'ready'")).await;
    q.run(format!("select divvy.skip_split({ready}, 'bad file')")).await;
    q.run(format!("select divvy.skip_split({}, 'stuck')", splits[0].split_id)).await;
    let event = q.last_event("split", splits[0].split_id).await;
    assert_eq!((event.verb.as_str(), event.reason.as_deref()), ("skip_split", Some("stuck")));
    assert_eq!(event.before, Some(json!({"status": "running"})));
    q.refused(format!("select divvy.complete({}, {})", splits[0].split_id, splits[0].token))
        .await
        .says("DV001", &[&splits[0].split_id.to_string(), "skipped"]);
    q.complete(&splits[1]).await;
    assert_eq!(q.splits(task).await[1..], ["skipped", "succeeded", "skipped"]);
    let reduce = q.claim("a").await;
    assert_eq!(reduce.phase, "reduce");
    q.refused(format!("select divvy.skip_split({})", reduce.split_id))
        .await
        .says("DV004", &[&reduce.split_id.to_string(), "reduce", "can't be skipped"]);
    q.complete(&reduce).await;
    assert_eq!(q.status(task).await, "succeeded");
    q.refused(format!("select divvy.skip_split({ready})"))
        .await
        .says("DV004", &[&ready.to_string(), "succeeded"]);
}

#[tokio::test]
async fn a_failed_split_of_a_running_task_may_be_skipped_so_that_the_task_succeeds() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_failed": 1})).await;
    let task = q.enqueue_splits("a", 2).await;
    let splits = q.claim_up_to("a", 2).await;
    q.stop(&splits[0]).await;
    q.run(format!("select divvy.skip_split({}, 'known')", splits[0].split_id)).await;
    q.complete(&splits[1]).await;
    assert_eq!(q.status(task).await, "succeeded");
}
