//! `then`: what an ended task sets off, in the transaction that ends it.

use crate::support::queue::{Queue, quoted};
use serde_json::{Value, json};

/// Tasks that followed this one: (id, type, payload).
async fn children(q: &mut Queue, parent: i64) -> Vec<(i64, String, Value)> {
    q.rows(format!(
        "select id, task_type, payload from divvy.task where parent_task_id = {parent} order by id"
    ))
    .await
}

async fn enqueue_then(q: &mut Queue, then: &Value) -> i64 {
    q.one(format!("insert into divvy.task (task_type, \"then\") values ('a', {}) returning id", quoted(then)))
        .await
}

/// A `then` whose types say which state called them.
fn every_state() -> Value {
    json!({"succeeded": {"task_type": "after.succeeded"}, "partial": {"task_type": "after.partial"},
        "failed": {"task_type": "after.failed"}, "cancelled": {"task_type": "after.cancelled"}})
}

#[tokio::test]
async fn each_end_state_sets_off_its_own_template() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_failed": 1})).await;
    for (status, splits) in [("succeeded", 1), ("failed", 1), ("cancelled", 1), ("partial", 2)] {
        let task: i64 = q
            .one(format!(
                "insert into divvy.task (task_type, \"then\", split_count) values ('a', {}, {splits}) returning id",
                quoted(every_state())
            ))
            .await;
        match status {
            "succeeded" => drop(q.work("a").await),
            "cancelled" => q.run(format!("select divvy.cancel({task})")).await,
            "failed" => {
                q.run(format!("select divvy.update_task({task}, '{{\"max_failed\": 0}}')")).await;
                let split = q.claim("a").await;
                q.stop(&split).await;
            }
            _ => {
                let both = q.claim_up_to("a", 2).await;
                q.stop(&both[0]).await;
                q.complete(&both[1]).await;
            }
        }
        assert_eq!(q.status(task).await, status);
        let children = children(&mut q, task).await;
        assert_eq!(children.len(), 1, "{status}");
        assert_eq!(children[0].1, format!("after.{status}"));
        assert_eq!(children[0].2, json!({"parent": task, "status": status, "result": null}));
    }
}

#[tokio::test]
async fn the_result_is_handed_on_and_the_lineage_is_kept() {
    let mut q = Queue::with_types(&["a", "b", "c"]).await;
    let then = json!({"succeeded": [{"task_type": "b", "payload": {"mine": 1}, "priority": 1, "labels": ["l"],
        "then": {"succeeded": {"task_type": "c"}}}, {"task_type": "c", "split_count": 2}]});
    let task: i64 = q
        .one(format!(
            "insert into divvy.task (task_type, headers, \"then\") values ('a', '{{\"trace\": 7}}', {}) returning id",
            quoted(then)
        ))
        .await;
    let split = q.claim("a").await;
    q.complete_with(&split, json!({"rows": 5})).await;
    let next = q.claim("b").await;
    assert_eq!(
        next.payload,
        json!({"mine": 1, "parent": task, "status": "succeeded", "result": {"rows": 5}})
    );
    assert_eq!(next.headers, Some(json!({"trace": 7})), "a trace goes on");
    assert_eq!(q.claim_up_to("c", 9).await.len(), 2);
    q.complete_with(&next, json!(6)).await;
    let last = q.claim("c").await;
    assert_eq!(last.payload["parent"], next.task_id);
    assert_eq!(last.payload["result"], 6);
}

#[tokio::test]
async fn the_result_of_a_reduce_is_handed_on() {
    let mut q = Queue::with_types(&["b"]).await;
    q.put("a", json!({"reduce": true, "then": {"succeeded": {"task_type": "b"}}})).await;
    let task = q.enqueue_splits("a", 1).await;
    q.work("a").await;
    let reduce = q.claim("a").await;
    q.complete_with(&reduce, json!("sum")).await;
    assert_eq!(q.claim("b").await.payload, json!({"parent": task, "status": "succeeded", "result": "sum"}));
}

#[tokio::test]
async fn what_follows_comes_with_the_end_or_not_at_all() {
    let mut q = Queue::with_types(&["a", "b"]).await;
    let task = enqueue_then(&mut q, &json!({"succeeded": {"task_type": "b"}})).await;
    let split = q.claim("a").await;
    q.run(format!("begin; select divvy.complete({}, {}); rollback", split.split_id, split.token)).await;
    assert!(children(&mut q, task).await.is_empty());
    q.complete(&split).await;
    assert_eq!(children(&mut q, task).await.len(), 1);
}

