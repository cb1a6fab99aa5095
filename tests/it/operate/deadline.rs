//! deadline_at: a task that is not done by then has failed.

use crate::support::clock::Clock;
use crate::support::queue::{Queue, WORKER};
use serde_json::{Value, json};
use std::time::Duration;

async fn with_deadline(q: &mut Queue, more: &str, values: &str) -> i64 {
    q.one(format!(
        "insert into divvy.task (task_type, deadline_at{more})
         values ('a', divvy.clock() + interval '10 s'{values}) returning id"
    ))
    .await
}

async fn error_class(q: &mut Queue, task: i64) -> Value {
    q.one(format!("select error -> 'class' from divvy.task_result({task})")).await
}

#[tokio::test]
async fn what_waits_at_its_deadline_fails_and_says_why() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    let plain = with_deadline(&mut q, "", "").await;
    let divided = with_deadline(&mut q, ", split_count", ", 3").await;
    let later = with_deadline(&mut q, ", run_at", ", divvy.clock() + interval '1 day'").await;
    clock.advance(Duration::from_millis(9_999)).await;
    q.tick().await;
    assert_eq!(q.status(plain).await, "running");
    clock.advance(Duration::from_millis(1)).await;
    q.tick().await;
    for task in [plain, divided, later] {
        assert_eq!(q.status(task).await, "failed");
        assert_eq!(error_class(&mut q, task).await, "deadline");
        let event = q.last_event("task", task).await;
        assert_eq!(event.verb, "deadline");
        assert!(event.reason.unwrap().starts_with("its deadline was"));
    }
    assert!(q.claim_up_to("a", 9).await.is_empty());
    q.run(format!("select divvy.redrive({plain})")).await;
    assert_eq!(q.work("a").await.task_id, plain);
}

#[tokio::test]
async fn what_runs_at_its_deadline_hears_cancel_and_fails_after_the_grace() {
    let mut q = Queue::new().await;
    q.put("a", json!({"reduce": true})).await;
    q.put("b", json!({})).await;
    let clock = Clock::stop(&q.db).await;
    let divided = with_deadline(&mut q, ", split_count", ", 2").await;
    let plain: i64 = q
        .one("insert into divvy.task (task_type, deadline_at) values ('b', divvy.clock() + interval '10 s') returning id")
        .await;
    let splits = [q.claim("a").await, q.claim("b").await];
    for _ in 0..2 {
        clock.advance(Duration::from_secs(5)).await;
        q.tick().await;
    }
    for split in &splits {
        let verdict: String = q
            .one(format!(
                "select verdict from divvy.heartbeat('{WORKER}', '{{{}}}', '{{{}}}') where split_id is not null",
                split.split_id, split.token
            ))
            .await;
        assert_eq!(verdict, "cancel");
    }
    for _ in 0..6 {
        clock.advance(Duration::from_secs(5)).await;
        q.tick().await;
    }
    for task in [divided, plain] {
        assert_eq!(q.status(task).await, "failed");
        assert_eq!(error_class(&mut q, task).await, "deadline");
    }
}

#[tokio::test]
async fn a_task_that_completes_in_the_grace_after_its_deadline_has_failed_with_its_results_kept() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    let plain = with_deadline(&mut q, "", "").await;
    let divided = with_deadline(&mut q, ", split_count", ", 1").await;
    let splits = q.claim_up_to("a", 2).await;
    clock.advance(Duration::from_secs(10)).await;
    q.tick().await;
    for split in &splits {
        q.complete_with(split, json!("late")).await;
    }
    for task in [plain, divided] {
        assert_eq!(q.status(task).await, "failed");
        assert_eq!(error_class(&mut q, task).await, "deadline");
        let kept: Value = q.one(format!("select result from divvy.split where task_id = {task}")).await;
        assert_eq!(kept, "late");
    }
}
