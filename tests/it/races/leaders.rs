//! Two who tick at once: each effect once, and neither waits for the other.

use crate::support::both::over_both;
use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::Hand;
use crate::support::race::until_waiting_for_lock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Barrier;

over_both! {
    two_leaders_at_once_do_everything_once,
    two_ticks_one_behind_the_other_never_wait_for_each_other,
    a_small_tick_between_two_duties_of_a_leader_is_not_waited_for,
}

/// Every duty has something to do.
async fn plenty_to_do(hand: &mut Hand, holder: &mut Hand, clock: &Clock) {
    hand.declare("x", r#"{"reduce": true, "lease": "30 s"}"#).await;
    hand.declare("fired", "{}").await;
    hand.declare("paused", "{}").await;
    hand.run("insert into divvy.task (task_type, run_at) select 'x', divvy.clock() + interval '50 s' from generate_series(1, 300)")
        .await;
    hand.run(
        "insert into divvy.schedule (name, task_type, run_at)
         select 's' || i, 'fired', divvy.clock() + interval '50 s' from generate_series(1, 50) i",
    )
    .await;
    hand.run("insert into divvy.task (task_type) select 'x' from generate_series(1, 200)").await;
    let splits = hand.claim("x", 200).await;
    let (lost, done) = splits.split_at(100);
    assert_eq!(lost.len(), 100);
    // Ended, and their reduces not noticed, because somebody held the tasks.
    holder.run("begin; select from divvy.task for update").await;
    assert!(hand.complete_many(done).await.iter().all(|v| v == "ok"));
    holder.run("commit").await;
    assert_eq!(hand.count("divvy.task where phase = 'reduce'").await, 0);
    hand.run("select divvy.pause('paused', divvy.clock() + interval '50 s', 'a while')").await;
    hand.run("select divvy.reclaim()").await;
    for _ in 0..11 {
        clock.advance(Duration::from_secs(5)).await;
        // Only the pulse: nothing of it is done before the race.
        hand.run("update divvy.pulse set reclaimed_at = divvy.clock()").await;
    }
}

async fn two_leaders_at_once_do_everything_once(db: Arc<TestDb>) {
    let clock = Clock::stop(&db).await;
    let mut hand = Hand::new(&db).await;
    plenty_to_do(&mut hand, &mut Hand::new(&db).await, &clock).await;
    let barrier = Arc::new(Barrier::new(2));
    let mut ticking = Vec::new();
    for _ in 0..2 {
        let (barrier, mut hand) = (barrier.clone(), Hand::new(&db).await);
        ticking.push(tokio::spawn(async move {
            for _ in 0..5 {
                barrier.wait().await;
                hand.run("select divvy.tick(40)").await;
                hand.run("select divvy.next_wait('{x,fired}')").await;
            }
            for _ in 0..10 {
                hand.run("select divvy.tick(500)").await;
            }
        }));
    }
    for leader in ticking {
        leader.await.unwrap();
    }
    assert_eq!(hand.count("divvy.task where task_type = 'fired'").await, 50, "each moment makes one task");
    assert_eq!(hand.count("divvy.schedule where status = 'done' and runs = 1").await, 50);
    assert_eq!(hand.count("divvy.attempt where outcome = 'expired'").await, 100, "each lease ends once");
    assert_eq!(
        hand.count("divvy.split where status = 'ready' and phase = 'execute' and attempt = 1").await,
        100
    );
    assert_eq!(hand.count("divvy.task where phase = 'reduce'").await, 100, "each reduce opens once");
    assert_eq!(
        hand.count("divvy.split where phase = 'execute' and task_type = 'x'").await,
        200 + 300,
        "each scheduled task starts once"
    );
    assert_eq!(hand.count("divvy.task_type where paused_until is not null").await, 0);
    assert_eq!(hand.count("divvy.event where verb in ('settle', 'fire')").await, 0, "nothing went wrong");
}

async fn two_ticks_one_behind_the_other_never_wait_for_each_other(db: Arc<TestDb>) {
    let clock = Clock::stop(&db).await;
    let (mut first, mut second) = (Hand::new(&db).await, Hand::new(&db).await);
    plenty_to_do(&mut first, &mut second, &clock).await;
    first.run("begin").await;
    first.run("select divvy.tick(40)").await;
    second.run("set lock_timeout = '5 s'").await;
    second.run("select divvy.tick(40)").await;
    second.run("select divvy.next_wait('{x,fired}')").await;
    first.run("commit").await;
}

async fn a_small_tick_between_two_duties_of_a_leader_is_not_waited_for(db: Arc<TestDb>) {
    let clock = Clock::stop(&db).await;
    let (mut leader, mut worker) = (Hand::new(&db).await, Hand::new(&db).await);
    plenty_to_do(&mut leader, &mut worker, &clock).await;
    // What a small tick does first, then what a leader does first: now each would need the other's rows.
    worker.run("begin; select from divvy.pulse for update").await;
    leader
        .run("begin; set local lock_timeout = '5 s'; select divvy.promote(); select divvy.reclaim(); commit")
        .await;
    worker.run("set local lock_timeout = '5 s'; select divvy.tick(); commit").await;
}

#[tokio::test]
async fn a_tick_waits_for_no_claim_that_is_not_committed() {
    let db = TestDb::new().await;
    let (mut worker, mut leader) = (Hand::new(&db).await, Hand::new(&db).await);
    worker.declare("x", "{}").await;
    let task = worker.insert("(task_type) values ('x')").await;
    worker.run("begin").await;
    worker.claim_one("x").await;
    // The pause waits for the claim; what it can't have had is for the ticks, which don't wait.
    leader.run("set lock_timeout = '5 s'").await;
    let mut operator = Hand::new(&db).await;
    let (pid, pause) = (operator.pid, format!("select divvy.pause_task({task}, null, 'a while')"));
    let pausing = tokio::spawn(async move { operator.run(&pause).await });
    until_waiting_for_lock(db.pool(), pid).await;
    worker.run("rollback").await;
    pausing.await.unwrap();
    worker.run("begin").await;
    worker
        .run(&format!("update divvy.task set state = 'ready', key = nextval('divvy.key') where id = {task}"))
        .await;
    leader.run("select divvy.tick()").await;
    worker.run("commit").await;
    leader.run("select divvy.tick()").await;
    assert_eq!(leader.state(task).await, "delayed");
}
