//! The mark below which everything is finished for good: what holds it, what does not, and that nothing which can
//! still be claimed ever lands below it.

mod keys;
mod late;
mod pieces;
mod restart;

use crate::support::db::TestDb;
use crate::support::hand::{Claimed, Hand};
use crate::support::race::{until, until_waiting_for_lock};

/// A pass of the duty; then the mark of the lane of type `x` and priority 2.
pub async fn mark(duty: &mut Hand) -> i64 {
    duty.run("select divvy.advance_low_water()").await;
    duty.run("select divvy.raise_marks('x', null, 0)").await;
    duty.get("select mark from divvy.lane where task_type = 'x' and lane = 2").await
}

pub async fn last_key(duty: &mut Hand) -> i64 {
    duty.get("select last_value from divvy.key").await
}

/// Others make, claim and complete splits, and the mark is given every chance to move.
pub async fn traffic(hand: &mut Hand, duty: &mut Hand) -> i64 {
    let mut reached = 0;
    for _ in 0..3 {
        hand.run("insert into divvy.task (task_type) select 'x' from generate_series(1, 20)").await;
        let splits = hand.claim("x", 20).await;
        let verdicts = hand.complete_many(&splits).await;
        assert!(verdicts.iter().all(|v| v == "ok"));
        reached = mark(duty).await;
    }
    reached
}

async fn bench() -> (TestDb, Hand, Hand) {
    let db = TestDb::new().await;
    let (mut hand, duty) = (Hand::new(&db).await, Hand::new(&db).await);
    hand.declare("x", "{}").await;
    (db, hand, duty)
}

/// Claims until this task comes: a session looks again from the marks now and then.
async fn claims_at_last(hand: &mut Hand, task: i64) -> Claimed {
    let mut found = None;
    until(&format!("task {task} is claimed"), async || {
        let got = hand.claim("x", 10).await;
        assert!(got.iter().all(|s| s.task_id == task), "only {task} is left: {got:?}");
        found = got.into_iter().next();
        found.is_some()
    })
    .await;
    found.expect("it was found")
}

#[tokio::test]
async fn without_open_producers_the_mark_follows_the_keys() {
    let (_db, mut hand, mut duty) = bench().await;
    let reached = traffic(&mut hand, &mut duty).await;
    assert_eq!(reached, last_key(&mut duty).await);
}

#[tokio::test]
async fn the_mark_stops_below_the_first_ready_split() {
    let (_db, mut hand, mut duty) = bench().await;
    traffic(&mut hand, &mut duty).await;
    let waiting = hand.insert("(task_type) values ('x')").await;
    hand.insert("(task_type) values ('x')").await;
    let key: i64 = hand.get(&format!("select key from divvy.task where id = {waiting}")).await;
    for _ in 0..3 {
        assert_eq!(mark(&mut duty).await, key - 1);
    }
}

#[tokio::test]
async fn an_insert_that_waits_for_the_table_takes_its_key_after_the_lock() {
    let (db, mut hand, mut duty) = bench().await;
    let (mut blocker, mut producer) = (Hand::new(&db).await, Hand::new(&db).await);
    traffic(&mut hand, &mut duty).await;
    blocker.run("begin; lock table divvy.task in exclusive mode").await;
    let pid = producer.pid;
    let waiting = tokio::spawn(async move { producer.insert("(task_type) values ('x')").await });
    until_waiting_for_lock(db.pool(), pid).await;
    // Others use keys up meanwhile, and the floor goes over them.
    hand.run("select nextval('divvy.key') from generate_series(1, 50)").await;
    blocker.run("select 1").await;
    let floor = mark(&mut duty).await;
    assert_eq!(floor, last_key(&mut duty).await);
    blocker.run("commit").await;
    let task = waiting.await.unwrap();
    let key: i64 = hand.get(&format!("select key from divvy.task where id = {task}")).await;
    assert!(key > floor, "key {key}, floor {floor}");
    claims_at_last(&mut hand, task).await;
}

