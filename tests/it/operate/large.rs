//! Calls about divided tasks take as long as the task is large, not as its square, and not as long as others' tasks are many.

use crate::support::both::over_both;
use crate::support::db::TestDb;
use crate::support::hand::Hand;
use std::sync::Arc;

over_both! {
    a_task_of_2000_splits_is_paused_changed_moved_and_cancelled_in_no_time,
    a_small_task_is_cancelled_in_no_time_beside_20000_splits_of_others,
    a_failure_beyond_the_tolerance_skips_2000_splits_in_no_time,
}

const SPLITS: i32 = 2_000;
const OTHERS: i32 = 20_000;

async fn bench(db: &TestDb, splits: i32, others: i32) -> (Hand, i64) {
    let mut hand = Hand::new(db).await;
    hand.declare("x", "{}").await;
    if others > 0 {
        hand.divided("x", others).await;
    }
    let task = hand.divided("x", splits).await;
    hand.run("set statement_timeout = '5 s'").await;
    (hand, task)
}

async fn a_task_of_2000_splits_is_paused_changed_moved_and_cancelled_in_no_time(db: Arc<TestDb>) {
    for call in [
        "pause_task(%)",
        "update_task(%, '{\"priority\": 1}')",
        "reschedule(%, now() + interval '1 hour')",
        "cancel(%, 'a test')",
    ] {
        let (mut hand, task) = bench(&db, SPLITS, 0).await;
        hand.run(&format!("select divvy.{}", call.replace('%', &task.to_string()))).await;
    }
}

async fn a_small_task_is_cancelled_in_no_time_beside_20000_splits_of_others(db: Arc<TestDb>) {
    let (mut hand, task) = bench(&db, 3, OTHERS).await;
    hand.run(&format!("select divvy.cancel({task}, 'a test')")).await;
}

async fn a_failure_beyond_the_tolerance_skips_2000_splits_in_no_time(db: Arc<TestDb>) {
    let (mut hand, _) = bench(&db, SPLITS, 0).await;
    let split = hand.claim_one("x").await;
    assert_eq!(hand.call("fail", &split, "'{}', false").await, "ok");
    hand.run("select divvy.settle()").await;
    assert_eq!(hand.state(split.split_id).await, "failed");
    assert_eq!(hand.count("divvy.split where status = 'skipped'").await, i64::from(SPLITS) - 1);
}
