//! Redrive of what failed alone: the plan, the reduce, a task that never started.

use crate::support::both::over_both;
use crate::support::db::TestDb;
use crate::support::queue::Queue;
use serde_json::json;
use std::sync::Arc;

over_both! {
    a_failed_plan_is_planned_again,
    a_failed_reduce_is_reduced_again_and_nothing_else,
    a_cancelled_task_goes_on_where_it_was,
    a_task_cancelled_in_its_reduce_reduces_again,
    a_task_cancelled_before_it_started_starts,
    the_reduce_runs_once_per_epoch,
}

async fn a_failed_plan_is_planned_again(db: Arc<TestDb>) {
    let mut q = Queue::on(db).await;
    q.put("a", json!({"plan": true})).await;
    let task = q.enqueue("a").await;
    let plan = q.claim("a").await;
    q.run(format!("select divvy.add_splits({}, {}, '[1]')", plan.split_id, plan.token)).await;
    q.stop(&plan).await;
    assert_eq!(q.status(task).await, "failed");
    assert_eq!(q.one::<i64>(format!("select divvy.redrive({task})")).await, 1);
    assert_eq!(q.status(task).await, "planning");
    let again = q.claim("a").await;
    assert_eq!((again.phase.as_str(), again.epoch), ("plan", 2));
    q.run(format!("select divvy.add_splits({}, {}, '[2, 3]')", again.split_id, again.token)).await;
    q.complete(&again).await;
    let payloads: Vec<_> =
        q.claim_up_to("a", 9).await.into_iter().map(|s| s.split_payload.unwrap()).collect();
    assert_eq!(payloads, [json!(2), json!(3)]);
}

async fn a_failed_reduce_is_reduced_again_and_nothing_else(db: Arc<TestDb>) {
    let mut q = Queue::on(db).await;
    q.put("a", json!({"reduce": true})).await;
    let task = q.enqueue_splits("a", 2).await;
    for split in q.claim_up_to("a", 2).await {
        q.complete_with(&split, json!(split.split_no)).await;
    }
    let reduce = q.claim("a").await;
    q.stop(&reduce).await;
    assert_eq!(q.status(task).await, "failed");
    assert_eq!(
        q.splits(task).await,
        ["failed", "succeeded", "succeeded"],
        "results are kept; the reduce is number 0"
    );
    assert_eq!(q.one::<i64>(format!("select divvy.redrive({task})")).await, 1);
    assert_eq!(q.status(task).await, "reducing");
    let again = q.claim("a").await;
    assert_eq!((again.phase.as_str(), again.epoch), ("reduce", 2));
    assert_eq!(again.idempotency_key, format!("{task}.reduce.2.0"));
    let inputs: Vec<i32> =
        q.all(format!("select split_no from divvy.reduce_inputs({}, {})", again.split_id, again.token)).await;
    assert_eq!(inputs, [1, 2]);
    q.complete(&again).await;
    assert_eq!(q.status(task).await, "succeeded");
}

async fn a_cancelled_task_goes_on_where_it_was(db: Arc<TestDb>) {
    let mut q = Queue::on(db).await;
    q.put("a", json!({"reduce": true})).await;
    let task = q.enqueue_splits("a", 3).await;
    q.work("a").await;
    q.run(format!("select divvy.cancel({task})")).await;
    assert_eq!(q.status(task).await, "cancelled");
    assert_eq!(q.one::<i64>(format!("select divvy.redrive({task})")).await, 2);
    assert_eq!(q.splits(task).await, ["succeeded", "ready", "ready"]);
    q.work("a").await;
    q.work("a").await;
    assert_eq!(q.work("a").await.phase, "reduce");
    assert_eq!(q.status(task).await, "succeeded");
}

async fn a_task_cancelled_in_its_reduce_reduces_again(db: Arc<TestDb>) {
    let mut q = Queue::on(db).await;
    q.put("a", json!({"reduce": true})).await;
    let task = q.enqueue_splits("a", 1).await;
    q.work("a").await;
    q.run(format!("select divvy.cancel({task})")).await;
    assert_eq!(q.status(task).await, "cancelled");
    q.run(format!("select divvy.redrive({task})")).await;
    assert_eq!(q.status(task).await, "reducing");
    assert_eq!(q.work("a").await.phase, "reduce");
    assert_eq!(q.status(task).await, "succeeded");
}

async fn a_task_cancelled_before_it_started_starts(db: Arc<TestDb>) {
    let mut q = Queue::on(db).await;
    q.put("a", json!({"plan": true})).await;
    let later: i64 =
        q.one("insert into divvy.task (task_type, run_at) values ('a', now() + '1 day') returning id").await;
    let undeclared = q.enqueue_splits("nobody", 2).await;
    for task in [later, undeclared] {
        q.run(format!("select divvy.cancel({task})")).await;
        q.run(format!("select divvy.redrive({task})")).await;
        assert_eq!(q.status(task).await, "scheduled", "its moment, or its type, is still to come");
    }
    q.put("nobody", json!({})).await;
    assert_eq!(q.claim_up_to("nobody", 9).await.len(), 2);
    q.run(format!("select divvy.reschedule({later}, null)")).await;
    q.tick().await;
    assert_eq!(q.claim("a").await.phase, "plan");
}

#[tokio::test]
async fn a_passed_deadline_is_cleared_and_a_future_one_is_kept() {
    let mut q = Queue::with_types(&["a"]).await;
    for (deadline, kept) in [("- interval '1 s'", false), ("+ interval '1 day'", true)] {
        let task: i64 = q
            .one(format!(
                "insert into divvy.task (task_type, deadline_at) values ('a', now() {deadline}) returning id"
            ))
            .await;
        q.run(format!("select divvy.cancel({task})")).await;
        q.run(format!("select divvy.redrive({task})")).await;
        assert_eq!(
            q.one::<bool>(format!("select deadline_at is not null from divvy.task where id = {task}")).await,
            kept
        );
        q.work("a").await;
    }
}

async fn the_reduce_runs_once_per_epoch(db: Arc<TestDb>) {
    let mut q = Queue::on(db).await;
    q.put("a", json!({"reduce": true, "max_failed": 1})).await;
    let task = q.enqueue_splits("a", 2).await;
    for epoch in 1..=3 {
        for split in q.claim_up_to("a", 2).await {
            if split.split_no == 1 {
                q.stop(&split).await;
            } else {
                q.complete(&split).await;
            }
        }
        let reduce = q.work("a").await;
        assert_eq!((reduce.phase.as_str(), reduce.epoch), ("reduce", epoch));
        q.tick().await;
        assert!(q.claim_up_to("a", 9).await.is_empty());
        assert_eq!(q.status(task).await, "partial");
        q.run(format!("select divvy.redrive({task})")).await;
    }
}