#[tokio::test]
async fn it_follows_once_per_epoch() {
    let mut q = Queue::with_types(&["a"]).await;
    let task = enqueue_then(&mut q, &every_state()).await;
    let split = q.claim("a").await;
    q.stop(&split).await;
    q.run(format!("select divvy.redrive({task})")).await;
    let split = q.claim("a").await;
    q.stop(&split).await;
    q.run(format!("select divvy.redrive({task})")).await;
    q.work("a").await;
    q.tick().await;
    q.run(format!("select divvy.cancel({task})")).await;
    let types: Vec<String> = children(&mut q, task).await.into_iter().map(|c| c.1).collect();
    assert_eq!(types, ["after.failed", "after.failed", "after.succeeded"]);
}

#[tokio::test]
async fn a_types_then_holds_where_the_task_has_none() {
    let mut q = Queue::new().await;
    q.put("a", json!({"then": {"succeeded": {"task_type": "of.type"}}})).await;
    let plain = q.enqueue("a").await;
    let own = enqueue_then(&mut q, &json!({"succeeded": {"task_type": "of.task"}})).await;
    let silenced = enqueue_then(&mut q, &Value::Null).await;
    for split in q.claim_up_to("a", 3).await {
        q.complete(&split).await;
    }
    assert_eq!(children(&mut q, plain).await[0].1, "of.type");
    assert_eq!(children(&mut q, own).await[0].1, "of.task");
    assert!(children(&mut q, silenced).await.is_empty());
}

#[tokio::test]
async fn a_result_too_large_to_hand_on_is_left_out_and_said_so() {
    let mut q = Queue::with_types(&["a", "b"]).await;
    for (template, bytes, omitted) in
        [(100, 1 << 20, true), (8_000, (1 << 20) - 5_000, true), (100, 1_000_000, false)]
    {
        let payload = json!({"note": "n".repeat(template)});
        let task = enqueue_then(&mut q, &json!({"succeeded": {"task_type": "b", "payload": payload}})).await;
        let split = q.claim("a").await;
        q.run(format!(
            "select divvy.complete({}, {}, to_jsonb(repeat('r', {})))",
            split.split_id,
            split.token,
            bytes - 2
        ))
        .await;
        let next = q.work("b").await;
        assert_eq!(next.payload["parent"], task);
        assert_eq!(next.payload["result"].is_null(), omitted, "{bytes}");
        assert_eq!(next.payload.get("result_omitted").is_some(), omitted);
        let kept: i32 =
            q.one(format!("select length(result #>> '{{}}') from divvy.task_result({task})")).await;
        assert_eq!(kept, bytes - 2, "task_result has it");
    }
}

#[tokio::test]
async fn a_full_or_taken_successor_never_keeps_its_parent_from_ending() {
    let mut q = Queue::with_types(&["a"]).await;
    q.put("full", json!({"max_waiting": 1})).await;
    q.enqueue("full").await;
    q.refused("insert into divvy.task (task_type) values ('full')")
        .await
        .says("DV003", &["type full", "max_waiting = 1"]);
    let full = enqueue_then(&mut q, &json!({"succeeded": {"task_type": "full"}})).await;
    let taken = enqueue_then(&mut q, &json!({"succeeded": {"task_type": "b", "dedupe_key": "k"}})).await;
    q.run("insert into divvy.task (task_type, dedupe_key) values ('b', 'k')").await;
    for split in q.claim_up_to("a", 2).await {
        q.complete(&split).await;
    }
    assert_eq!((q.status(full).await, q.status(taken).await), ("succeeded".into(), "succeeded".into()));
    assert_eq!(children(&mut q, full).await.len(), 1, "what follows is no new work from outside");
    assert!(children(&mut q, taken).await.is_empty());
}

#[tokio::test]
async fn a_task_may_follow_itself_without_end() {
    let mut q = Queue::new().await;
    q.put("a", json!({"then": {"succeeded": {"task_type": "a"}}})).await;
    q.enqueue("a").await;
    for _ in 0..20 {
        q.work("a").await;
    }
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 21);
}
