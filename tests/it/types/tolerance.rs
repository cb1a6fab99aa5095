//! reduce_on and the tolerance: the table of the contract, section 2.

use crate::support::queue::Queue;
use serde_json::json;

/// Runs a task of ten splits of which `failed` fail; its status and whether it was reduced.
async fn outcome(q: &mut Queue, reduce_on: &str, failed: usize) -> (String, bool) {
    let task: i64 = q
        .one(format!(
            "insert into divvy.task (task_type, split_count, reduce_on) values ('a', 10, '{reduce_on}') returning id"
        ))
        .await;
    let mut left = failed;
    loop {
        let splits = q.claim_up_to("a", 10).await;
        if splits.is_empty() {
            return (q.status(task).await, false);
        }
        for split in splits {
            if split.phase == "reduce" {
                q.complete(&split).await;
                return (q.status(task).await, true);
            } else if left > 0 {
                left -= 1;
                q.stop(&split).await;
            } else {
                q.complete(&split).await;
            }
        }
    }
}

#[tokio::test]
async fn failures_within_and_beyond_the_tolerance_end_as_the_table_says() {
    let mut q = Queue::new().await;
    q.put("a", json!({"reduce": true, "max_failed": 2})).await;
    for (reduce_on, none, within, beyond) in [
        ("success", ("succeeded", true), ("failed", false), ("failed", false)),
        ("tolerated", ("succeeded", true), ("partial", true), ("failed", false)),
        ("always", ("succeeded", true), ("partial", true), ("failed", true)),
    ] {
        for (failed, (status, reduced)) in [(0, none), (2, within), (3, beyond)] {
            assert_eq!(
                outcome(&mut q, reduce_on, failed).await,
                (status.to_owned(), reduced),
                "{reduce_on} {failed}"
            );
        }
    }
}

#[tokio::test]
async fn a_type_without_reduce_ends_in_the_same_states() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_failed": 2})).await;
    for (reduce_on, within) in [("success", "failed"), ("tolerated", "partial"), ("always", "partial")] {
        for (failed, status) in [(0, "succeeded"), (2, within), (3, "failed")] {
            assert_eq!(
                outcome(&mut q, reduce_on, failed).await,
                (status.to_owned(), false),
                "{reduce_on} {failed}"
            );
        }
    }
}

#[tokio::test]
async fn either_bound_breaks_the_tolerance_and_percent_counts_of_all_splits() {
    let mut q = Queue::new().await;
    q.put("a", json!({"reduce": true, "max_failed_percent": 20})).await;
    assert_eq!(outcome(&mut q, "tolerated", 2).await, ("partial".into(), true));
    assert_eq!(outcome(&mut q, "tolerated", 3).await, ("failed".into(), false));
    q.put("a", json!({"max_failed": 1})).await;
    assert_eq!(outcome(&mut q, "tolerated", 2).await, ("failed".into(), false));
    q.put("a", json!({"max_failed": null, "max_failed_percent": null})).await;
    assert_eq!(
        outcome(&mut q, "tolerated", 1).await,
        ("failed".into(), false),
        "none is tolerated unless said"
    );
}

#[tokio::test]
async fn when_the_tolerance_breaks_nothing_more_is_started_unless_the_reduce_wants_all() {
    let mut q = Queue::new().await;
    q.put("a", json!({"reduce": true})).await;
    for (reduce_on, others) in [("tolerated", "skipped"), ("always", "ready")] {
        let task: i64 = q
            .one(format!(
                "insert into divvy.task (task_type, split_count, reduce_on) values ('a', 4, '{reduce_on}') returning id"
            ))
            .await;
        let splits = q.claim_up_to("a", 2).await;
        q.stop(&splits[0]).await;
        assert_eq!(q.splits(task).await, ["failed", "running", others, others], "{reduce_on}");
        assert_eq!(q.status(task).await, "running", "one still runs");
        q.complete(&splits[1]).await;
        if reduce_on == "tolerated" {
            assert_eq!(q.status(task).await, "failed");
            let error: serde_json::Value =
                q.one(format!("select error from divvy.task_result({task})")).await;
            assert_eq!(
                (&error["class"], &error["failed"], &error["first"]["class"]),
                (&json!("splits"), &json!(1), &json!("Broken"))
            );
        }
        q.run(format!("select divvy.cancel({task})")).await;
    }
}

#[tokio::test]
async fn a_reduce_that_stops_fails_the_task_and_keeps_the_results() {
    let mut q = Queue::new().await;
    q.put("a", json!({"reduce": true})).await;
    let task = q.enqueue_splits("a", 1).await;
    let split = q.claim("a").await;
    q.complete_with(&split, json!(1)).await;
    let reduce = q.claim("a").await;
    q.stop(&reduce).await;
    assert_eq!(q.status(task).await, "failed");
    let kept: serde_json::Value =
        q.one(format!("select result from divvy.split where task_id = {task} and split_no = 1")).await;
    assert_eq!(kept, 1);
}
