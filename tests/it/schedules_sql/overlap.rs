//! A moment comes while the run before it is open.

use super::{ledger, state};
use crate::support::clock::Clock;
use crate::support::hand::Hand;
use crate::support::queue::Queue;
use serde_json::json;
use std::time::Duration;

/// A schedule every 10 s with that overlap, and a clock that stands.
async fn every_ten(overlap: &str, more: &str) -> (Queue, Clock) {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    let (columns, values) =
        more.split_once(" = ").map_or((String::new(), String::new()), |(column, value)| {
            (format!(", {column}"), format!(", {value}"))
        });
    q.run(format!(
        "insert into divvy.schedule (name, task_type, every, overlap{columns}) values ('s', 'a', '10 s', '{overlap}'{values})"
    ))
    .await;
    (q, clock)
}

/// Lets `times` moments come, with a tick each.
async fn moments(q: &mut Queue, clock: &Clock, times: u32) {
    for _ in 0..times {
        clock.advance(Duration::from_secs(10)).await;
        q.tick().await;
    }
}

/// The ledger in one word a row.
async fn outcomes(q: &mut Queue) -> Vec<String> {
    let rows = ledger(q, "s").await;
    assert!(rows.iter().enumerate().all(|(i, row)| row.0 == 10 * (i as i32 + 1)), "{rows:?}");
    assert_eq!(
        q.one::<i64>("select count(*) from divvy.event where verb = 'fire'").await,
        0,
        "nothing went wrong"
    );
    rows.into_iter().map(|(_, outcome)| outcome).collect()
}

async fn reasons(q: &mut Queue, outcome: &str) -> Vec<String> {
    q.all(format!("select reason from divvy.schedule_fire where outcome = '{outcome}' and reason is not null order by fire_at"))
        .await
}

#[tokio::test]
async fn buffer_one_keeps_one_moment_and_merges_later_ones_into_it() {
    let (mut q, clock) = every_ten("buffer_one", "").await;
    moments(&mut q, &clock, 4).await;
    assert_eq!(outcomes(&mut q).await, ["fired", "waiting", "merged", "merged"]);
    let second: String =
        q.one("select fire_at::text from divvy.schedule_fire where outcome = 'waiting'").await;
    assert!(reasons(&mut q, "merged").await.iter().all(|reason| reason.contains(&second)));
    q.work("a").await;
    q.tick().await;
    assert_eq!(outcomes(&mut q).await, ["fired", "fired", "merged", "merged"]);
    let (for_, late): (i32, f64) = q
        .rows(
            "select extract(epoch from k.scheduled_for - s.created_at)::int, extract(epoch from f.late)::float8
             from divvy.task k join divvy.schedule s on s.id = k.schedule_id join divvy.schedule_fire f on f.task_id = k.id
             order by k.id desc limit 1",
        )
        .await[0];
    assert_eq!(for_, 20, "the handler sees the moment that waited");
    assert!((late - 20.0).abs() < 1e-6, "and the ledger how long it did");
    q.work("a").await;
    q.tick().await;
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 2, "what was merged never fires");
}

#[tokio::test]
async fn buffer_all_runs_every_moment_one_after_another_in_order() {
    let (mut q, clock) = every_ten("buffer_all", "").await;
    moments(&mut q, &clock, 4).await;
    assert_eq!(outcomes(&mut q).await, ["fired", "waiting", "waiting", "waiting"]);
    for done in 1..=4 {
        let split = q.claim("a").await;
        assert!(q.claim_up_to("a", 9).await.is_empty(), "never two at once");
        let nominal: i32 = q
            .one(format!(
                "select extract(epoch from k.scheduled_for - s.created_at)::int from divvy.task k
                 join divvy.schedule s on s.id = k.schedule_id where k.id = {}",
                split.task_id
            ))
            .await;
        assert_eq!(nominal, 10 * done);
        q.complete(&split).await;
        q.tick().await;
    }
    assert_eq!(outcomes(&mut q).await, ["fired"; 4]);
}

#[tokio::test]
async fn buffer_all_keeps_no_more_than_the_limit() {
    let (mut q, clock) = every_ten("buffer_all", "").await;
    moments(&mut q, &clock, 1).await;
    q.run(
        "insert into divvy.schedule_fire (schedule_id, fire_at, outcome, not_before, look_at)
         select s.id, s.created_at - i * interval '1 s', 'waiting', s.created_at, 'infinity'
         from divvy.schedule s, generate_series(1, divvy.limit_of('waiting moments')) i",
    )
    .await;
    clock.advance(Duration::from_secs(10)).await;
    q.tick().await;
    assert!(reasons(&mut q, "skipped").await[0].starts_with("1000 moments wait already"));
}

