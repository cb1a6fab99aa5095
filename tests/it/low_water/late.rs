//! Transactions that have written splits and stay open: marks go on without them, and what they wrote comes to light
//! once they end.

use super::{bench, claims_at_last, last_key, mark, traffic};
use crate::support::db::TestDb;
use crate::support::hand::Hand;
use crate::support::race::until;

/// Others work until the mark has passed a key that an open transaction has taken.
async fn mark_passes(hand: &mut Hand, duty: &mut Hand, key: i64) {
    until("the mark goes on without the late writer", async || traffic(hand, duty).await > key).await;
}

async fn key_of(hand: &mut Hand, task: i64) -> i64 {
    hand.get(&format!("select key from divvy.task where id = {task}")).await
}

/// Nothing is left to look for, and the mark is where the keys are.
async fn all_is_passed(duty: &mut Hand) {
    assert_eq!(mark(duty).await, last_key(duty).await);
    for table in ["late_writer", "sweep", "behind"] {
        assert_eq!(duty.count(&format!("divvy.{table}")).await, 0, "divvy.{table}");
    }
}

/// An open producer with a key that the mark has passed.
async fn late() -> (TestDb, Hand, Hand, Hand, i64) {
    let (db, mut hand, mut duty) = bench().await;
    let mut producer = Hand::new(&db).await;
    producer.run("begin").await;
    let task = producer.insert("(task_type) values ('x')").await;
    let key = key_of(&mut producer, task).await;
    mark_passes(&mut hand, &mut duty, key).await;
    (db, hand, duty, producer, task)
}

#[tokio::test]
async fn a_producer_that_stays_open_holds_the_mark_for_a_second_and_its_split_comes_to_old_and_new_sessions()
{
    for fresh in [false, true] {
        let (db, mut hand, mut duty, mut producer, task) = late().await;
        producer.run("commit").await;
        assert!(hand.claim("x", 10).await.is_empty(), "nobody has noticed its end");
        mark(&mut duty).await;
        if fresh {
            hand = Hand::new(&db).await;
        }
        assert_eq!(hand.get::<String>("select divvy.next_wait('{x}')::text").await, "00:00:00");
        let split = claims_at_last(&mut hand, task).await;
        mark(&mut duty).await;
        assert_eq!(duty.count("divvy.behind").await, 1, "it may be given back");
        hand.run(&format!("select divvy.release({}, {})", split.split_id, split.token)).await;
        let split = claims_at_last(&mut hand, task).await;
        assert_eq!(hand.complete(&split).await, "ok");
        all_is_passed(&mut duty).await;
    }
}

#[tokio::test]
async fn a_late_writer_that_rolls_back_leaves_nothing() {
    let (_db, mut hand, mut duty, mut producer, _) = late().await;
    producer.run("rollback").await;
    mark(&mut duty).await;
    assert!(hand.claim("x", 10).await.is_empty());
    all_is_passed(&mut duty).await;
}

#[tokio::test]
async fn of_two_late_writers_each_is_looked_for_when_it_ends() {
    let (db, mut hand, mut duty, mut first, task) = late().await;
    let mut second = Hand::new(&db).await;
    second.run("begin").await;
    let other = second.insert("(task_type) values ('x')").await;
    let key = key_of(&mut second, other).await;
    mark_passes(&mut hand, &mut duty, key).await;
    // The first goes on writing, behind the second's keys.
    let more = first.insert("(task_type) values ('x')").await;
    let key = key_of(&mut first, more).await;
    mark_passes(&mut hand, &mut duty, key).await;
    second.run("commit").await;
    mark(&mut duty).await;
    let split = claims_at_last(&mut hand, other).await;
    assert_eq!(hand.complete(&split).await, "ok");
    first.run("commit").await;
    mark(&mut duty).await;
    let mut got = Vec::new();
    until("both of the first are claimed", async || {
        got.extend(hand.claim("x", 10).await);
        got.len() == 2
    })
    .await;
    assert_eq!(got.iter().map(|s| s.task_id).collect::<Vec<_>>(), [task, more]);
    assert!(hand.complete_many(&got).await.iter().all(|v| v == "ok"));
    all_is_passed(&mut duty).await;
}

