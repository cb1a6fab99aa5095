//! Limits that are set, raised, lowered and removed while splits run.

use super::{enqueue_many, seen};
use crate::support::db::TestDb;
use crate::support::hand::Hand;
use crate::support::queue::{Queue, quoted};
use crate::support::race::until_waiting_for_lock;
use serde_json::json;

#[tokio::test]
async fn a_limit_that_comes_later_counts_what_runs_already() {
    let mut q = Queue::with_types(&["a"]).await;
    enqueue_many(&mut q, "a", 10).await;
    let before = q.claim_up_to("a", 3).await;
    q.put("a", json!({"max_running": 4})).await;
    assert_eq!(q.claim_up_to("a", 9).await.len(), 1);
    q.put("a", json!({"max_running": 2})).await;
    for split in &before[..2] {
        q.complete(split).await;
        assert!(q.claim_up_to("a", 9).await.is_empty());
    }
    q.complete(&before[2]).await;
    assert_eq!(q.claim_up_to("a", 9).await.len(), 1);
    q.put("a", json!({"max_running": 5})).await;
    assert_eq!(q.claim_up_to("a", 9).await.len(), 3);
    q.put("a", json!({"max_running": null})).await;
    assert_eq!(q.claim_up_to("a", 99).await.len(), 2);
    assert_eq!(seen(&mut q, "a").await.len(), 2);
}

#[tokio::test]
async fn a_claim_that_had_not_seen_the_limit_counts_after_the_next_tick() {
    let mut q = Queue::with_types(&["a"]).await;
    enqueue_many(&mut q, "a", 10).await;
    let mut other = q.db.connect().await;
    q.run("begin").await;
    q.claim_up_to("a", 3).await;
    sqlx::query("select divvy.put_task_type('a', '{\"max_running\": 4}')").execute(&mut other).await.unwrap();
    q.run("commit").await;
    q.tick().await;
    assert_eq!(q.claim_up_to("a", 9).await.len(), 1);
}

#[tokio::test]
async fn the_tick_that_counts_such_a_claim_waits_for_nobody_who_is_ending_its_splits() {
    for splits in [1, 40] {
        let db = TestDb::new().await;
        let (mut hand, mut operator, mut leader) =
            (Hand::new(&db).await, Hand::new(&db).await, Hand::new(&db).await);
        hand.declare("x", "{}").await;
        let tasks = 40 / splits;
        let task = format!("select 'x', 'g', {splits} from generate_series(1, {tasks})");
        hand.run(&format!("insert into divvy.task (task_type, group_key, split_count) {task}")).await;
        hand.run("begin").await;
        let held = hand.claim("x", 3).await;
        operator.run("select divvy.put_task_type('x', '{\"max_running_per_group\": 4}')").await;
        hand.run("commit; begin").await;
        assert_eq!(hand.complete(&held[0]).await, "ok");
        leader.run("set lock_timeout = '2 s'").await;
        leader.run("select divvy.tick()").await;
        hand.run("commit").await;
        leader.run("select divvy.tick()").await;
        assert_eq!(hand.claim("x", 9).await.len(), 2, "tasks of {splits}: two run");
    }
}

#[tokio::test]
async fn limits_that_change_give_way_to_a_call_that_has_ended_splits_and_claims() {
    let db = TestDb::new().await;
    let (mut hand, mut operator) = (Hand::new(&db).await, Hand::new(&db).await);
    hand.declare("x", r#"{"max_running": 5}"#).await;
    hand.run("insert into divvy.task (task_type) select 'x' from generate_series(1, 20)").await;
    let splits = hand.claim("x", 3).await;
    hand.run("begin").await;
    assert_eq!(hand.complete(&splits[0]).await, "ok");
    let pid = operator.pid;
    let changing = tokio::spawn(async move {
        operator.code("select divvy.put_task_type('x', '{\"max_running\": 4}')").await
    });
    until_waiting_for_lock(db.pool(), pid).await;
    assert_eq!(hand.claim("x", 9).await.len(), 3);
    hand.run("commit").await;
    assert_eq!(changing.await.unwrap(), "ok");
    assert!(hand.claim("x", 9).await.is_empty());
    hand.complete_many(&splits[1..]).await;
    assert_eq!(hand.claim("x", 9).await.len(), 1);
}

#[tokio::test]
async fn a_limit_of_groups_that_changes_holds_and_lets_go_accordingly() {
    let mut q = Queue::with_types(&["a"]).await;
    q.run("insert into divvy.task (task_type, group_key) select 'a', 'g' from generate_series(1, 10)").await;
    let first = q.claim_up_to("a", 2).await;
    q.put("a", json!({"max_running_per_group": 2})).await;
    assert!(q.claim_up_to("a", 9).await.is_empty());
    assert_eq!(q.one::<i64>("select held from divvy.type_stats").await, 8);
    q.put("a", json!({"max_running_per_group": 3})).await;
    assert_eq!(q.claim_up_to("a", 9).await.len(), 1);
    q.put("a", json!({"max_running_per_group": 1})).await;
    q.complete(&first[0]).await;
    q.complete(&first[1]).await;
    assert!(q.claim_up_to("a", 9).await.is_empty());
    q.put("a", json!({"max_running_per_group": null})).await;
    assert_eq!(q.one::<i64>("select held from divvy.type_stats").await, 0);
    assert_eq!(q.claim_up_to("a", 9).await.len(), 7);
}

#[tokio::test]
async fn a_limit_that_can_t_be_is_refused_with_its_value() {
    let mut q = Queue::new().await;
    for option in ["max_running", "max_running_per_task", "max_running_per_group"] {
        for (value, said) in
            [(json!(0), "0"), (json!(-3), "-3"), (json!(1.5), "1.5"), (json!("many"), "many")]
        {
            let refusal = q
                .refused(format!("select divvy.put_task_type('a', {})", quoted(json!({option: value}))))
                .await;
            refusal.says("DV010", &["type a", said]);
        }
    }
    q.refused("select divvy.put_task_type('a', '{\"fair_by_group\": \"perhaps\"}')")
        .await
        .says("DV010", &["type a", "perhaps"]);
    assert_eq!(q.one::<i64>("select count(*) from divvy.task_type").await, 0);
}