#[tokio::test]
async fn cancel_running_ends_the_open_run_for_the_new_one() {
    let (mut q, clock) = every_ten("cancel_running", "").await;
    moments(&mut q, &clock, 2).await;
    assert_eq!(outcomes(&mut q).await, ["fired", "fired"], "what nobody works on ends at once");
    let statuses: Vec<String> = q.all("select status::text from divvy.task order by id").await;
    assert_eq!(statuses, ["cancelled", "running"]);
    let task: i64 = q.one("select min(id) from divvy.task").await;
    assert!(
        q.last_event("task", task).await.reason.unwrap().contains("of schedule s: overlap is cancel_running")
    );
    assert!(reasons(&mut q, "fired").await.iter().any(|reason| reason.contains(&format!("task {task}"))));
}

#[tokio::test]
async fn cancel_running_waits_until_a_worker_has_stopped_and_the_newest_moment_wins() {
    let (mut q, clock) = every_ten("cancel_running", "").await;
    moments(&mut q, &clock, 1).await;
    let split = q.claim("a").await;
    moments(&mut q, &clock, 2).await;
    assert_eq!(outcomes(&mut q).await, ["fired", "merged", "waiting"], "two runs never overlap");
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 1);
    let heard: String = q
        .one(format!(
            "select verdict from divvy.heartbeat('00000000-0000-0000-0000-000000000001', array[{}]::bigint[], array[{}]::bigint[])
             where split_id is not null",
            split.split_id, split.token
        ))
        .await;
    assert_eq!(heard, "cancel");
    q.run(format!("select divvy.release({}, {})", split.split_id, split.token)).await;
    q.tick().await;
    assert_eq!(outcomes(&mut q).await, ["fired", "merged", "fired"]);
}

#[tokio::test]
async fn recover_redrives_what_failed_instead_of_a_new_run() {
    let (mut q, clock) = every_ten("recover", "split_count = 3").await;
    moments(&mut q, &clock, 1).await;
    let splits = q.claim_up_to("a", 3).await;
    q.complete(&splits[0]).await;
    q.complete(&splits[1]).await;
    q.stop(&splits[2]).await;
    let task = splits[0].task_id;
    assert_eq!(q.status(task).await, "failed");
    moments(&mut q, &clock, 1).await;
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 1);
    assert_eq!(
        reasons(&mut q, "fired").await,
        [format!("redrove 1 splits of task {task} instead of a new run")]
    );
    let again = q.claim_up_to("a", 9).await;
    assert_eq!((again.len(), again[0].split_no, again[0].epoch), (1, splits[2].split_no, 2));
    moments(&mut q, &clock, 1).await;
    assert_eq!(outcomes(&mut q).await, ["fired", "fired", "skipped"], "an open one is not redriven");
    q.complete(&again[0]).await;
    moments(&mut q, &clock, 1).await;
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 2, "after a success a new run begins");
    assert_eq!(q.one::<i32>("select runs from divvy.schedule").await, 3);
}

#[tokio::test]
async fn a_run_that_was_cancelled_is_not_recovered() {
    let (mut q, clock) = every_ten("recover", "").await;
    moments(&mut q, &clock, 1).await;
    let task: i64 = q.one("select id from divvy.task").await;
    q.run(format!("select divvy.cancel({task}, 'not wanted')")).await;
    moments(&mut q, &clock, 1).await;
    assert_eq!(q.status(task).await, "cancelled");
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 2);
}

#[tokio::test]
async fn an_end_that_commits_beside_the_fire_is_heard() {
    let (mut q, clock) = every_ten("buffer_one", "").await;
    moments(&mut q, &clock, 1).await;
    let split = q.claim("a").await;
    let mut leader = Hand::new(&q.db).await;
    q.run(format!("begin; select divvy.complete({}, {})", split.split_id, split.token)).await;
    clock.advance(Duration::from_secs(10)).await;
    leader.run("set lock_timeout = '1 s'; select divvy.tick()").await;
    q.run("commit").await;
    assert_eq!(outcomes(&mut q).await, ["fired", "waiting"], "it was open when the moment came");
    leader.run("select divvy.tick()").await;
    assert_eq!(outcomes(&mut q).await, ["fired", "fired"]);
}

