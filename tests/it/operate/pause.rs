//! Pauses of types and of tasks.

use crate::support::clock::Clock;
use crate::support::queue::Queue;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn nothing_of_a_paused_type_is_claimed_in_any_phase_and_running_splits_finish() {
    let mut q = Queue::new().await;
    q.put("a", json!({"plan": true, "reduce": true})).await;
    let planning = q.enqueue("a").await;
    let running = q.enqueue_splits("a", 2).await;
    let reducing = q.enqueue_splits("a", 0).await;
    q.run("select divvy.pause('a')").await;
    assert!(q.claim_up_to("a", 9).await.is_empty());
    let shown: Vec<(String, String)> = q.rows("select distinct status, reason from divvy.split").await;
    assert_eq!(shown, [("delayed".into(), "type paused".into())], "what may not be claimed is never ready");
    q.run("select divvy.resume('a')").await;
    assert_eq!(q.last_event("type", "a").await.verb, "resume");
    let splits = q.claim_up_to("a", 9).await;
    assert_eq!(splits.len(), 4);
    q.run("select divvy.pause('a', reason => 'again')").await;
    for split in splits {
        q.complete(&split).await;
    }
    assert_eq!(q.status(running).await, "reducing");
    assert_eq!(q.status(planning).await, "reducing", "a plan without splits");
    assert_eq!(q.status(reducing).await, "succeeded");
    assert!(q.claim_up_to("a", 9).await.is_empty());
}

#[tokio::test]
async fn a_pause_of_a_type_ends_at_its_moment() {
    let mut q = Queue::with_types(&["a", "b"]).await;
    let clock = Clock::stop(&q.db).await;
    q.enqueue("a").await;
    q.enqueue("b").await;
    q.run("select divvy.pause('a', divvy.clock() + interval '1 min', 'night')").await;
    let event = q.last_event("type", "a").await;
    assert_eq!((event.verb.as_str(), event.reason.as_deref()), ("pause", Some("night")));
    assert!(q.claim_up_to("a", 1).await.is_empty());
    q.work("b").await;
    clock.advance(Duration::from_secs(60)).await;
    q.work("a").await;
    q.tick().await;
    assert!(
        q.one::<bool>(
            "select paused_until is null and pause_reason is null from divvy.task_type where name = 'a'"
        )
        .await
    );
}

#[tokio::test]
async fn a_paused_task_waits_and_comes_again_when_resumed() {
    let mut q = Queue::with_types(&["a"]).await;
    let task = q.enqueue_splits("a", 3).await;
    let running = q.claim("a").await;
    q.run(format!("select divvy.pause_task({task}, reason => 'check the data')")).await;
    let event = q.last_event("task", task).await;
    assert_eq!((event.verb.as_str(), event.reason.as_deref()), ("pause_task", Some("check the data")));
    assert_eq!(q.splits(task).await, ["running", "delayed", "delayed"]);
    let other = q.enqueue("a").await;
    assert_eq!(q.work("a").await.task_id, other, "others go on");
    assert_eq!(q.fail(&running, ", retry_in => '0'").await, "delayed", "a retry waits for the pause too");
    q.tick().await;
    assert!(q.claim_up_to("a", 9).await.is_empty());
    q.run(format!("select divvy.resume_task({task})")).await;
    assert_eq!(q.last_event("task", task).await.verb, "resume_task");
    for split in q.claim_up_to("a", 9).await {
        assert_eq!(split.task_id, task);
        q.complete(&split).await;
    }
    assert_eq!(q.status(task).await, "succeeded");
    q.refused(format!("select divvy.pause_task({task})"))
        .await
        .says("DV004", &[&task.to_string(), "succeeded", "ended"]);
}

#[tokio::test]
async fn a_pause_of_a_task_ends_at_its_moment() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    let task = q.enqueue("a").await;
    q.run(format!("select divvy.pause_task({task}, divvy.clock() + interval '1 min')")).await;
    clock.advance(Duration::from_secs(59)).await;
    q.tick().await;
    assert!(q.claim_up_to("a", 1).await.is_empty());
    clock.advance(Duration::from_secs(1)).await;
    q.tick().await;
    assert_eq!(q.work("a").await.task_id, task);
}

#[tokio::test]
async fn a_scheduled_task_that_is_paused_does_not_start_before_it_is_resumed() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    let task: i64 = q
        .one("insert into divvy.task (task_type, run_at) values ('a', divvy.clock() + '1 s') returning id")
        .await;
    q.run(format!("select divvy.pause_task({task})")).await;
    clock.advance(Duration::from_secs(5)).await;
    q.tick().await;
    assert_eq!(q.status(task).await, "scheduled");
    q.run(format!("select divvy.resume_task({task})")).await;
    q.tick().await;
    assert_eq!(q.work("a").await.task_id, task);
}

#[tokio::test]
async fn the_reduce_of_a_paused_task_waits_too() {
    let mut q = Queue::new().await;
    q.put("a", json!({"reduce": true})).await;
    let task = q.enqueue_splits("a", 1).await;
    let split = q.claim("a").await;
    q.run(format!("select divvy.pause_task({task})")).await;
    q.complete(&split).await;
    assert_eq!(q.status(task).await, "reducing");
    assert!(q.claim_up_to("a", 1).await.is_empty());
    q.run(format!("select divvy.resume_task({task})")).await;
    assert_eq!(q.work("a").await.phase, "reduce");
}
