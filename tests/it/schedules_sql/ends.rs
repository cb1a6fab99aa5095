//! A schedule ends while moments of it are due that no planner has named: each gets its row all the same.

use crate::support::clock::Clock;
use crate::support::queue::Queue;
use divvy::leader::Duty;
use divvy::store::Store;
use std::time::Duration;

async fn plan_and_fire(q: &Queue) {
    Duty::Fire.run_once(&Store::new(q.db.pool().clone())).await.unwrap();
}

/// A cron schedule of this rule that ran for so many seconds without a planner, and was cancelled by SQL.
async fn cancelled_after(cron: &str, seconds: u64) -> (Queue, Clock) {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run("update divvy_test.clock set at = date_trunc('minute', at)").await;
    q.run(format!("insert into divvy.schedule (name, task_type, cron) values ('s', 'a', '{cron}')")).await;
    clock.advance(Duration::from_secs(seconds)).await;
    q.run("select divvy.cancel_schedule('s', 'over')").await;
    assert_eq!(super::state(&mut q, "s").await, "cancelled");
    (q, clock)
}

async fn skipped(q: &mut Queue) -> Vec<i32> {
    let rows = super::ledger(q, "s").await;
    assert!(rows.iter().all(|(_, outcome)| outcome == "skipped"), "{rows:?}");
    rows.into_iter().map(|(at, _)| at).collect()
}

#[tokio::test]
async fn what_was_due_at_a_cancel_is_skipped_when_a_planner_has_named_it() {
    let (mut q, clock) = cancelled_after("* * * * *", 305).await;
    assert_eq!(skipped(&mut q).await, [0; 0]);
    clock.advance(Duration::from_secs(600)).await;
    plan_and_fire(&q).await;
    assert_eq!(skipped(&mut q).await, [60, 120, 180, 240, 300], "what came after the cancel was not due");
    let reasons: Vec<String> = q.all("select distinct reason from divvy.schedule_fire").await;
    assert_eq!(reasons, ["over"]);
    plan_and_fire(&q).await;
    let left: i64 = q
        .one("select (select count(*) from divvy.schedules_to_plan()) + (select count(*) from divvy.task)")
        .await;
    assert_eq!((skipped(&mut q).await.len(), left), (5, 0));
}

#[tokio::test]
async fn more_than_can_be_named_at_a_cancel_are_counted() {
    let (mut q, _clock) = cancelled_after("* * * * * *", 36_000).await;
    for _ in 0..3 {
        plan_and_fire(&q).await;
    }
    assert_eq!(q.one::<i64>("select sum(count) from divvy.schedule_fire").await, 36_000);
    assert_eq!(q.one::<i64>("select count(*) from divvy.schedules_to_plan()").await, 0);
}

#[tokio::test]
async fn a_rule_that_cannot_be_read_names_nothing_when_it_was_cancelled() {
    let (mut q, _clock) = cancelled_after("99 * * * *", 305).await;
    plan_and_fire(&q).await;
    assert_eq!(skipped(&mut q).await, [0; 0]);
    assert_eq!(super::state(&mut q, "s").await, "cancelled");
    assert_eq!(q.last_event("schedule", "s").await.verb, "cancel_schedule");
    assert_eq!(q.one::<i64>("select count(*) from divvy.schedules_to_plan()").await, 0);
}

#[tokio::test]
async fn a_first_success_ends_it_with_a_row_for_each_moment_up_to_then() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run("update divvy_test.clock set at = date_trunc('minute', at)").await;
    q.run("insert into divvy.schedule (name, task_type, cron, stop_on_success) values ('s', 'a', '* * * * *', true)").await;
    plan_and_fire(&q).await;
    clock.advance(Duration::from_secs(61)).await;
    plan_and_fire(&q).await;
    // Ten minutes are planned ahead; this is longer.
    clock.advance(Duration::from_secs(1_500)).await;
    q.work("a").await;
    plan_and_fire(&q).await;
    assert_eq!(super::state(&mut q, "s").await, "done");
    let rows = super::ledger(&mut q, "s").await;
    let expected: Vec<(i32, String)> =
        (1..=26).map(|i| (i * 60, if i == 1 { "fired" } else { "skipped" }.to_owned())).collect();
    assert_eq!(rows, expected);
}