#[tokio::test]
async fn a_late_writer_that_is_prepared_stays_late_until_it_is_committed() {
    // With its id known while it was open, and with none: it had written nothing yet.
    for written in [true, false] {
        let (db, mut hand, mut duty) = bench().await;
        let mut producer = Hand::new(&db).await;
        producer.run("set divvy.notify = off; begin; lock table divvy.task in row exclusive mode").await;
        let mut task = 0;
        if written {
            task = producer.insert("(task_type) values ('x')").await;
        }
        let before = last_key(&mut duty).await;
        mark_passes(&mut hand, &mut duty, before).await;
        if !written {
            task = producer.insert("(task_type) values ('x')").await;
        }
        let key = key_of(&mut producer, task).await;
        let name = format!("late-{}", db.name());
        producer.run(&format!("prepare transaction '{name}'")).await;
        mark_passes(&mut hand, &mut duty, key).await;
        assert_eq!(duty.count("divvy.late_writer").await, 1);
        assert_eq!(duty.count("divvy.sweep").await, 0);
        hand.run(&format!("commit prepared '{name}'")).await;
        mark(&mut duty).await;
        let split = claims_at_last(&mut hand, task).await;
        assert_eq!(hand.complete(&split).await, "ok");
        all_is_passed(&mut duty).await;
    }
}

#[tokio::test]
async fn ten_thousand_late_splits_of_all_kinds_are_claimed_once_each() {
    let (db, mut hand, mut duty) = bench().await;
    let mut producer = Hand::new(&db).await;
    producer.run("begin; insert into divvy.task (task_type) select 'x' from generate_series(1, 5000)").await;
    producer.divided_into_rows("x", 1_000).await;
    producer.divided("x", 4_000).await;
    let key = last_key(&mut duty).await;
    mark_passes(&mut hand, &mut duty, key).await;
    producer.run("commit").await;
    mark(&mut duty).await;
    let mut done = 0;
    until("all are claimed", async || {
        let got = hand.claim("x", 500).await;
        done += got.len();
        assert!(hand.complete_many(&got).await.iter().all(|v| v == "ok"));
        mark(&mut duty).await;
        done >= 10_000
    })
    .await;
    assert!(hand.claim("x", 1).await.is_empty());
    assert_eq!(hand.count("divvy.split where status <> 'succeeded'").await, 0);
    all_is_passed(&mut duty).await;
}

#[tokio::test]
async fn late_splits_of_a_type_with_limits_come_within_its_limits() {
    let (db, mut hand, mut duty) = bench().await;
    hand.run("select divvy.put_task_type('x', '{\"max_running_per_group\": 1}')").await;
    let mut producer = Hand::new(&db).await;
    producer.run("begin").await;
    let one = producer.insert("(task_type, group_key) values ('x', 'a')").await;
    let two = producer.insert("(task_type, group_key) values ('x', 'a')").await;
    let key = key_of(&mut producer, two).await;
    mark_passes(&mut hand, &mut duty, key).await;
    producer.run("commit").await;
    mark(&mut duty).await;
    for task in [one, two] {
        let split = claims_at_last(&mut hand, task).await;
        assert!(hand.claim("x", 10).await.is_empty(), "one of its group runs");
        assert_eq!(hand.complete(&split).await, "ok");
    }
    mark(&mut duty).await;
    all_is_passed(&mut duty).await;
}

#[tokio::test]
async fn what_two_late_writers_left_is_claimed_once_by_a_claim_that_looks_everywhere() {
    let (db, mut hand, mut duty, mut first, task) = late().await;
    let mut second = Hand::new(&db).await;
    second.run("begin").await;
    let other = second.insert("(task_type) values ('x')").await;
    let more = first.insert("(task_type) values ('x')").await;
    let key = key_of(&mut first, more).await;
    mark_passes(&mut hand, &mut duty, key).await;
    // Each is looked for by itself, over the same keys.
    for producer in [&mut second, &mut first] {
        producer.run("commit").await;
        mark(&mut duty).await;
        duty.run("select nextval('divvy.key') from generate_series(1, 10)").await;
        mark(&mut duty).await;
    }
    let mut got = Vec::new();
    until("all are claimed", async || {
        got.extend(hand.claim("x", 1_000).await.iter().map(|s| s.task_id));
        got.len() >= 3
    })
    .await;
    got.sort_unstable();
    assert_eq!(got, [task, other, more]);
    assert!(hand.claim("x", 1_000).await.is_empty());
}