#[tokio::test]
async fn a_run_that_somebody_holds_keeps_no_schedule_from_firing() {
    let (mut q, clock) = every_ten("cancel_running", "").await;
    q.run("insert into divvy.schedule (name, task_type, every, overlap) values ('other', 'a', '10 s', 'recover')").await;
    moments(&mut q, &clock, 1).await;
    for split in q.claim_up_to("a", 2).await {
        q.stop(&split).await;
    }
    moments(&mut q, &clock, 1).await;
    let mut leader = Hand::new(&q.db).await;
    q.run("begin; select from divvy.task for update").await;
    clock.advance(Duration::from_secs(10)).await;
    leader.run("set lock_timeout = '1 s'; select divvy.tick()").await;
    q.run("commit").await;
    clock.advance(Duration::from_secs(2)).await;
    q.tick().await;
    let waiting: i64 = q.one("select count(*) from divvy.schedule_fire where outcome = 'waiting'").await;
    assert_eq!(waiting, 0, "they go on once it is free");
}

#[tokio::test]
async fn a_moment_that_waits_is_looked_at_again_though_nobody_says_that_the_run_ended() {
    let (mut q, clock) = every_ten("buffer_one", "").await;
    moments(&mut q, &clock, 2).await;
    q.work("a").await;
    q.run("delete from divvy.run_ended").await;
    q.tick().await;
    assert_eq!(outcomes(&mut q).await, ["fired", "waiting"]);
    clock.advance(Duration::from_secs(9)).await;
    q.tick().await;
    clock.advance(Duration::from_secs(52)).await;
    q.run("select divvy.pause_schedule('s'); select divvy.resume_schedule('s')").await;
    q.run("select divvy.release_due(10, divvy.clock())").await;
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 2);
}

#[tokio::test]
async fn what_waits_is_skipped_when_the_schedule_ends_and_held_while_it_is_paused() {
    let (mut q, clock) = every_ten("buffer_all", "").await;
    moments(&mut q, &clock, 3).await;
    q.run("select divvy.pause_schedule('s', reason => 'holiday')").await;
    q.work("a").await;
    q.tick().await;
    assert_eq!(outcomes(&mut q).await, ["fired", "waiting", "waiting"]);
    clock.advance(Duration::from_secs(120)).await;
    q.tick().await;
    assert_eq!(outcomes(&mut q).await, ["fired", "waiting", "waiting"]);
    q.run("select divvy.cancel_schedule('s', 'over')").await;
    let skipped = reasons(&mut q, "skipped").await;
    assert_eq!((skipped.len(), skipped.iter().all(|reason| reason == "over")), (15 - 1, true), "{skipped:?}");
    assert_eq!(state(&mut q, "s").await, "cancelled");
}

#[tokio::test]
async fn a_pause_on_failure_counts_failures_in_a_row() {
    let (mut q, clock) = every_ten("skip", "pause_on_failure = 2").await;
    for stops in [true, false, true, true] {
        moments(&mut q, &clock, 1).await;
        let split = q.claim("a").await;
        if stops {
            q.stop(&split).await;
        } else {
            q.complete(&split).await;
        }
        q.tick().await;
    }
    assert_eq!(state(&mut q, "s").await, "paused");
    let last: i64 = q.one("select last_task_id from divvy.schedule").await;
    let event = q.last_event("schedule", "s").await;
    assert_eq!(event.verb, "pause_schedule");
    assert_eq!(event.reason.unwrap(), format!("2 runs in a row failed, the last was task {last}"));
    assert_eq!(event.after, Some(json!({"failures": 2})));
    moments(&mut q, &clock, 2).await;
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 4);
    q.run("select divvy.resume_schedule('s')").await;
    q.tick().await;
    let split = q.claim("a").await;
    q.stop(&split).await;
    q.tick().await;
    assert_eq!(state(&mut q, "s").await, "active", "it counts anew");
    let missed = reasons(&mut q, "missed").await;
    assert!(missed[0].starts_with("it was paused: 2 runs in a row failed"), "{missed:?}");
}

#[tokio::test]
async fn a_run_that_ends_loses_no_planned_moment() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run(
        "insert into divvy.schedule (name, task_type, cron, overlap) values ('s', 'a', '* * * * *', 'buffer_one');
         select divvy.plan_schedule(schedule_id, planned_from, array(select planned_from + i * interval '10 s' from generate_series(1, 9) i),
            planned_from + interval '90 s') from divvy.schedules_to_plan()",
    )
    .await;
    for _ in 0..8 {
        clock.advance(Duration::from_secs(10)).await;
        q.tick().await;
        q.work("a").await;
        q.tick().await;
    }
    assert_eq!(outcomes(&mut q).await, ["fired"; 8]);
}
