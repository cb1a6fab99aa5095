//! What waited and ran minute by minute, and what somebody should look at.

use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::Hand;
use crate::support::program::{divvy_on, said};
use crate::support::race::until;
use serde_json::Value;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// The database's clock stands at the beginning of a minute, and the server's settings are not looked at: those of tests are reckless.
async fn bench() -> (TestDb, Clock, Hand) {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    clock.set("2026-11-21T12:00:00Z".parse().unwrap()).await;
    let hand = Hand::new(&db).await;
    (db, clock, hand)
}

/// Every sample, as "minute type ready delayed running scheduled".
async fn samples(hand: &mut Hand) -> Vec<String> {
    hand.all(
        "select to_char(at at time zone 'UTC', 'HH24:MI') || format(' %s %s %s %s %s', task_type, ready, delayed, running, scheduled)
           from divvy.metric_minute order by at, task_type",
    )
    .await
}

/// Open alerts of types and schedules.
async fn open(hand: &mut Hand) -> Vec<String> {
    hand.all("select name || ' ' || object from divvy.alert_overview where name not in ('durability', 'long_transaction') order by 1").await
}

async fn tick(hand: &mut Hand) {
    hand.run("select divvy.tick()").await;
}

#[tokio::test]
async fn a_minute_is_sampled_once_by_all_who_tick_and_only_what_waits_or_runs_has_a_row() {
    let (db, clock, mut hand) = bench().await;
    hand.declare("x", "{}").await;
    hand.declare("idle", "{}").await;
    hand.insert("(task_type) values ('x')").await;
    let large = hand.divided("x", 40).await;
    hand.insert("(task_type) values ('nobody.s')").await;
    tick(&mut hand).await;
    let first = ["12:00 nobody.s 0 0 0 1", "12:00 x 41 0 0 0"];
    assert_eq!(samples(&mut hand).await, first);
    clock.advance(Duration::from_secs(30)).await;
    hand.claim("x", 20).await;
    tick(&mut hand).await;
    assert_eq!(samples(&mut hand).await, first, "once a minute");
    clock.advance(MINUTE).await;
    let mut other = Hand::new(&db).await;
    hand.run("begin; select divvy.take_sample()").await;
    assert_eq!(
        other.get::<i32>("select divvy.take_sample()").await,
        0,
        "somebody is at it, and is not waited for"
    );
    hand.run("commit").await;
    assert_eq!(other.get::<i32>("select divvy.take_sample()").await, 0);
    hand.run(&format!("select divvy.pause_task({large})")).await;
    clock.advance(MINUTE).await;
    tick(&mut hand).await;
    let all = samples(&mut hand).await;
    assert_eq!(all[2..4], ["12:01 nobody.s 0 0 0 1", "12:01 x 21 0 20 0"]);
    let last: i64 = hand.get("select ready + delayed + running from divvy.metric_minute where task_type = 'x' order by at desc limit 1").await;
    assert_eq!(last, 41, "{all:?}");
    let waited: String =
        hand.get("select max(oldest_ready)::text from divvy.metric_minute where task_type = 'x'").await;
    assert!(waited.starts_with("00:0"), "{waited}");
}

#[tokio::test]
async fn samples_are_kept_for_their_days() {
    let (_db, clock, mut hand) = bench().await;
    hand.insert("(task_type) values ('x')").await;
    tick(&mut hand).await;
    clock.advance(MINUTE * 60 * 24 * 7).await;
    tick(&mut hand).await;
    assert_eq!(hand.count("divvy.metric_minute").await, 2);
    clock.advance(MINUTE).await;
    tick(&mut hand).await;
    let minutes: i64 = hand.get("select count(distinct at) from divvy.metric_minute").await;
    assert_eq!(
        (minutes, hand.count("divvy.metric_minute where at < divvy.clock() - interval '7 days'").await),
        (2, 0)
    );
}

#[tokio::test]
async fn an_alert_opens_once_is_an_event_and_closes_when_it_is_over() {
    let (_db, clock, mut hand) = bench().await;
    let task = hand.insert("(task_type) values ('x')").await;
    tick(&mut hand).await;
    assert_eq!(open(&mut hand).await, ["unroutable x"]);
    for _ in 0..2 {
        clock.advance(MINUTE).await;
        tick(&mut hand).await;
    }
    let since: String =
        hand.get("select since::text from divvy.alert_overview where name = 'unroutable'").await;
    assert!(since.starts_with("2026-11-21 12:00:00"), "{since}");
    hand.declare("x", "{}").await;
    clock.advance(MINUTE * 2).await;
    tick(&mut hand).await;
    assert_eq!(open(&mut hand).await, ["no_worker x"], "it is ready, and nobody is there");
    let worker = hand.worker;
    hand.run(&format!("select divvy.register_worker('{worker}', 'hand', '{{x}}', 1)")).await;
    clock.advance(MINUTE / 2 + MINUTE / 2).await;
    tick(&mut hand).await;
    assert_eq!(hand.claim_one("x").await.task_id, task);
    clock.advance(MINUTE).await;
    tick(&mut hand).await;
    assert_eq!(open(&mut hand).await, [""; 0]);
    let events: Vec<String> = hand
        .all("select verb || ' ' || object_id from divvy.event where object = 'alert' and object_id like '% x' order by id")
        .await;
    assert_eq!(
        events,
        [
            "open_alert unroutable x",
            "open_alert no_worker x",
            "close_alert unroutable x",
            "close_alert no_worker x"
        ]
    );
}

