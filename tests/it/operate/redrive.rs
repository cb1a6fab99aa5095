//! Redrive re-opens the unsuccessful splits of an ended task.

use crate::support::both::over_both;
use crate::support::db::TestDb;
use crate::support::queue::Queue;
use serde_json::{Value, json};
use std::sync::Arc;

over_both! {
    a_partial_task_redrives_its_failed_splits_and_keeps_the_results,
    where_chooses_splits_by_number_and_by_class_of_error,
    fresh_forgets_checkpoints_and_max_attempts_sets_the_new_budget,
    splits_skipped_by_the_tolerance_come_again_and_those_skipped_by_hand_when_asked,
}

/// A task of four splits: 1 succeeded with a result, 2 failed, 3 succeeded, 4 failed otherwise; reduced as partial.
pub async fn partial(q: &mut Queue) -> i64 {
    q.put("a", json!({"reduce": true, "max_failed": 2})).await;
    let task = q.enqueue_splits("a", 4).await;
    for split in q.claim_up_to("a", 4).await {
        match split.split_no {
            2 => drop(q.stop(&split).await),
            4 => {
                q.run(format!(
                    "select divvy.checkpoint({}, {}, '{{\"row\": 9}}')",
                    split.split_id, split.token
                ))
                .await;
                q.run(format!(
                    "select divvy.fail({}, {}, '{{\"class\": \"Other\", \"message\": \"m\"}}', retry => false)",
                    split.split_id, split.token
                ))
                .await;
            }
            no => q.complete_with(&split, json!({"no": no})).await,
        }
    }
    let reduce = q.claim("a").await;
    q.complete_with(&reduce, json!("first")).await;
    assert_eq!(q.status(task).await, "partial");
    task
}

async fn redrive(q: &mut Queue, task: i64, options: Value) -> i64 {
    q.one(format!("select divvy.redrive({task}, '{options}')")).await
}

async fn a_partial_task_redrives_its_failed_splits_and_keeps_the_results(db: Arc<TestDb>) {
    let mut q = Queue::on(db).await;
    let task = partial(&mut q).await;
    assert_eq!(redrive(&mut q, task, json!({"reason": "fixed the parser"})).await, 2);
    let event = q.last_event("task", task).await;
    assert_eq!((event.verb.as_str(), event.reason.as_deref()), ("redrive", Some("fixed the parser")));
    assert_eq!(event.before, Some(json!({"status": "partial", "epoch": 1})));
    assert_eq!(q.status(task).await, "running");
    assert_eq!(q.splits(task).await, ["succeeded", "ready", "succeeded", "ready"]);
    let splits = q.claim_up_to("a", 10).await;
    for split in &splits {
        assert_eq!(
            (split.epoch, split.attempt, split.max_attempts),
            (2, 2, 21),
            "a budget afresh, attempts that only grow"
        );
        assert!(split.idempotency_key.ends_with(".2.0"));
    }
    assert_eq!(splits[1].checkpoint, Some(json!({"row": 9})), "checkpoints are kept");
    for split in &splits {
        q.complete_with(split, json!({"again": split.split_no})).await;
    }
    let reduce = q.claim("a").await;
    assert_eq!((reduce.phase.as_str(), reduce.epoch, reduce.attempt), ("reduce", 2, 1));
    let inputs: Vec<Value> =
        q.all(format!("select result from divvy.reduce_inputs({}, {})", reduce.split_id, reduce.token)).await;
    assert_eq!(inputs, [json!({"no": 1}), json!({"again": 2}), json!({"no": 3}), json!({"again": 4})]);
    q.complete_with(&reduce, json!("second")).await;
    assert_eq!(q.status(task).await, "succeeded");
    assert_eq!(
        q.one::<Value>(format!("select to_jsonb(r) - 'finished_at' from divvy.task_result({task}) r")).await,
        json!({"status": "succeeded", "result": "second", "error": null})
    );
}

async fn where_chooses_splits_by_number_and_by_class_of_error(db: Arc<TestDb>) {
    let mut q = Queue::on(db).await;
    for (chosen, expected) in [
        (json!({"split_no": [2]}), ["succeeded", "ready", "succeeded", "failed"]),
        (json!({"error_class": "Other"}), ["succeeded", "failed", "succeeded", "ready"]),
        (json!({"split_no": [2, 4], "error_class": "Broken"}), ["succeeded", "ready", "succeeded", "failed"]),
    ] {
        let task = partial(&mut q).await;
        assert_eq!(redrive(&mut q, task, json!({"where": chosen})).await, 1);
        assert_eq!(q.splits(task).await, expected, "{chosen}");
        let split = q.claim("a").await;
        q.complete(&split).await;
        assert_eq!(q.claim("a").await.phase, "reduce", "the other failure is still tolerated");
    }
    let task = partial(&mut q).await;
    q.refused(format!("select divvy.redrive({task}, '{{\"where\": {{\"split_no\": [1, 3]}}}}')"))
        .await
        .says("DV004", &[&task.to_string(), "no unsuccessful split matches", "split_no"]);
    assert_eq!(q.status(task).await, "partial", "nothing has changed");
    assert_eq!(q.one::<i32>(format!("select epoch from divvy.task where id = {task}")).await, 1);
}

