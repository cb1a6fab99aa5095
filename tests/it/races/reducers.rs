//! Two who believe that they reduce the same task.

use crate::lease::let_time_pass;
use crate::support::both::over_both;
use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::{Claimed, Hand};
use std::sync::Arc;

over_both! {
    of_two_reducers_the_one_whose_lease_was_lost_is_refused_with_its_writes,
    of_two_reducers_at_once_exactly_one_commits,
}

/// A reduce that was taken from the first worker and given to the second.
async fn two_reducers(db: &TestDb) -> (i64, (Hand, Claimed), (Hand, Claimed)) {
    let clock = Clock::stop(db).await;
    let (mut zombie, mut holder) = (Hand::new(db).await, Hand::new(db).await);
    zombie.run("create table public.effect (who text)").await;
    zombie.declare("sum", r#"{"reduce": true}"#).await;
    let task = zombie.divided("sum", 1).await;
    let split = zombie.claim_one("sum").await;
    assert_eq!(zombie.complete(&split).await, "ok");
    let first = zombie.claim_one("sum").await;
    let_time_pass(&clock, &mut holder, 40).await;
    let second = holder.claim_one("sum").await;
    assert_eq!((first.split_id, first.phase.as_str()), (second.split_id, "reduce"));
    (task, (zombie, first), (holder, second))
}

async fn of_two_reducers_the_one_whose_lease_was_lost_is_refused_with_its_writes(db: Arc<TestDb>) {
    let (task, (mut zombie, old), (mut holder, new)) = two_reducers(&db).await;
    zombie.run("begin; insert into public.effect values ('zombie')").await;
    assert_eq!(zombie.complete(&old).await, "DV001");
    zombie.run("rollback").await;
    holder.run("begin; insert into public.effect values ('holder')").await;
    assert_eq!(holder.complete(&new).await, "ok");
    holder.run("commit").await;
    assert_eq!(holder.all::<String>("select who from public.effect").await, ["holder"]);
    assert_eq!(holder.status(task).await, "succeeded");
}

async fn of_two_reducers_at_once_exactly_one_commits(db: Arc<TestDb>) {
    let (task, (mut zombie, old), (mut holder, new)) = two_reducers(&db).await;
    holder.run("begin; insert into public.effect values ('holder')").await;
    assert_eq!(holder.complete(&new).await, "ok");
    zombie.run("begin; insert into public.effect values ('zombie')").await;
    assert_eq!(zombie.complete(&old).await, "DV001", "whatever becomes of the holder");
    zombie.run("rollback").await;
    holder.run("commit").await;
    assert_eq!(holder.all::<String>("select who from public.effect").await, ["holder"]);
    assert_eq!(holder.status(task).await, "succeeded");
}

#[tokio::test]
async fn a_reduce_that_is_just_being_completed_is_not_reclaimed() {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    let (mut worker, mut duty) = (Hand::new(&db).await, Hand::new(&db).await);
    worker.declare("sum", r#"{"reduce": true}"#).await;
    let task = worker.divided("sum", 0).await;
    let reduce = worker.claim_one("sum").await;
    worker.run("begin").await;
    assert_eq!(worker.complete(&reduce).await, "ok");
    let_time_pass(&clock, &mut duty, 60).await;
    worker.run("commit").await;
    assert_eq!((duty.status(task).await.as_str(), duty.count("divvy.attempt").await), ("succeeded", 0));
}

#[tokio::test]
async fn a_reduce_completed_twice_counts_once() {
    let db = TestDb::new().await;
    let mut worker = Hand::new(&db).await;
    worker.declare("sum", r#"{"reduce": true}"#).await;
    worker.divided("sum", 0).await;
    let reduce = worker.claim_one("sum").await;
    assert_eq!(worker.complete(&reduce).await, "ok");
    assert_eq!(worker.complete(&reduce).await, "DV001");
    assert_eq!(worker.complete_many(&[reduce]).await, ["already"]);
}
