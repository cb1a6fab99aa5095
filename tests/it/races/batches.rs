//! Batches against batches, heartbeats and skips: whoever comes second waits, nobody deadlocks.

use crate::support::both::over_both;
use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::{Claimed, Hand};
use crate::support::race::until_waiting_for_lock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Barrier;

over_both! {
    batches_in_opposite_orders_of_their_ids_never_deadlock,
    a_batch_waits_for_no_lease_that_somebody_holds,
    heartbeats_and_batches_of_the_same_leases_never_deadlock,
    a_batch_with_added_splits_and_a_skip_in_the_same_task_do_not_deadlock,
}

async fn batches_in_opposite_orders_of_their_ids_never_deadlock(db: Arc<TestDb>) {
    let mut hand = Hand::new(&db).await;
    hand.declare("x", "{}").await;
    let barrier = Arc::new(Barrier::new(2));
    // Plain tasks and shares, in turns; both sessions end the very same splits.
    let mut rounds = Vec::new();
    for round in 0..40 {
        if round % 2 == 0 {
            hand.run("insert into divvy.task (task_type) select 'x' from generate_series(1, 100)").await;
        } else {
            hand.divided("x", 100).await;
        }
        rounds.push(hand.claim("x", 100).await);
    }
    let mut working = Vec::new();
    for backwards in [false, true] {
        let (barrier, mut hand, rounds) = (barrier.clone(), Hand::new(&db).await, rounds.clone());
        working.push(tokio::spawn(async move {
            let mut ended = 0;
            for mut splits in rounds {
                splits.sort_by_key(|s| s.split_id);
                if backwards {
                    splits.reverse();
                }
                barrier.wait().await;
                ended += hand.complete_many(&splits).await.iter().filter(|v| *v == "ok").count();
            }
            ended
        }));
    }
    let mut ended = 0;
    for client in working {
        ended += client.await.unwrap();
    }
    assert_eq!(ended, 40 * 100, "each split is ended by one of the two");
}

#[tokio::test]
async fn a_batch_locks_its_splits_in_the_order_of_their_ids() {
    // Splits in stretches have no rows to lock in any order.
    let db = TestDb::all_in_rows().await;
    let (mut first, mut second, mut third) =
        (Hand::new(&db).await, Hand::new(&db).await, Hand::new(&db).await);
    first.declare("x", "{}").await;
    first.divided("x", 20).await;
    let mut splits = first.claim("x", 20).await;
    splits.sort_by_key(|s| std::cmp::Reverse(s.split_id));
    let lowest = splits.last().unwrap().split_id;
    first.run("begin").await;
    first.run(&format!("select from divvy.unit where id = {lowest} for update")).await;
    let (pid, batch) = (second.pid, splits.clone());
    let waiting = tokio::spawn(async move { second.complete_many(&batch).await });
    until_waiting_for_lock(db.pool(), pid).await;
    let free: Vec<i64> = third.all("select id from divvy.share for update skip locked").await;
    assert_eq!(free.len(), 19, "the batch waits for its lowest split and holds none above");
    first.run("commit").await;
    assert!(waiting.await.unwrap().iter().all(|v| v == "ok"));
}

/// What a lease that somebody held keeps of ended splits: nothing of it runs, and the lease goes by itself.
async fn leftovers_go(db: &TestDb, clock: &Clock, hand: &mut Hand) {
    assert_eq!(hand.count("divvy.split where status = 'running'").await, 0);
    clock.advance(Duration::from_secs(3)).await;
    let mut duty = Hand::new(db).await;
    for _ in 0..1_000 {
        if hand.count("divvy.lease").await == 0 {
            return;
        }
        duty.run("select divvy.write_down_old(1)").await;
    }
    panic!("{} leases hold nothing, and stay", hand.count("divvy.lease").await);
}

