//! Calls about divided tasks take as long as the task is large, not as its square, and not as long as others' tasks are many.

use crate::support::db::TestDb;
use crate::support::hand::Hand;

const SPLITS: i32 = 2_000;
const OTHERS: i32 = 20_000;

async fn bench(splits: i32, others: i32) -> (TestDb, Hand, i64) {
    let db = TestDb::new().await;
    let mut hand = Hand::new(&db).await;
    hand.declare("x", "{}").await;
    if others > 0 {
        hand.divided_into_rows("x", others).await;
    }
    let task = hand.divided_into_rows("x", splits).await;
    hand.run("set statement_timeout = '5 s'").await;
    (db, hand, task)
}

#[tokio::test]
async fn a_task_of_2000_splits_is_paused_changed_moved_and_cancelled_in_no_time() {
    for call in [
        "pause_task(%)",
        "update_task(%, '{\"priority\": 1}')",
        "reschedule(%, now() + interval '1 hour')",
        "cancel(%, 'a test')",
    ] {
        let (_db, mut hand, task) = bench(SPLITS, 0).await;
        hand.run(&format!("select divvy.{}", call.replace('%', &task.to_string()))).await;
    }
}

#[tokio::test]
async fn a_small_task_is_cancelled_in_no_time_beside_20000_splits_of_others() {
    let (_db, mut hand, task) = bench(3, OTHERS).await;
    hand.run(&format!("select divvy.cancel({task}, 'a test')")).await;
}

#[tokio::test]
async fn a_failure_beyond_the_tolerance_skips_2000_splits_in_no_time() {
    let (_db, mut hand, _) = bench(SPLITS, 0).await;
    let split = hand.claim_one("x").await;
    assert_eq!(hand.call("fail", &split, "'{}', false").await, "ok");
    hand.run("select divvy.settle()").await;
    assert_eq!(hand.state(split.split_id).await, "failed");
    assert_eq!(hand.count("divvy.split where status = 'skipped'").await, i64::from(SPLITS) - 1);
}
