//! Schedules by SQL alone: their moments fire once each, by tick; cron has a planner.

mod backfill;
mod calendars;
mod catch_up;
mod cron;
mod edits;
mod ends;
mod overlap;
mod refusals;
mod scale;
mod stepped;
mod storm;

use crate::support::clock::Clock;
use crate::support::queue::Queue;
use serde_json::{Value, json};
use std::time::Duration;

/// The ledger: (seconds after the schedule's creation, outcome).
async fn ledger(q: &mut Queue, name: &str) -> Vec<(i32, String)> {
    q.rows(format!(
        "select extract(epoch from f.fire_at - s.created_at)::int, f.outcome from divvy.schedule_fire f
         join divvy.schedule s on s.id = f.schedule_id where s.name = '{name}' and f.kind = 'rule' order by f.fire_at"
    ))
    .await
}

async fn state(q: &mut Queue, name: &str) -> String {
    q.one(format!(
        "select status from divvy.schedule_overview where name = '{name}' order by schedule_id desc limit 1"
    ))
    .await
}

/// Moves the clock second by second, with a tick each; every task is done at once.
async fn pass(q: &mut Queue, clock: &Clock, seconds: u64) {
    for _ in 0..seconds {
        clock.advance(Duration::from_secs(1)).await;
        q.tick().await;
        q.run("select divvy.complete(split_id, token) from divvy.claim('00000000-0000-0000-0000-000000000001', '{a}', 100)")
            .await;
    }
}

async fn fired(q: &mut Queue, name: &str) -> Vec<i32> {
    let ledger = ledger(q, name).await;
    assert!(ledger.iter().all(|(_, outcome)| outcome == "fired"), "{ledger:?}");
    ledger.into_iter().map(|(at, _)| at).collect()
}

#[tokio::test]
async fn each_step_fires_once_at_its_offset_from_the_creation() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run("insert into divvy.schedule (name, task_type, steps) values ('s', 'a', '{0,3 s,5 s,10 s}')").await;
    q.tick().await;
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 1, "an offset of zero is due at once");
    pass(&mut q, &clock, 12).await;
    assert_eq!(fired(&mut q, "s").await, [0, 3, 5, 10]);
    assert_eq!(state(&mut q, "s").await, "done");
    let scheduled: i64 = q
        .one(
            "select count(*) from divvy.task k join divvy.schedule_fire f on f.task_id = k.id
             where k.scheduled_for = f.fire_at and k.schedule_id = f.schedule_id",
        )
        .await;
    assert_eq!(scheduled, 4);
}

#[tokio::test]
async fn a_timed_schedule_fires_once_at_its_moment() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run("insert into divvy.schedule (name, task_type, run_at) values ('s', 'a', divvy.clock() + interval '3 s')").await;
    pass(&mut q, &clock, 2).await;
    assert_eq!(fired(&mut q, "s").await, [0; 0]);
    pass(&mut q, &clock, 5).await;
    assert_eq!(fired(&mut q, "s").await, [3]);
    assert_eq!(state(&mut q, "s").await, "done");
}

#[tokio::test]
async fn a_fixed_rate_keeps_its_beat_however_late_the_ticks() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run("insert into divvy.schedule (name, task_type, every) values ('s', 'a', '3 s')").await;
    pass(&mut q, &clock, 4).await;
    clock.advance(Duration::from_millis(3_900)).await;
    q.tick().await;
    q.work("a").await;
    clock.advance(Duration::from_millis(1_100)).await;
    pass(&mut q, &clock, 1).await;
    assert_eq!(fired(&mut q, "s").await, [3, 6, 9], "anchored to the creation, no drift");
    assert_eq!(state(&mut q, "s").await, "active");
}

#[tokio::test]
async fn a_moment_fires_once_also_when_its_ledger_is_gone() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run("insert into divvy.schedule (name, task_type, every) values ('s', 'a', '3 s')").await;
    pass(&mut q, &clock, 3).await;
    q.run("delete from divvy.schedule_fire").await;
    q.tick().await;
    q.tick().await;
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 1);
}

#[tokio::test]
async fn the_template_of_a_schedule_is_the_task_that_it_makes() {
    let mut q = Queue::with_types(&["a"]).await;
    q.run(
        r#"insert into divvy.schedule (name, task_type, payload, steps, priority, labels, headers, group_key, split_count,
                max_attempts, timeout, max_failed, reduce_on, "then")
            values ('s', 'a', '{"x": 1}', '{0}', 1, '{l}', '{"h": 1}', 'g', 2, 4, '1 min', 1, 'always', '{"failed": {"task_type": "b"}}')"#,
    )
    .await;
    q.tick().await;
    let made: Value = q
        .one(
            r#"select to_jsonb(k) from (select payload, priority, labels, headers, group_key, split_count, max_attempts, timeout,
                max_failed, reduce_on, "then" from divvy.task) k"#,
        )
        .await;
    assert_eq!(
        made,
        json!({"payload": {"x": 1}, "priority": 1, "labels": ["l"], "headers": {"h": 1}, "group_key": "g", "split_count": 2,
            "max_attempts": 4, "timeout": "00:01:00", "max_failed": 1, "reduce_on": "always",
            "then": {"failed": {"task_type": "b"}}})
    );
}