#[tokio::test]
async fn lag_failures_and_refused_schedules_are_found() {
    let (_db, clock, mut hand) = bench().await;
    hand.declare("x", "{}").await;
    hand.declare("slow", "{}").await;
    let worker = hand.worker;
    hand.insert("(task_type) values ('x')").await;
    let split = hand.claim_one("x").await;
    assert_eq!(hand.call("fail", &split, "'{\"class\": \"io\"}', false").await, "ok");
    let large = hand.divided("slow", 40).await;
    hand.run("insert into divvy.schedule (name, task_type, cron) values ('never', 'x', '0 0 30 2 *'), ('bad', 'x', '0 0 * * *')").await;
    hand.run("select divvy.refuse_schedule(id, 'no such day') from divvy.schedule where name = 'never'")
        .await;
    hand.run("update divvy.schedule set failures = 3 where name = 'bad'").await;
    clock.advance(Duration::from_secs(301)).await;
    hand.run(&format!("select divvy.register_worker('{worker}', 'hand', '{{x,slow}}', 1)")).await;
    tick(&mut hand).await;
    assert_eq!(
        open(&mut hand).await,
        ["dead x", "lag slow", "schedule_failing bad", "schedule_refused never"]
    );
    let detail: String = hand.get("select detail from divvy.alert_overview where name = 'dead'").await;
    assert!(detail.starts_with("1 splits failed") && detail.ends_with(": io"), "{detail}");
    hand.run("select divvy.pause('slow')").await;
    clock.advance(MINUTE * 60).await;
    tick(&mut hand).await;
    assert_eq!(
        open(&mut hand).await,
        ["schedule_failing bad", "schedule_refused never"],
        "paused, and long ago"
    );
    hand.run(&format!("select divvy.cancel({large})")).await;
}

#[tokio::test]
async fn a_silence_holds_while_the_alert_comes_and_goes_and_ends_at_its_moment() {
    let (db, clock, mut hand) = bench().await;
    let task = hand.insert("(task_type) values ('x')").await;
    tick(&mut hand).await;
    assert_eq!(hand.code("select divvy.silence_alert('lag', 'x')").await, "DV011");
    assert_eq!(hand.code("select divvy.silence_alert('unroutable', 'x', 'infinity')").await, "DV010");
    hand.run("select divvy.silence_alert('unroutable', 'x', divvy.clock() + interval '1 hour', 'known')")
        .await;
    let silent = "divvy.alert_overview where name = 'unroutable' and silenced_until is not null and silence_reason = 'known'";
    assert_eq!(hand.count(silent).await, 1);
    hand.run(&format!("select divvy.cancel({task})")).await;
    clock.advance(MINUTE).await;
    tick(&mut hand).await;
    assert_eq!(open(&mut hand).await, [""; 0]);
    hand.insert("(task_type) values ('x')").await;
    clock.advance(MINUTE).await;
    tick(&mut hand).await;
    assert_eq!(hand.count(silent).await, 1, "it came again");
    clock.advance(MINUTE * 60).await;
    tick(&mut hand).await;
    assert_eq!(hand.count(silent).await, 0);
    // The command line: what is open and not known is exit code 1.
    let list = said(&mut divvy_on(db.url(), &["alert", "list", "--json"]));
    assert_eq!(list.code, Some(1), "{}", list.err);
    assert!(list.err.contains("open"), "{}", list.err);
    let rows: Value = serde_json::from_str(&list.out).unwrap();
    for row in rows["alerts"].as_array().unwrap() {
        let (name, object) = (row["name"].as_str().unwrap(), row["object"].as_str().unwrap());
        let silence =
            said(&mut divvy_on(db.url(), &["alert", "silence", name, object, "--reason", "a test"]));
        assert_eq!(silence.code, Some(0), "{}", silence.err);
    }
    let list = said(&mut divvy_on(db.url(), &["alert", "list"]));
    assert_eq!(list.code, Some(0), "{}", list.err);
    assert!(list.out.contains("unroutable") && list.out.contains("for ever: a test"), "{}", list.out);
    let now = said(&mut divvy_on(db.url(), &["alert", "test"]));
    assert!(now.code == Some(0) && now.out.contains("which nobody has declared"), "{}", now.out);
}

#[tokio::test]
async fn nobody_ticks_is_an_alert_that_needs_no_tick() {
    let (_db, clock, mut hand) = bench().await;
    tick(&mut hand).await;
    clock.advance(MINUTE * 2).await;
    assert_eq!(open(&mut hand).await, ["no_tick "]);
    hand.run("select divvy.silence_alert('no_tick')").await;
    assert_eq!(
        hand.count("divvy.alert_overview where name = 'no_tick' and silenced_until = 'infinity'").await,
        1
    );
    tick(&mut hand).await;
    assert_eq!(open(&mut hand).await, [""; 0]);
}

#[tokio::test]
async fn the_leader_keeps_samples_without_being_asked() {
    let db = TestDb::new().await;
    let mut hand = Hand::new(&db).await;
    hand.insert("(task_type) values ('x')").await;
    let store = divvy::store::Store::new(db.pool().clone());
    let done = divvy::leader::Duty::Sample.run_once(&store).await.unwrap();
    assert_eq!(done.done, 1);
    divvy::leader::Duty::Alert.run_once(&store).await.unwrap();
    until("it is open", async || hand.count("divvy.alert_overview where name = 'unroutable'").await == 1)
        .await;
}
