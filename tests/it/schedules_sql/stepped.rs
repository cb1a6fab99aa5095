//! What counts from the end of the run before, and what stops with the first success.

use super::{fired, ledger, pass, state};
use crate::support::clock::Clock;
use crate::support::queue::Queue;
use std::time::Duration;

async fn with(columns: &str, values: &str) -> (Queue, Clock) {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run(format!("insert into divvy.schedule (name, task_type, {columns}) values ('s', 'a', {values})"))
        .await;
    (q, clock)
}

async fn after(q: &mut Queue, clock: &Clock, seconds: u64) {
    clock.advance(Duration::from_secs(seconds)).await;
    q.tick().await;
}

#[tokio::test]
async fn steps_anchored_at_the_previous_end_count_from_there() {
    // Not growing, as offsets from the creation have to be.
    let (mut q, clock) = with("steps, anchor", "'{5 s,5 s,0,10 s}', 'previous_end'").await;
    after(&mut q, &clock, 5).await;
    let split = q.claim("a").await;
    after(&mut q, &clock, 20).await;
    assert_eq!(fired(&mut q, "s").await, [5], "nothing comes while a run is open");
    q.stop(&split).await;
    after(&mut q, &clock, 4).await;
    assert_eq!(fired(&mut q, "s").await, [5]);
    after(&mut q, &clock, 1).await;
    assert_eq!(fired(&mut q, "s").await, [5, 30]);
    clock.advance(Duration::from_secs(1)).await;
    q.work("a").await;
    q.tick().await;
    assert_eq!(fired(&mut q, "s").await, [5, 30, 31], "no wait means at once");
    q.work("a").await;
    after(&mut q, &clock, 10).await;
    assert_eq!(fired(&mut q, "s").await, [5, 30, 31, 41]);
    assert_eq!(state(&mut q, "s").await, "done");
}

#[tokio::test]
async fn a_fixed_delay_counts_from_the_end_of_the_run_before() {
    let (mut q, clock) = with("every, anchor", "'10 s', 'previous_end'").await;
    pass(&mut q, &clock, 10).await;
    after(&mut q, &clock, 7).await;
    assert_eq!(fired(&mut q, "s").await, [10]);
    pass(&mut q, &clock, 20).await;
    assert_eq!(fired(&mut q, "s").await, [10, 20, 30], "its first run ended at once");
    clock.advance(Duration::from_secs(3)).await;
    q.tick().await;
    let split = q.claim("a").await;
    assert_eq!(fired(&mut q, "s").await, [10, 20, 30, 40]);
    after(&mut q, &clock, 33).await;
    q.complete(&split).await;
    after(&mut q, &clock, 9).await;
    assert_eq!(fired(&mut q, "s").await.len(), 4);
    after(&mut q, &clock, 1).await;
    assert_eq!(fired(&mut q, "s").await[4], 83);
}

#[tokio::test]
async fn a_fixed_delay_goes_on_when_no_task_was_made() {
    let (mut q, clock) = with("every, anchor, dedupe_key", "'10 s', 'previous_end', 'k'").await;
    let other: i64 =
        q.one("insert into divvy.task (task_type, dedupe_key) values ('a', 'k') returning id").await;
    after(&mut q, &clock, 10).await;
    after(&mut q, &clock, 10).await;
    assert_eq!(ledger(&mut q, "s").await, [(10, "skipped".to_owned()), (20, "skipped".to_owned())]);
    q.run(format!("select divvy.cancel({other})")).await;
    after(&mut q, &clock, 10).await;
    assert_eq!(ledger(&mut q, "s").await[2], (30, "fired".into()));
}

#[tokio::test]
async fn the_first_success_leaves_a_row_for_what_was_due() {
    let (mut q, clock) =
        with("steps, stop_on_success, overlap", "'{1 s,2 s,3 s,1 min}', true, 'buffer_all'").await;
    after(&mut q, &clock, 1).await;
    after(&mut q, &clock, 1).await;
    assert_eq!(ledger(&mut q, "s").await, [(1, "fired".to_owned()), (2, "waiting".to_owned())]);
    let split = q.claim("a").await;
    clock.advance(Duration::from_secs(1)).await;
    q.complete(&split).await;
    let reasons: Vec<String> =
        q.all("select outcome || ' ' || reason from divvy.schedule_fire where outcome <> 'fired' order by fire_at").await;
    assert_eq!(
        reasons,
        [
            format!("skipped task {} succeeded", split.task_id),
            format!("skipped task {} succeeded", split.task_id)
        ]
    );
    assert_eq!(state(&mut q, "s").await, "done");
    after(&mut q, &clock, 100).await;
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 1);
}

#[tokio::test]
async fn a_success_beside_a_fire_is_not_waited_for_and_stops_the_rest() {
    let (mut q, clock) = with("steps, stop_on_success, overlap", "'{1 s,2 s,1 min}', true, 'allow'").await;
    after(&mut q, &clock, 1).await;
    let split = q.claim("a").await;
    let mut leader = crate::support::hand::Hand::new(&q.db).await;
    clock.advance(Duration::from_secs(1)).await;
    leader.run("begin; select divvy.fire_due()").await;
    q.run("set lock_timeout = '1 s'").await;
    q.complete(&split).await;
    leader.run("commit").await;
    assert_eq!(fired(&mut q, "s").await, [1, 2], "that fire was first");
    after(&mut q, &clock, 60).await;
    assert_eq!(state(&mut q, "s").await, "done");
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 2);
}
