//! Cancel against those who work on the task.

use crate::support::both::over_both;
use crate::support::db::TestDb;
use crate::support::hand::Hand;
use crate::support::race::until_waiting_for_lock;
use std::sync::Arc;
use tokio::sync::Barrier;

over_both! {
    a_complete_that_comes_before_the_cancel_commits_counts,
    a_complete_beside_a_cancel_that_is_not_committed_waits_for_nobody,
    cancels_and_completes_at_once_never_deadlock_and_leave_no_task_open,
}

async fn a_complete_that_comes_before_the_cancel_commits_counts(db: Arc<TestDb>) {
    let (mut worker, mut operator) = (Hand::new(&db).await, Hand::new(&db).await);
    worker.declare("x", r#"{"reduce": true}"#).await;
    let task = worker.divided("x", 2).await;
    let splits = worker.claim("x", 1).await;
    worker.run("begin").await;
    assert_eq!(worker.complete(&splits[0]).await, "ok");
    // The cancel waits for nobody.
    let status: String = operator.get(&format!("select divvy.cancel({task}, 'enough')")).await;
    assert_eq!(status, "running", "a split of it is not free");
    worker.run("commit").await;
    assert_eq!(worker.state(splits[0].split_id).await, "succeeded");
    assert!(worker.claim("x", 1).await.is_empty());
    assert_eq!(worker.status(task).await, "cancelled");
}

async fn a_complete_beside_a_cancel_that_is_not_committed_waits_for_nobody(db: Arc<TestDb>) {
    let (mut worker, mut operator) = (Hand::new(&db).await, Hand::new(&db).await);
    worker.declare("x", r#"{"reduce": true}"#).await;
    let task = worker.divided("x", 2).await;
    let split = worker.claim_one("x").await;
    operator.run("begin").await;
    operator.run(&format!("select divvy.cancel({task}, 'enough')")).await;
    assert_eq!(worker.complete(&split).await, "ok");
    operator.run("commit").await;
    assert!(worker.claim("x", 1).await.is_empty());
    assert_eq!(worker.status(task).await, "cancelled");
}

#[tokio::test]
async fn a_plain_task_is_completed_or_cancelled_by_whoever_locks_it_first() {
    let db = TestDb::new().await;
    let (mut worker, mut operator) = (Hand::new(&db).await, Hand::new(&db).await);
    worker.declare("x", "{}").await;
    for (complete_first, status) in [(true, "succeeded"), (false, "cancelled")] {
        let task = worker.insert("(task_type) values ('x')").await;
        let split = worker.claim_one("x").await;
        let cancel = format!("select divvy.cancel({task}, 'enough')");
        if complete_first {
            worker.run("begin").await;
            assert_eq!(worker.complete(&split).await, "ok");
            let pid = operator.pid;
            let second = tokio::spawn(async move {
                let status: String = operator.get(&cancel).await;
                (operator, status)
            });
            until_waiting_for_lock(db.pool(), pid).await;
            worker.run("commit").await;
            let said;
            (operator, said) = second.await.unwrap();
            assert_eq!(said, "succeeded", "an ended task keeps its status");
        } else {
            operator.run("begin").await;
            operator.run(&cancel).await;
            let pid = worker.pid;
            let second = tokio::spawn(async move {
                assert_eq!(worker.complete(&split).await, "ok", "until the grace is over it counts");
                worker
            });
            until_waiting_for_lock(db.pool(), pid).await;
            operator.run("commit").await;
            worker = second.await.unwrap();
        }
        assert_eq!(worker.status(task).await, status);
    }
}

#[tokio::test]
async fn a_reduce_that_commits_first_wins_over_the_cancel() {
    let db = TestDb::new().await;
    let (mut worker, mut operator) = (Hand::new(&db).await, Hand::new(&db).await);
    worker.declare("x", r#"{"reduce": true}"#).await;
    let task = worker.divided("x", 0).await;
    let reduce = worker.claim_one("x").await;
    worker.run("begin").await;
    assert_eq!(worker.complete(&reduce).await, "ok");
    let pid = operator.pid;
    let cancelling = tokio::spawn(async move {
        operator.get::<String>(&format!("select divvy.cancel({task}, 'too late')")).await
    });
    until_waiting_for_lock(db.pool(), pid).await;
    worker.run("commit").await;
    assert_eq!(cancelling.await.unwrap(), "succeeded");
}

#[tokio::test]
async fn a_reduce_that_completes_after_the_cancel_is_refused_and_its_writes_are_gone() {
    let db = TestDb::new().await;
    let (mut worker, mut operator) = (Hand::new(&db).await, Hand::new(&db).await);
    worker.run("create table public.effect (x int)").await;
    worker.declare("x", r#"{"reduce": true}"#).await;
    let task = worker.divided("x", 0).await;
    let reduce = worker.claim_one("x").await;
    operator.run("begin").await;
    operator.run(&format!("select divvy.cancel({task}, 'enough')")).await;
    worker.run("begin; insert into public.effect values (1)").await;
    let pid = worker.pid;
    let completing = tokio::spawn(async move {
        assert_eq!(worker.complete(&reduce).await, "DV002");
        worker.run("rollback").await;
        (worker, reduce)
    });
    until_waiting_for_lock(db.pool(), pid).await;
    operator.run("commit").await;
    let (mut worker, reduce) = completing.await.unwrap();
    assert_eq!(worker.count("public.effect").await, 0);
    assert_eq!(worker.call("release", &reduce, "").await, "ok");
    assert_eq!(worker.status(task).await, "cancelled");
}

async fn cancels_and_completes_at_once_never_deadlock_and_leave_no_task_open(db: Arc<TestDb>) {
    const ROUNDS: i32 = 60;
    let mut hand = Hand::new(&db).await;
    hand.declare("x", r#"{"reduce": true}"#).await;
    hand.run(&format!(
        "insert into divvy.task (task_type, split_count) select 'x', 5 from generate_series(1, {ROUNDS})"
    ))
    .await;
    let tasks: Vec<i64> = hand.all("select id from divvy.task order by id").await;
    let splits = hand.claim("x", 5 * ROUNDS as usize).await;
    let barrier = Arc::new(Barrier::new(4));
    let mut working = Vec::new();
    for side in 0..4usize {
        let (barrier, mut hand) = (barrier.clone(), Hand::new(&db).await);
        let (tasks, splits) = (tasks.clone(), splits.clone());
        working.push(tokio::spawn(async move {
            for task in tasks {
                barrier.wait().await;
                if side == 0 {
                    hand.run(&format!("select divvy.cancel({task}, 'enough')")).await;
                    continue;
                }
                // Each worker ends some of the task's splits, in one way or another.
                for split in
                    splits.iter().filter(|s| s.task_id == task && s.split_no as usize % 3 == side - 1)
                {
                    let said = match split.split_no {
                        1..=3 => hand.complete(split).await,
                        4 => hand.call("fail", split, r#"'{"class": "x"}'"#).await,
                        _ => hand.call("snooze", split, "'0 s'").await,
                    };
                    assert_eq!(said, "ok");
                }
            }
        }));
    }
    for side in working {
        side.await.unwrap();
    }
    // One pass meets what slipped by between the two.
    hand.run("select divvy.reclaim()").await;
    hand.run("select divvy.settle()").await;
    let open: Vec<String> =
        hand.all("select id || ' ' || status::text from divvy.task where finished_at is null").await;
    assert_eq!(open, [] as [String; 0]);
    assert_eq!(hand.count("divvy.split where status in ('ready', 'delayed', 'running')").await, 0);
    assert_eq!(hand.count("divvy.task where status <> 'cancelled'").await, 0);
}
