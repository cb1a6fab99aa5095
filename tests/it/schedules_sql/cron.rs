//! Cron: SQL keeps the moments, a planner computes them.

use super::state;
use crate::support::clock::Clock;
use crate::support::queue::Queue;
use std::time::Duration;

/// What the planner is told.
async fn waiting(q: &mut Queue) -> Vec<(i64, String, String)> {
    q.rows("select schedule_id, cron, timezone from divvy.schedules_to_plan()").await
}

async fn plan(q: &mut Queue, seconds: u32) -> bool {
    q.one(format!(
        "select divvy.plan_schedule(schedule_id, planned_from, array[planned_from + interval '{seconds} s'], planned_from + interval '{seconds} s')
         from divvy.schedules_to_plan()"
    ))
    .await
}

#[tokio::test]
async fn a_cron_schedule_waits_for_its_planner_before_every_moment() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    let id: i64 = q
        .one("insert into divvy.schedule (name, task_type, cron, timezone) values ('s', 'a', '*/5 * * * *', 'Europe/Berlin') returning id")
        .await;
    clock.advance(Duration::from_secs(1)).await;
    q.tick().await;
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 0, "unplanned, it does not fire");
    assert_eq!(waiting(&mut q).await, [(id, "*/5 * * * *".into(), "Europe/Berlin".into())]);
    assert!(plan(&mut q, 5).await);
    assert!(waiting(&mut q).await.is_empty());
    clock.advance(Duration::from_secs(4)).await;
    q.tick().await;
    assert_eq!(super::fired(&mut q, "s").await, [5], "counted from the creation, not from the planning");
    assert_eq!(waiting(&mut q).await.len(), 1, "the next moment is to be planned");
    let from: bool = q
        .one("select p.planned_from = s.fired_through from divvy.schedules_to_plan() p join divvy.schedule s on s.id = p.schedule_id")
        .await;
    assert!(from);
}

#[tokio::test]
async fn of_two_planners_one_is_believed() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run("insert into divvy.schedule (name, task_type, cron) values ('s', 'a', '* * * * *')").await;
    q.run("create temp table seen as select schedule_id, planned_from from divvy.schedules_to_plan()").await;
    let plan_seen = "select divvy.plan_schedule(schedule_id, planned_from, array[planned_from + interval '10 s'], planned_from + interval '10 s') from seen";
    assert!(q.one::<bool>(plan_seen).await);
    assert!(!q.one::<bool>(plan_seen).await, "it is planned already");
    clock.advance(Duration::from_secs(10)).await;
    q.tick().await;
    assert!(!q.one::<bool>(plan_seen).await, "that moment is decided, an old plan can't bring it back");
    assert_eq!(super::fired(&mut q, "s").await, [10]);
    q.run("select divvy.pause_schedule('s')").await;
    assert!(
        !q.one::<bool>("select divvy.plan_schedule(schedule_id, now(), array[now()]) from seen").await,
        "a paused one is not planned"
    );
}

#[tokio::test]
async fn moments_missed_before_the_planned_one_are_recorded() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run("insert into divvy.schedule (name, task_type, cron) values ('s', 'a', '* * * * *')").await;
    clock.advance(Duration::from_secs(35)).await;
    q.run(
        "select divvy.plan_schedule(schedule_id, planned_from, array[planned_from + interval '10 s',
            planned_from + interval '20 s', planned_from + interval '30 s', planned_from + interval '40 s'], planned_from + interval '40 s') from divvy.schedules_to_plan()",
    )
    .await;
    q.tick().await;
    let expected: Vec<(i32, String)> =
        vec![(10, "missed".into()), (20, "missed".into()), (30, "fired".into())];
    assert_eq!(super::ledger(&mut q, "s").await, expected);
}

#[tokio::test]
async fn a_cron_that_the_parser_refuses_is_shown_so_and_can_only_be_cancelled() {
    let mut q = Queue::with_types(&["a"]).await;
    let id: i64 = q
        .one(
            "insert into divvy.schedule (name, task_type, cron) values ('s', 'a', '99 * * * *') returning id",
        )
        .await;
    q.run(format!("select divvy.refuse_schedule({id}, 'minute 99 is not 0 to 59')")).await;
    assert_eq!(state(&mut q, "s").await, "refused");
    let event = q.last_event("schedule", "s").await;
    assert_eq!(
        (event.verb.as_str(), event.reason.as_deref()),
        ("refuse_schedule", Some("minute 99 is not 0 to 59"))
    );
    for call in ["pause_schedule", "resume_schedule"] {
        q.refused(format!("select divvy.{call}('s')")).await.says("DV004", &["schedule s", "minute 99"]);
    }
    assert!(waiting(&mut q).await.is_empty());
    q.refused(format!("select divvy.refuse_schedule({id}, 'again')")).await.says("DV011", &[&id.to_string()]);
    q.run("select divvy.cancel_schedule('s')").await;
    assert_eq!(state(&mut q, "s").await, "cancelled");
}

#[tokio::test]
async fn a_cron_without_a_further_moment_is_done() {
    let mut q = Queue::with_types(&["a"]).await;
    q.run("insert into divvy.schedule (name, task_type, cron) values ('s', 'a', '0 0 1 1 * 2020')").await;
    q.run("select divvy.plan_schedule(schedule_id, planned_from, null) from divvy.schedules_to_plan()").await;
    assert_eq!(state(&mut q, "s").await, "done");
}
