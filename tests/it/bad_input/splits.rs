//! Calls by those who do not hold the split: nothing changes, and the error says who they are.

use crate::support::queue::{Queue, WORKER};
use serde_json::{Value, json};

async fn everything(q: &mut Queue) -> Value {
    q.one("select jsonb_agg(to_jsonb(s) order by s.id, s.phase) from divvy.split s").await
}

/// Every call that needs the token, as (name, statement).
fn calls(id: i64, token: i64) -> [(&'static str, String); 7] {
    [
        ("complete", format!("select divvy.complete({id}, {token})")),
        ("fail", format!("select divvy.fail({id}, {token}, '{{}}')")),
        ("snooze", format!("select divvy.snooze({id}, {token}, '1 s')")),
        ("release", format!("select divvy.release({id}, {token})")),
        ("checkpoint", format!("select divvy.checkpoint({id}, {token}, '{{}}')")),
        ("log", format!("select divvy.log({id}, {token}, 'info', 'm')")),
        ("add_splits", format!("select divvy.add_splits({id}, {token}, '[1]')")),
    ]
}

#[tokio::test]
async fn a_call_with_an_old_token_changes_nothing() {
    let mut q = Queue::with_types(&["a"]).await;
    q.enqueue("a").await;
    let old = q.claim("a").await;
    q.run(format!("select divvy.release({}, {})", old.split_id, old.token)).await;
    let new = q.claim("a").await;
    let before = everything(&mut q).await;
    for (name, sql) in calls(old.split_id, old.token) {
        let refusal = q.refused(sql).await;
        assert_eq!(refusal.code, "DV001", "{name}");
        refusal.says(
            "DV001",
            &[&old.split_id.to_string(), &old.token.to_string(), &new.token.to_string(), "running"],
        );
    }
    assert_eq!(everything(&mut q).await, before);
    q.complete(&new).await;
}

#[tokio::test]
async fn completing_twice_is_refused_and_rolls_the_callers_writes_back() {
    let mut q = Queue::with_types(&["a"]).await;
    q.run("create table effects (n int)").await;
    q.enqueue("a").await;
    let split = q.claim("a").await;
    let complete =
        format!("insert into effects values (1); select divvy.complete({}, {})", split.split_id, split.token);
    q.run(&complete).await;
    q.refused(&complete).await.says("DV001", &[&split.split_id.to_string(), "succeeded"]);
    assert_eq!(q.one::<i64>("select count(*) from effects").await, 1);
    let verdicts: Vec<String> = q
        .all(format!(
            "select verdict from divvy.complete_many('{{{0},{0},999999}}', '{{{1},{2},1}}')",
            split.split_id,
            split.token,
            split.token + 1
        ))
        .await;
    assert_eq!(verdicts, ["already", "lost", "lost"]);
}

#[tokio::test]
async fn a_split_that_nobody_claimed_or_that_does_not_exist_is_named() {
    let mut q = Queue::with_types(&["a"]).await;
    let id = q.enqueue("a").await;
    let before = everything(&mut q).await;
    for (_, sql) in calls(id, 1) {
        q.refused(sql).await.says("DV001", &[&id.to_string(), "ready"]);
    }
    for (_, sql) in calls(999_999, 1) {
        q.refused(sql).await.says("DV011", &["split", "999999"]);
    }
    q.refused("select divvy.complete(null, null)").await.says("DV011", &["split"]);
    q.refused("select divvy.reduce_inputs(999999, 1)").await.says("DV011", &["split", "999999"]);
    q.refused("select divvy.skip_split(999999)").await.says("DV011", &["split", "999999"]);
    assert_eq!(everything(&mut q).await, before);
}

#[tokio::test]
async fn a_plan_that_fails_half_way_leaves_no_half_split_task() {
    let mut q = Queue::new().await;
    q.put("a", json!({"plan": true})).await;
    let task = q.enqueue("a").await;
    let first = q.claim("a").await;
    q.run(format!("select divvy.add_splits({}, {}, '[1, 2, 3]')", first.split_id, first.token)).await;
    assert_eq!(q.fail(&first, ", retry_in => '0'").await, "ready");
    let seen: i64 =
        q.one(format!("select count(*) from divvy.split where task_id = {task} and phase = 'execute'")).await;
    assert_eq!(seen, 0);
    let second = q.claim("a").await;
    assert_eq!((second.phase.as_str(), second.attempt), ("plan", 2));
    q.run(format!("select divvy.add_splits({}, {}, '[4]')", second.split_id, second.token)).await;
    q.complete(&second).await;
    let split = q.claim("a").await;
    assert_eq!(
        (split.split_count, split.split_payload),
        (1, Some(json!(4))),
        "what the first attempt staged is gone"
    );
}

#[tokio::test]
async fn a_reduce_adds_no_splits() {
    let mut q = Queue::new().await;
    q.put("a", json!({"reduce": true})).await;
    q.enqueue_splits("a", 1).await;
    q.work("a").await;
    let reduce = q.claim("a").await;
    q.refused(format!("select divvy.add_splits({}, {}, '[1]')", reduce.split_id, reduce.token))
        .await
        .says("DV004", &[&reduce.split_id.to_string(), "reduce"]);
    q.complete(&reduce).await;
}

#[tokio::test]
async fn arrays_that_do_not_match_are_refused() {
    let mut q = Queue::with_types(&["a"]).await;
    q.enqueue("a").await;
    let split = q.claim("a").await;
    let (id, token) = (split.split_id, split.token);
    q.refused(format!("select divvy.complete_many('{{{id}}}', '{{{token},1}}')"))
        .await
        .says("DV010", &["1 split_ids", "2 tokens"]);
    for results in ["'[]'", "'[1, 2]'", "'{}'"] {
        q.refused(format!("select divvy.complete_many('{{{id}}}', '{{{token}}}', {results})"))
            .await
            .says("DV010", &["results is an array of 1 elements"]);
    }
    q.refused(format!("select divvy.heartbeat('{WORKER}', '{{{id}}}', '{{}}')"))
        .await
        .says("DV010", &["1 split_ids", "0 tokens"]);
    q.complete(&split).await;
}