async fn fresh_forgets_checkpoints_and_max_attempts_sets_the_new_budget(db: Arc<TestDb>) {
    let mut q = Queue::on(db).await;
    let task = partial(&mut q).await;
    redrive(&mut q, task, json!({"fresh": true, "max_attempts": 1})).await;
    let splits = q.claim_up_to("a", 10).await;
    assert!(splits.iter().all(|s| s.checkpoint.is_none()));
    assert_eq!(q.fail(&splits[0], "").await, "failed", "one attempt in this epoch");
}

#[tokio::test]
async fn a_budget_afresh_gives_the_same_number_of_attempts_again() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_attempts": 2})).await;
    let task = q.enqueue("a").await;
    for epoch in 1..=3 {
        for (n, expected) in [(1, "ready"), (2, "failed")] {
            let split = q.claim("a").await;
            assert_eq!((split.attempt, split.max_attempts), ((epoch - 1) * 2 + n, epoch * 2));
            assert_eq!(q.fail(&split, ", retry_in => '0'").await, expected);
        }
        assert_eq!(q.status(task).await, "failed");
        redrive(&mut q, task, json!({})).await;
    }
}

async fn splits_skipped_by_the_tolerance_come_again_and_those_skipped_by_hand_when_asked(db: Arc<TestDb>) {
    let mut q = Queue::on(db).await.and_types(&["a"]).await;
    for (options, expected) in
        [(json!({}), ["ready", "skipped", "ready"]), (json!({"skipped": true}), ["ready", "ready", "ready"])]
    {
        let task = q.enqueue_splits("a", 3).await;
        let by_hand: i64 =
            q.one(format!("select id from divvy.split where task_id = {task} and split_no = 2")).await;
        q.run(format!("select divvy.skip_split({by_hand}, 'bad file')")).await;
        let first = q.claim("a").await;
        q.stop(&first).await;
        assert_eq!(q.splits(task).await, ["failed", "skipped", "skipped"]);
        assert_eq!(q.status(task).await, "failed");
        redrive(&mut q, task, options).await;
        assert_eq!(q.splits(task).await, expected);
        for split in q.claim_up_to("a", 3).await {
            q.complete(&split).await;
        }
        assert_eq!(q.status(task).await, "succeeded");
    }
}

#[tokio::test]
async fn a_task_that_is_open_or_succeeded_is_not_redriven() {
    let mut q = Queue::with_types(&["a"]).await;
    let scheduled = q.enqueue("nobody").await;
    let task = q.enqueue("a").await;
    let redrive = format!("select divvy.redrive({task})");
    q.refused(&redrive).await.says("DV004", &[&task.to_string(), "running"]);
    let split = q.claim("a").await;
    q.refused(&redrive).await.says("DV004", &[&task.to_string(), "running"]);
    q.complete(&split).await;
    q.refused(&redrive).await.says("DV004", &[&task.to_string(), "succeeded"]);
    q.refused(format!("select divvy.redrive({scheduled})"))
        .await
        .says("DV004", &[&scheduled.to_string(), "scheduled"]);
    assert!(q.events("task", task).await.is_empty());
}

#[tokio::test]
async fn a_redrive_takes_the_dedupe_key_again_or_names_who_holds_it() {
    let mut q = Queue::with_types(&["a"]).await;
    let insert = "insert into divvy.task (task_type, dedupe_key) values ('a', 'k') returning id";
    let task: i64 = q.one(insert).await;
    let split = q.claim("a").await;
    q.stop(&split).await;
    let holder: i64 = q.one(insert).await;
    q.refused(format!("select divvy.redrive({task})"))
        .await
        .says("DV004", &[&task.to_string(), "dedupe_key 'k'", &format!("held by task {holder}")]);
    assert_eq!(q.status(task).await, "failed");
    q.work("a").await;
    redrive(&mut q, task, json!({})).await;
    assert_eq!(q.refused(insert).await.constraint.as_deref(), Some("task_dedupe"));
    q.work("a").await;
    assert_eq!(q.status(task).await, "succeeded");
}
