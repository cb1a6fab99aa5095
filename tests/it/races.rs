//! Who is first? Each race is run for real, by many sessions at once, or brought to its point by locks.

mod batches;
mod cancel;
mod duties;
mod leaders;
mod reducers;

use crate::lease::let_time_pass;
use crate::support::both::over_both;
use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::{Claimed, Hand};
use crate::support::race::DEADLINE;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::Barrier;

over_both! {
    last_splits_of_400_tasks_ended_by_8_clients_lose_and_double_no_reduce,
    last_splits_of_400_tasks_ended_by_16_clients_in_batches_lose_and_double_no_reduce,
    the_last_two_splits_that_do_not_see_each_other_still_lead_to_one_reduce,
    a_task_that_somebody_holds_while_its_last_split_ends_is_reduced_when_it_is_free,
    eight_claimers_at_once_share_no_split_and_claim_no_more_than_they_asked_for,
    a_claim_beside_a_reclaim_never_takes_the_split_twice,
    claims_and_reclaims_at_once_let_every_split_end_exactly_once,
}

const TASKS: i32 = 400;
const SPLITS: i32 = 8;

/// Every client completes one split of every task, all of them the tasks in the same order: so the last two splits
/// of most tasks end side by side.
async fn last_splits_together(db: &TestDb, clients: usize, batch: usize) {
    let mut hand = Hand::new(db).await;
    hand.declare("sum", r#"{"reduce": true}"#).await;
    hand.run(&format!(
        "insert into divvy.task (task_type, split_count) select 'sum', {SPLITS} from generate_series(1, {TASKS})"
    ))
    .await;
    let mut claimed = hand.claim("sum", (TASKS * SPLITS) as usize).await;
    assert_eq!(claimed.len(), (TASKS * SPLITS) as usize);
    claimed.sort_by_key(|s| (s.task_id, s.split_no));

    let barrier = Arc::new(Barrier::new(clients));
    let mut working = Vec::new();
    for client in 0..clients {
        let mine: Vec<Claimed> = claimed.iter().skip(client).step_by(clients).cloned().collect();
        let (barrier, mut hand) = (barrier.clone(), Hand::new(db).await);
        working.push(tokio::spawn(async move {
            for batch in mine.chunks(batch) {
                barrier.wait().await;
                let verdicts = hand.complete_many(batch).await;
                assert!(verdicts.iter().all(|v| v == "ok"), "{verdicts:?}");
            }
        }));
    }
    for client in working {
        client.await.unwrap();
    }
    reduce_all(&mut hand, TASKS as usize).await;
}

/// Whoever claims now finds every reduce, without any tick; each is there once.
async fn reduce_all(hand: &mut Hand, tasks: usize) {
    let mut reduces: Vec<Claimed> = Vec::new();
    loop {
        let waiting = hand.count("divvy.fan_in").await;
        let found = hand.claim("sum", 100).await;
        let over = found.is_empty() && waiting == 0;
        reduces.extend(found);
        if over {
            break;
        }
    }
    assert!(reduces.iter().all(|s| s.phase == "reduce"));
    let distinct: HashSet<i64> = reduces.iter().map(|s| s.task_id).collect();
    assert_eq!((reduces.len(), distinct.len()), (tasks, tasks), "one reduce for each task");
    let verdicts = hand.complete_many(&reduces).await;
    assert!(verdicts.iter().all(|v| v == "ok"));
    assert_eq!(hand.count("divvy.task where status = 'succeeded'").await, tasks as i64);
    hand.run("select divvy.tick()").await;
    assert!(hand.claim("sum", 10).await.is_empty(), "no reduce comes twice");
}

async fn last_splits_of_400_tasks_ended_by_8_clients_lose_and_double_no_reduce(db: Arc<TestDb>) {
    last_splits_together(&db, 8, 1).await;
}

async fn last_splits_of_400_tasks_ended_by_16_clients_in_batches_lose_and_double_no_reduce(db: Arc<TestDb>) {
    last_splits_together(&db, 16, 5).await;
}

async fn the_last_two_splits_that_do_not_see_each_other_still_lead_to_one_reduce(db: Arc<TestDb>) {
    let (mut a, mut b) = (Hand::new(&db).await, Hand::new(&db).await);
    a.declare("sum", r#"{"reduce": true}"#).await;
    let task = a.divided("sum", 2).await;
    let splits = a.claim("sum", 2).await;
    a.run("begin").await;
    b.run("begin").await;
    assert_eq!(a.complete(&splits[0]).await, "ok");
    assert_eq!(b.complete(&splits[1]).await, "ok");
    a.run("commit").await;
    // Looked at too early: the note that is used up here must not be the last.
    assert!(a.claim("sum", 1).await.is_empty());
    b.run("commit").await;
    assert_eq!(a.claim_one("sum").await.phase, "reduce");
    assert!(b.claim("sum", 1).await.is_empty());
    assert_eq!(a.status(task).await, "reducing");
}

async fn a_task_that_somebody_holds_while_its_last_split_ends_is_reduced_when_it_is_free(db: Arc<TestDb>) {
    let (mut holder, mut worker) = (Hand::new(&db).await, Hand::new(&db).await);
    holder.declare("sum", r#"{"reduce": true}"#).await;
    let task = holder.divided("sum", 1).await;
    let split = worker.claim_one("sum").await;
    holder.run("begin").await;
    holder.run(&format!("select divvy.update_task({task}, '{{\"labels\": [\"x\"]}}')")).await;
    assert_eq!(worker.complete(&split).await, "ok");
    assert!(worker.claim("sum", 1).await.is_empty(), "it can't be decided yet");
    holder.run("commit").await;
    assert_eq!(worker.claim_one("sum").await.phase, "reduce");
}

async fn eight_claimers_at_once_share_no_split_and_claim_no_more_than_they_asked_for(db: Arc<TestDb>) {
    let mut hand = Hand::new(&db).await;
    hand.declare("a", "{}").await;
    hand.declare("b", "{}").await;
    hand.run("insert into divvy.task (task_type) select 'a' from generate_series(1, 2000)").await;
    hand.run("insert into divvy.task (task_type, split_count) select 'b', 40 from generate_series(1, 50)")
        .await;
    let barrier = Arc::new(Barrier::new(8));
    let mut working = Vec::new();
    for _ in 0..8 {
        let (barrier, mut hand) = (barrier.clone(), Hand::new(&db).await);
        working.push(tokio::spawn(async move {
            let mut mine = Vec::new();
            barrier.wait().await;
            for round in 0.. {
                // Some claims roll back: what they held is everybody's again.
                let gives_back = round % 5 == 4;
                hand.run("begin").await;
                let got = hand.claim("a,b", 37).await;
                assert!(got.len() <= 37, "asked for 37, got {}", got.len());
                hand.run(if gives_back { "rollback" } else { "commit" }).await;
                if got.is_empty() {
                    break;
                }
                if !gives_back {
                    mine.extend(got.into_iter().map(|s| (s.split_id, s.token)));
                }
            }
            mine
        }));
    }
    let mut holders: HashMap<i64, i64> = HashMap::new();
    for client in working {
        for (split, token) in client.await.unwrap() {
            assert_eq!(holders.insert(split, token), None, "split {split} has two holders");
        }
    }
    // Those that a late rollback gave back, after the others had gone home.
    let left = hand.claim("a,b", 1000).await;
    assert_eq!(holders.len() + left.len(), 4000);
    let tokens: HashSet<i64> = holders.values().copied().collect();
    let leases: i64 = hand
        .get(&format!(
            "select count(*) from (select from divvy.lease where token = any ('{{{}}}')
                group by token having sum(cardinality(split_ids)) <= 37) claims",
            tokens.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        ))
        .await;
    assert_eq!(leases, tokens.len() as i64, "none has more than a claim asked for");
}

#[tokio::test]
async fn a_claim_beside_a_reclaim_never_takes_the_plain_task_twice() {
    claim_beside_reclaim(&TestDb::new().await, "(task_type) values ('x')").await;
}

async fn a_claim_beside_a_reclaim_never_takes_the_split_twice(db: Arc<TestDb>) {
    claim_beside_reclaim(&db, "(task_type, split_count) values ('x', 1)").await;
}

async fn claim_beside_reclaim(db: &TestDb, task: &str) {
    let clock = Clock::stop(db).await;
    let (mut first, mut duty, mut second) = (Hand::new(db).await, Hand::new(db).await, Hand::new(db).await);
    first.declare("x", "{}").await;
    first.insert(task).await;
    let held = first.claim_one("x").await;
    let_time_pass(&clock, &mut duty, 40).await;
    assert_eq!(duty.state(held.split_id).await, "ready");
    let again = first.claim_one("x").await;
    let_time_pass(&clock, &mut duty, 25).await;
    clock.advance(Duration::from_secs(5)).await;
    // Taken back, but not committed: it is nobody's yet.
    duty.run("begin").await;
    assert_eq!(duty.get::<i32>("select divvy.reclaim()").await, 1);
    assert!(second.claim("x", 1).await.is_empty());
    duty.run("commit").await;
    let third = second.claim_one("x").await;
    assert!(first.claim("x", 1).await.is_empty());
    assert_eq!(first.complete(&held).await, "DV001");
    assert_eq!(first.complete(&again).await, "DV001");
    assert_eq!(second.complete(&third).await, "ok");
}

async fn claims_and_reclaims_at_once_let_every_split_end_exactly_once(db: Arc<TestDb>) {
    const TASKS: usize = 150;
    const DIVIDED: usize = 5;
    const SPLITS: usize = TASKS + DIVIDED * 30;
    let clock = Clock::stop(&db).await;
    let mut hand = Hand::new(&db).await;
    hand.declare("x", r#"{"lease": "5 s", "max_attempts": 1000, "max_failed": 1000}"#).await;
    hand.run(&format!(
        "insert into divvy.task (task_type) select 'x' from generate_series(1, {TASKS});
         insert into divvy.task (task_type, split_count) select 'x', 30 from generate_series(1, {DIVIDED})"
    ))
    .await;
    // Nobody renews, and time flies: what is not completed soon is taken away, and put aside after five times.
    let over = Arc::new(AtomicBool::new(false));
    let mut working = Vec::new();
    for _ in 0..4 {
        let (over, mut hand) = (over.clone(), Hand::new(&db).await);
        working.push(tokio::spawn(async move {
            let mut mine = Vec::new();
            while !over.load(Relaxed) {
                let splits = hand.claim("x", 7).await;
                for (split, verdict) in splits.iter().zip(hand.complete_many(&splits).await) {
                    if verdict == "ok" {
                        mine.push(split.split_id);
                    }
                }
                // Some are left to their fate.
                hand.claim("x", 1).await;
            }
            mine
        }));
    }
    let until = Instant::now() + DEADLINE;
    while hand.count("divvy.task where finished_at is null").await > 0 {
        assert!(Instant::now() < until, "some tasks never end");
        clock.advance(Duration::from_secs(5)).await;
        hand.run("select divvy.tick()").await;
        hand.run("update divvy.worker set seen_at = divvy.clock()").await;
    }
    over.store(true, Relaxed);
    let mut all = Vec::new();
    for worker in working {
        all.extend(worker.await.unwrap());
    }
    let distinct: HashSet<i64> = all.iter().copied().collect();
    assert_eq!(all.len(), distinct.len(), "nobody is told ok twice");
    assert!(hand.count("divvy.attempt where outcome = 'expired'").await > 0, "some were taken away");
    assert_eq!(hand.count("divvy.split where status = 'succeeded'").await, all.len() as i64);
    let aside = hand.count("divvy.split where status = 'failed' and reason = 'crashes'").await;
    assert_eq!(all.len() as i64 + aside, SPLITS as i64);
}
