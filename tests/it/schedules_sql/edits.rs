//! Schedules change while they run: nothing that was due is lost or fires again.

use super::{fired, ledger, state};
use crate::support::clock::Clock;
use crate::support::queue::Queue;
use serde_json::{Value, json};
use std::time::Duration;

async fn with(options: Value) -> (Queue, Clock) {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    assert_eq!(put(&mut q, options).await, "created");
    (q, clock)
}

async fn put(q: &mut Queue, options: Value) -> String {
    q.one(format!("select outcome from divvy.put_schedule('s', '{options}')")).await
}

async fn after(q: &mut Queue, clock: &Clock, seconds: u64) {
    clock.advance(Duration::from_secs(seconds)).await;
    q.tick().await;
}

#[tokio::test]
async fn another_payload_is_for_the_moments_to_come_and_moves_none() {
    let (mut q, clock) =
        with(json!({"task_type": "a", "every": "10 s", "overlap": "allow", "payload": {"v": 1}})).await;
    after(&mut q, &clock, 13).await;
    clock.advance(Duration::from_secs(8)).await;
    assert_eq!(put(&mut q, json!({"payload": {"v": 2}})).await, "changed");
    after(&mut q, &clock, 10).await;
    assert_eq!(fired(&mut q, "s").await, [10, 20, 30]);
    let payloads: Vec<Value> = q.all("select payload from divvy.task order by id").await;
    assert_eq!(
        payloads,
        [json!({"v": 1}), json!({"v": 1}), json!({"v": 2})],
        "20 s were due when it changed"
    );
    let event = q.last_event("schedule", "s").await;
    assert_eq!(
        (event.verb.as_str(), event.before, event.after),
        ("put_schedule", Some(json!({"payload": {"v": 1}})), Some(json!({"payload": {"v": 2}})))
    );
    assert_eq!(put(&mut q, json!({"payload": {"v": 2}})).await, "unchanged");
}

#[tokio::test]
async fn another_rule_begins_where_the_old_one_was_decided() {
    let (mut q, clock) = with(json!({"task_type": "a", "every": "10 s", "overlap": "allow"})).await;
    let id: i64 = q.one("select id from divvy.schedule").await;
    after(&mut q, &clock, 10).await;
    clock.advance(Duration::from_secs(25)).await;
    assert_eq!(put(&mut q, json!({"every": "7 s"})).await, "changed");
    let expected = [(10, "fired"), (20, "missed"), (30, "fired")].map(|(at, word)| (at, word.to_owned()));
    assert_eq!(ledger(&mut q, "s").await, expected, "decided by the old rule, in the same transaction");
    after(&mut q, &clock, 7).await;
    assert_eq!(ledger(&mut q, "s").await[3], (42, "fired".into()));
    assert_eq!(put(&mut q, json!({"steps": ["1 s", "2 s"]})).await, "changed");
    after(&mut q, &clock, 1).await;
    after(&mut q, &clock, 1).await;
    assert_eq!(fired_of(&mut q, 2).await, [43, 44]);
    assert_eq!(state(&mut q, "s").await, "done");
    assert_eq!(q.one::<i64>("select id from divvy.schedule").await, id);
}

async fn fired_of(q: &mut Queue, last: usize) -> Vec<i32> {
    let rows = ledger(q, "s").await;
    rows[rows.len() - last..].iter().map(|row| row.0).collect()
}

#[tokio::test]
async fn a_cron_rule_changes_when_what_was_due_is_known() {
    let (mut q, clock) = with(json!({"task_type": "a", "cron": "* * * * * *", "overlap": "allow"})).await;
    let plan = "select divvy.plan_schedule(schedule_id, planned_from, array(select date_trunc('second', planned_from) + i * interval '1 s'
        from generate_series(1, 5) i), date_trunc('second', planned_from) + interval '5 s') from divvy.schedules_to_plan(1, 's')";
    clock.advance(Duration::from_secs(3)).await;
    let edit = r#"select outcome from divvy.put_schedule('s', '{"cron": "0 0 1 1 *"}')"#;
    // Another payload would be for what is due already.
    for edit in [edit, r#"select divvy.put_schedule('s', '{"payload": {"v": 2}}')"#] {
        q.refused(edit)
            .await
            .says("DV004", &["schedule s", "planned before it changes", "divvy schedule put"]);
    }
    q.run(plan).await;
    assert_eq!(q.one::<String>(edit).await, "changed");
    let rows = ledger(&mut q, "s").await;
    assert_eq!(rows.iter().map(|row| row.1.as_str()).collect::<Vec<_>>(), ["missed", "missed", "fired"]);
    after(&mut q, &clock, 5).await;
    assert_eq!(ledger(&mut q, "s").await.len(), 3, "the old rule's later moments are gone");
    assert_eq!(q.one::<i64>("select count(*) from divvy.schedules_to_plan()").await, 1);
}