#[tokio::test]
async fn a_repeatable_read_producer_takes_a_key_above_the_mark() {
    let (db, mut hand, mut duty) = bench().await;
    let mut producer = Hand::new(&db).await;
    producer.run("begin isolation level repeatable read; select count(*) from divvy.task").await;
    let reached = traffic(&mut hand, &mut duty).await;
    assert_eq!(reached, last_key(&mut duty).await, "its old snapshot holds nothing back");
    let task = producer.insert("(task_type) values ('x')").await;
    let key: i64 = producer.get(&format!("select key from divvy.task where id = {task}")).await;
    assert!(key > reached, "key {key}, mark {reached}");
    let held = traffic(&mut hand, &mut duty).await;
    assert!(held < key, "mark {held} while {key} is not visible");
    producer.run("commit").await;
    mark(&mut duty).await;
    claims_at_last(&mut Hand::new(&db).await, task).await;
}

#[tokio::test]
async fn the_look_sees_a_row_whose_claim_then_rolls_back() {
    let (db, mut hand, mut duty) = bench().await;
    let (mut producer, mut claimer) = (Hand::new(&db).await, Hand::new(&db).await);
    traffic(&mut hand, &mut duty).await;
    let task = hand.insert("(task_type) values ('x')").await;
    let key: i64 = hand.get(&format!("select key from divvy.task where id = {task}")).await;
    // The floor is announced while only the producer writes; the claim comes later and is not waited for.
    producer
        .run("begin; insert into divvy.task (task_type, run_at) values ('y', now() + interval '1 day')")
        .await;
    mark(&mut duty).await;
    claimer.run("begin").await;
    assert_eq!(claimer.claim_one("x").await.task_id, task);
    producer.run("commit").await;
    for _ in 0..3 {
        assert_eq!(mark(&mut duty).await, key - 1, "it may be ready again");
    }
    claimer.run("rollback").await;
    mark(&mut duty).await;
    claims_at_last(&mut Hand::new(&db).await, task).await;
}

#[tokio::test]
async fn a_claim_that_is_not_committed_does_not_let_its_row_slip_below_the_mark() {
    let (db, mut hand, mut duty) = bench().await;
    let mut claimer = Hand::new(&db).await;
    let task = hand.insert("(task_type) values ('x')").await;
    claimer.run("begin").await;
    claimer.claim_one("x").await;
    traffic(&mut hand, &mut duty).await;
    claimer.run("rollback").await;
    mark(&mut duty).await;
    claims_at_last(&mut Hand::new(&db).await, task).await;
}

#[tokio::test]
async fn a_long_reader_of_the_splits_does_not_hold_the_mark() {
    let (db, mut hand, mut duty) = bench().await;
    let mut reader = Hand::new(&db).await;
    reader.run("begin; declare c cursor for select id from divvy.unit; fetch 1 from c").await;
    assert_eq!(traffic(&mut hand, &mut duty).await, last_key(&mut duty).await);
    reader.run("commit").await;
}

#[tokio::test]
async fn a_held_snapshot_does_not_hold_the_mark() {
    let (db, mut hand, mut duty) = bench().await;
    let mut holder = Hand::new(&db).await;
    holder.run("begin isolation level repeatable read; select 1").await;
    assert_eq!(traffic(&mut hand, &mut duty).await, last_key(&mut duty).await);
    holder.run("commit").await;
}

#[tokio::test]
async fn an_idle_transaction_with_an_xid_that_never_touched_splits_does_not_hold_the_mark() {
    let (db, mut hand, mut duty) = bench().await;
    let mut idle = Hand::new(&db).await;
    idle.run("create table public.mine (x int)").await;
    idle.run("begin; insert into public.mine values (1); select pg_current_xact_id()").await;
    assert_eq!(traffic(&mut hand, &mut duty).await, last_key(&mut duty).await);
    idle.run("commit").await;
}