#[tokio::test]
async fn after_a_gap_the_latest_moment_fires_and_the_missed_ones_are_recorded() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run("insert into divvy.schedule (name, task_type, every) values ('s', 'a', '10 s')").await;
    clock.advance(Duration::from_secs(45)).await;
    q.tick().await;
    let expected: Vec<(i32, String)> =
        vec![(10, "missed".into()), (20, "missed".into()), (30, "missed".into()), (40, "fired".into())];
    assert_eq!(ledger(&mut q, "s").await, expected);
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 1);
    let late: f64 = q
        .one("select extract(epoch from late)::float8 from divvy.schedule_fire where outcome = 'fired'")
        .await;
    assert!((late - 5.0).abs() < 1e-6);
}

#[tokio::test]
async fn a_stretch_of_more_than_a_hundred_missed_moments_is_one_row_that_counts_them() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run("insert into divvy.schedule (name, task_type, every) values ('s', 'a', '10 s')").await;
    q.run("insert into divvy.schedule (name, task_type, steps) select 'steps', 'a', array_agg(i * interval '10 s') from generate_series(1, 300) i").await;
    q.run("insert into divvy.schedule (name, task_type, every) values ('month', 'a', '1 month')").await;
    q.run("insert into divvy.schedule (name, task_type, every, ends_at) values ('ends', 'a', '10 s', divvy.clock() + interval '5000 s')").await;
    clock.advance(Duration::from_secs(30 * 86_400 * 200)).await;
    q.tick().await;
    let stretch: (i32, i32) = q
        .rows(
            "select extract(epoch from f.fire_at - s.created_at)::int, extract(epoch from f.through - s.created_at)::int
             from divvy.schedule_fire f join divvy.schedule s on s.id = f.schedule_id where s.name = 'ends' and f.outcome = 'missed'",
        )
        .await[0];
    assert_eq!(stretch, (10, 4980), "from the first to the last of them");
    for (name, moments) in [("s", 30 * 8_640 * 200), ("steps", 300), ("month", 200), ("ends", 499)] {
        let counts: (i64, i64, i64) = q
            .rows(format!(
                "select count(*) filter (where outcome = 'missed'), sum(count) filter (where outcome = 'missed'),
                    count(*) filter (where outcome = 'fired')
                 from divvy.schedule_fire f join divvy.schedule s on s.id = f.schedule_id where s.name = '{name}'"
            ))
            .await[0];
        assert_eq!(counts, (1, moments - 1, 1), "{name}");
    }
}

#[tokio::test]
async fn a_moment_whose_predecessor_is_still_open_is_skipped_unless_overlap_is_allowed() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run(
        "insert into divvy.schedule (name, task_type, every) values ('skip', 'a', '10 s');
         insert into divvy.schedule (name, task_type, every, overlap) values ('allow', 'a', '10 s', 'allow')",
    )
    .await;
    for _ in 0..2 {
        clock.advance(Duration::from_secs(10)).await;
        q.tick().await;
    }
    assert_eq!(ledger(&mut q, "skip").await, [(10, "fired".to_owned()), (20, "skipped".to_owned())]);
    assert_eq!(fired(&mut q, "allow").await, [10, 20]);
    let first: i64 = q.one("select last_task_id from divvy.schedule where name = 'skip'").await;
    let reason: String = q.one("select reason from divvy.schedule_fire where outcome = 'skipped'").await;
    assert!(reason.contains(&format!("task {first}")), "{reason}");
    for split in q.claim_up_to("a", 9).await {
        q.complete(&split).await;
    }
    clock.advance(Duration::from_secs(10)).await;
    q.tick().await;
    assert_eq!(ledger(&mut q, "skip").await[2], (30, "fired".into()));
}

#[tokio::test]
async fn bounds_limit_what_fires() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run(
        "insert into divvy.schedule (name, task_type, every, max_runs) values ('runs', 'a', '2 s', 3);
         insert into divvy.schedule (name, task_type, every, ends_at) values ('ends', 'a', '2 s', divvy.clock() + interval '6 s');
         insert into divvy.schedule (name, task_type, every, starts_at) values ('starts', 'a', '2 s', divvy.clock() + interval '5 s');
         insert into divvy.schedule (name, task_type, steps, starts_at, ends_at)
            values ('steps', 'a', '{1 s,3 s,5 s,7 s}', divvy.clock() + interval '3 s', divvy.clock() + interval '7 s')",
    )
    .await;
    pass(&mut q, &clock, 9).await;
    assert_eq!(fired(&mut q, "runs").await, [2, 4, 6]);
    assert_eq!(fired(&mut q, "ends").await, [2, 4], "ends_at itself is outside");
    assert_eq!(fired(&mut q, "steps").await, [3, 5]);
    assert!(fired(&mut q, "starts").await.iter().all(|at| *at >= 5));
    for (name, expected) in [("runs", "done"), ("ends", "done"), ("steps", "done"), ("starts", "active")] {
        assert_eq!(state(&mut q, name).await, expected, "{name}");
    }
}