#[tokio::test]
async fn what_was_due_in_a_pause_survives_an_edit_and_fires_after_it() {
    let (mut q, clock) = with(json!({"task_type": "a", "every": "10 s", "payload": {"v": 1}})).await;
    q.run("select divvy.pause_schedule('s', reason => 'holiday')").await;
    clock.advance(Duration::from_secs(25)).await;
    assert_eq!(put(&mut q, json!({"every": "1 hour"})).await, "changed");
    assert_eq!(ledger(&mut q, "s").await, [(10, "missed".to_owned()), (20, "waiting".to_owned())]);
    after(&mut q, &clock, 100).await;
    assert_eq!(state(&mut q, "s").await, "paused");
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 0);
    q.run("select divvy.resume_schedule('s')").await;
    q.tick().await;
    assert_eq!(ledger(&mut q, "s").await, [(10, "missed".to_owned()), (20, "fired".to_owned())]);
}

#[tokio::test]
async fn null_is_the_default_and_other_options_stay() {
    let (mut q, _clock) = with(
        json!({"task_type": "a", "every": "1 hour", "overlap": "allow", "max_runs": 4, "labels": ["x"]}),
    )
    .await;
    assert_eq!(put(&mut q, json!({"overlap": null, "max_runs": null})).await, "changed");
    let stored: Value = q
        .one("select to_jsonb(x) from (select overlap, max_runs, labels, every from divvy.schedule) x")
        .await;
    assert_eq!(stored, json!({"overlap": "skip", "max_runs": null, "labels": ["x"], "every": "01:00:00"}));
    for (options, code, names) in [
        (json!({"every": "0 s"}), "DV012", vec!["schedule s", "every is 00:00:00"]),
        (json!({"ever": "1 s"}), "DV010", vec!["schedule s", "unknown option 'ever'"]),
        (json!({"every": "often"}), "DV012", vec!["schedule s", "often"]),
        (json!({"ends_at": "2020-01-01"}), "DV012", vec!["schedule s", "no moment"]),
        (json!({"payload": "x".repeat(1 << 20)}), "DV003", vec!["schedule s", "payload"]),
    ] {
        q.refused(format!("select divvy.put_schedule('s', '{options}')")).await.says(code, &names);
    }
}

#[tokio::test]
async fn a_refused_schedule_is_mended_by_a_put() {
    let (mut q, _clock) = with(json!({"task_type": "a", "cron": "99 * * * *"})).await;
    q.run("select divvy.refuse_schedule(id, 'minute is 99') from divvy.schedule").await;
    assert_eq!(put(&mut q, json!({"cron": "9 * * * *"})).await, "changed");
    assert_eq!(state(&mut q, "s").await, "active");
    assert_eq!(q.one::<i64>("select count(*) from divvy.schedules_to_plan()").await, 1);
}

#[tokio::test]
async fn a_clock_that_is_set_forwards_and_back_fires_nothing_twice() {
    let (mut q, clock) = with(json!({"task_type": "a", "every": "10 s", "overlap": "allow"})).await;
    let start = clock.now().await;
    after(&mut q, &clock, 3605).await;
    clock.set(start + Duration::from_secs(15)).await;
    q.tick().await;
    after(&mut q, &clock, 300).await;
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 1);
    let moments: i64 = q.one("select sum(count) from divvy.schedule_fire").await;
    assert_eq!(moments, 360);
    clock.set(start + Duration::from_secs(3610)).await;
    q.tick().await;
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 2);
}

#[tokio::test]
async fn a_type_that_nobody_declared_is_shown_and_its_tasks_wait() {
    let (mut q, clock) = with(json!({"task_type": "later", "every": "10 s", "overlap": "allow"})).await;
    after(&mut q, &clock, 10).await;
    assert!(!q.one::<bool>("select type_declared from divvy.schedule_overview").await);
    assert_eq!(q.one::<String>("select status::text from divvy.task").await, "scheduled");
    q.put("later", json!({})).await;
    q.tick().await;
    assert!(q.one::<bool>("select type_declared from divvy.schedule_overview").await);
    assert_eq!(q.one::<String>("select status::text from divvy.task").await, "running");
}

#[tokio::test]
async fn a_moment_that_is_decided_never_changes() {
    let (mut q, clock) = with(json!({"task_type": "a", "every": "10 s", "overlap": "allow"})).await;
    after(&mut q, &clock, 10).await;
    q.run("select divvy.decide_moment(f, 'missed', null, 'again', divvy.clock()) from divvy.schedule_fire f")
        .await;
    let kept: bool = q
        .one("select outcome = 'fired' and task_id is not null and reason is null from divvy.schedule_fire")
        .await;
    assert!(kept);
}