#[tokio::test]
async fn a_producer_that_stays_open_holds_the_mark_and_its_rows_are_claimed_after_its_commit() {
    let (db, mut hand, mut duty) = bench().await;
    let mut producer = Hand::new(&db).await;
    producer.run("begin").await;
    let task = producer.insert("(task_type) values ('x')").await;
    let key: i64 = producer.get(&format!("select key from divvy.task where id = {task}")).await;
    let held = traffic(&mut hand, &mut duty).await;
    assert!(held < key, "mark {held}, key {key}");
    producer.run("commit").await;
    mark(&mut duty).await;
    let mut fresh = Hand::new(&db).await;
    let split = claims_at_last(&mut fresh, task).await;
    assert_eq!(mark(&mut duty).await, key - 1, "claimed, and maybe given back");
    assert_eq!(fresh.complete(&split).await, "ok");
    assert_eq!(mark(&mut duty).await, last_key(&mut duty).await, "and now it moves on");
}

#[tokio::test]
async fn a_worker_that_stays_in_its_transaction_holds_the_mark_no_longer_than_it_lasts() {
    let (db, mut hand, mut duty) = bench().await;
    let mut worker = Hand::new(&db).await;
    hand.insert("(task_type) values ('x')").await;
    let split = worker.claim_one("x").await;
    worker.run("begin").await;
    assert_eq!(worker.complete(&split).await, "ok");
    traffic(&mut hand, &mut duty).await;
    worker.run("rollback").await;
    assert_eq!(worker.complete(&split).await, "ok", "rolled back: it is still held");
    assert_eq!(traffic(&mut hand, &mut duty).await, last_key(&mut duty).await);
}

#[tokio::test]
async fn a_straggler_is_found_by_a_session_whose_position_has_passed_it() {
    let (db, mut hand, mut duty) = bench().await;
    let mut producer = Hand::new(&db).await;
    producer.run("begin").await;
    let task = producer.insert("(task_type) values ('x')").await;
    traffic(&mut hand, &mut duty).await;
    let passed: String = hand
        .get("select current_setting('divvy.position_' || no) from divvy.task_type where name = 'x'")
        .await;
    producer.run("commit").await;
    let key: i64 = hand.get(&format!("select key from divvy.task where id = {task}")).await;
    let lane_2: i64 = passed.trim_start_matches('{').split(',').nth(2).unwrap().parse().unwrap();
    assert!(lane_2 > key, "the session is at {lane_2}, behind {key}");
    claims_at_last(&mut hand, task).await;
}

#[tokio::test]
async fn a_straggler_is_found_also_by_a_session_that_always_finds_enough() {
    let (db, mut hand, mut duty) = bench().await;
    let mut producer = Hand::new(&db).await;
    producer.run("begin").await;
    let task = producer.insert("(task_type) values ('x')").await;
    traffic(&mut hand, &mut duty).await;
    producer.run("commit").await;
    hand.run("insert into divvy.task (task_type) select 'x' from generate_series(1, 100000)").await;
    until("the straggler is claimed between others", async || hand.claim_one("x").await.task_id == task)
        .await;
}

#[tokio::test]
async fn two_who_advance_the_mark_at_once_do_not_disturb_each_other() {
    let (db, mut hand, mut duty) = bench().await;
    let mut other = Hand::new(&db).await;
    traffic(&mut hand, &mut duty).await;
    hand.run("insert into divvy.task (task_type) values ('x')").await;
    let split = hand.claim_one("x").await;
    assert_eq!(hand.complete(&split).await, "ok");
    other.run("begin; select divvy.advance_low_water()").await;
    duty.run("set lock_timeout = '5 s'").await;
    assert_eq!(duty.get::<i32>("select divvy.advance_low_water()").await, 0, "somebody is at it");
    other.run("rollback").await;
    assert_eq!(mark(&mut duty).await, last_key(&mut duty).await);
}