async fn a_batch_waits_for_no_lease_that_somebody_holds(db: Arc<TestDb>) {
    let clock = Clock::stop(&db).await;
    let (mut first, mut second) = (Hand::new(&db).await, Hand::new(&db).await);
    first.declare("x", "{}").await;
    first.run("insert into divvy.task (task_type) select 'x' from generate_series(1, 20)").await;
    let divided = first.divided("x", 20).await;
    let mut splits = Vec::new();
    for _ in 0..40 {
        splits.push(first.claim_one("x").await);
    }
    // One of each kind.
    let mut held = Vec::new();
    first.run("begin").await;
    for of_divided in [true, false] {
        let split = splits.iter().find(|s| (s.task_id == divided) == of_divided).unwrap();
        held.push(split.token);
        first.run(&format!("select from divvy.lease where token = {} for update", split.token)).await;
    }
    held.sort_unstable();
    second.run("set lock_timeout = '5 s'").await;
    assert!(second.complete_many(&splits).await.iter().all(|v| v == "ok"));
    assert_eq!(
        second.all::<i64>("select token from divvy.lease order by token").await,
        held,
        "the others are gone at once"
    );
    first.run("commit").await;
    assert!(
        second.complete_many(&splits).await.iter().all(|v| v == "already"),
        "what is left of it holds nothing"
    );
    leftovers_go(&db, &clock, &mut second).await;
}

async fn heartbeats_and_batches_of_the_same_leases_never_deadlock(db: Arc<TestDb>) {
    let clock = Clock::stop(&db).await;
    let mut hand = Hand::new(&db).await;
    hand.declare("x", "{}").await;
    hand.run("insert into divvy.task (task_type) select 'x' from generate_series(1, 500)").await;
    hand.divided("x", 500).await;
    let mut rounds: Vec<Vec<Claimed>> = Vec::new();
    for _ in 0..50 {
        let mut splits = Vec::new();
        for _ in 0..20 {
            splits.push(hand.claim_one("x").await);
        }
        rounds.push(splits);
    }
    let barrier = Arc::new(Barrier::new(2));
    let (theirs, their_barrier, mut beating) = (rounds.clone(), barrier.clone(), Hand::new(&db).await);
    let beats = tokio::spawn(async move {
        for splits in theirs {
            let list = |f: fn(&Claimed) -> i64| {
                splits.iter().map(|s| f(s).to_string()).collect::<Vec<_>>().join(",")
            };
            let beat = format!(
                "select divvy.heartbeat('{}', '{{{}}}', '{{{}}}')",
                beating.worker,
                list(|s| s.split_id),
                list(|s| s.token)
            );
            their_barrier.wait().await;
            beating.run(&beat).await;
        }
    });
    for splits in rounds {
        barrier.wait().await;
        let verdicts = hand.complete_many(&splits).await;
        assert!(verdicts.iter().all(|v| v == "ok"));
    }
    beats.await.unwrap();
    // A batch does not wait for the leases that a heartbeat holds.
    leftovers_go(&db, &clock, &mut hand).await;
}

/// The batch has locked a split of the task when it wants the task itself, for the splits that another one adds.
async fn a_batch_with_added_splits_and_a_skip_in_the_same_task_do_not_deadlock(db: Arc<TestDb>) {
    let (mut holder, mut worker, mut operator) =
        (Hand::new(&db).await, Hand::new(&db).await, Hand::new(&db).await);
    holder.declare("x", "{}").await;
    let task = holder.divided("x", 3).await;
    let splits = worker.claim("x", 2).await;
    assert_eq!(worker.call("add_splits", &splits[1], "'[1, 2]'").await, "ok");
    // The skip is first in the queue for the task; the batch comes behind it, with the other split in its hand.
    holder.run("begin").await;
    holder.run(&format!("select from divvy.task where id = {task} for update")).await;
    let (pid, skip) =
        (operator.pid, format!("select divvy.skip_split({}, 'not needed')", splits[0].split_id));
    let skipping = tokio::spawn(async move { operator.code(&skip).await });
    until_waiting_for_lock(db.pool(), pid).await;
    let (pid, batch) = (worker.pid, splits.clone());
    let completing = tokio::spawn(async move {
        let said = worker.try_complete_many(&batch).await;
        (worker, said)
    });
    until_waiting_for_lock(db.pool(), pid).await;
    holder.run("commit").await;
    let (mut worker, said) = completing.await.unwrap();
    assert_eq!(said.expect("the batch"), ["ok", "ok"]);
    assert_eq!(skipping.await.unwrap(), "DV004", "the split is being completed: it is too late to skip it");
    assert_eq!(worker.claim("x", 10).await.len(), 3);
}