#[tokio::test]
async fn a_paused_schedule_waits_and_follows_catch_up_when_resumed() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run("insert into divvy.schedule (name, task_type, every) values ('s', 'a', '10 s')").await;
    q.run("select divvy.pause_schedule('s', reason => 'migration')").await;
    let event = q.last_event("schedule", "s").await;
    assert_eq!((event.verb.as_str(), event.reason.as_deref()), ("pause_schedule", Some("migration")));
    clock.advance(Duration::from_secs(35)).await;
    q.tick().await;
    assert!(ledger(&mut q, "s").await.is_empty());
    q.run("select divvy.resume_schedule('s')").await;
    assert_eq!(q.last_event("schedule", "s").await.verb, "resume_schedule");
    q.tick().await;
    assert_eq!(ledger(&mut q, "s").await.last(), Some(&(30, "fired".into())));
    q.work("a").await;
    q.run("select divvy.pause_schedule('s', divvy.clock() + interval '20 s')").await;
    clock.advance(Duration::from_secs(19)).await;
    q.tick().await;
    assert_eq!(state(&mut q, "s").await, "paused");
    clock.advance(Duration::from_secs(1)).await;
    q.tick().await;
    assert_eq!(state(&mut q, "s").await, "active");
    assert_eq!(ledger(&mut q, "s").await.last(), Some(&(50, "fired".into())));
}

#[tokio::test]
async fn trigger_makes_a_task_now_and_changes_no_moment() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run("insert into divvy.schedule (name, task_type, every, dedupe_key) values ('s', 'a', '10 s', 'k')")
        .await;
    let task: i64 = q.one("select divvy.trigger_schedule('s')").await;
    let event = q.last_event("schedule", "s").await;
    assert_eq!((event.verb.as_str(), event.after), ("trigger_schedule", Some(json!({"task_id": task}))));
    let kind: (String, String) = q
        .rows(format!("select kind, outcome from divvy.schedule_fire where task_id = {task}"))
        .await
        .remove(0);
    assert_eq!(kind, ("manual".into(), "fired".into()));
    assert_eq!(
        q.one::<Option<i64>>("select divvy.trigger_schedule('s')").await,
        None,
        "its dedupe_key is held"
    );
    q.work("a").await;
    pass(&mut q, &clock, 10).await;
    assert_eq!(fired(&mut q, "s").await, [10]);
    q.refused("select divvy.trigger_schedule('nothing')").await.says("DV011", &["open schedule", "nothing"]);
}

#[tokio::test]
async fn a_schedule_that_cannot_fire_keeps_no_other_from_it() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.put("full", json!({"max_waiting": 1})).await;
    q.enqueue("full").await;
    q.run(
        "insert into divvy.schedule (name, task_type, steps) values ('broken', 'full', '{1 s,5 s}');
         insert into divvy.schedule (name, task_type, steps) values ('s', 'a', '{2 s}')",
    )
    .await;
    clock.advance(Duration::from_secs(3)).await;
    q.tick().await;
    assert_eq!(fired(&mut q, "s").await, [2]);
    assert_eq!(ledger(&mut q, "broken").await, [(1, "skipped".to_owned())]);
    let event = q.last_event("schedule", "broken").await;
    assert!(event.reason.unwrap().contains("max_waiting"));
    q.work("full").await;
    clock.advance(Duration::from_secs(3)).await;
    q.tick().await;
    assert_eq!(ledger(&mut q, "broken").await[1], (5, "fired".into()));
}

#[tokio::test]
async fn a_name_is_free_again_when_its_schedule_has_ended() {
    let mut q = Queue::with_types(&["a"]).await;
    let insert =
        "insert into divvy.schedule (name, task_type, every) values ('s', 'a', '1 min') returning id";
    let first: i64 = q.one(insert).await;
    q.refused(insert).await.says("DV012", &["schedule s", "name 's' is taken"]);
    q.run("select divvy.pause_schedule('s')").await;
    q.refused(insert).await.says("DV012", &["schedule s"]);
    q.run("select divvy.cancel_schedule('s')").await;
    let second: i64 = q.one(insert).await;
    assert_ne!(first, second);
    let named: String =
        q.one("insert into divvy.schedule (task_type, every) values ('a', '1 min') returning name").await;
    assert!(named.starts_with("a-"), "{named}");
}
