//! Why a split is not running: what `divvy.explain` says, and that a claim does as it says.

use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::Hand;
use crate::support::program::{divvy_on, ok};
use std::time::Duration;

/// Large tasks have this many splits.
const SPLITS: i32 = 40;
const SPLIT_OF: &str = "select id from divvy.split where split_no = 2 and task_id = ";

async fn bench() -> (TestDb, Clock, Hand) {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    let hand = Hand::new(&db).await;
    (db, clock, hand)
}

/// The worker is there for these types, with this many slots.
async fn serve(hand: &mut Hand, types: &str, slots: i32) {
    let worker = hand.worker;
    hand.run(&format!("select divvy.register_worker('{worker}', 'hand', '{{{types}}}', {slots})")).await;
}

/// The rules that keep a split, in order.
async fn blocking(hand: &mut Hand, split: i64) -> Vec<String> {
    hand.all(&format!("select rule from divvy.explain({split}) where blocking")).await
}

/// What a rule says of a split.
async fn detail(hand: &mut Hand, split: i64, rule: &str) -> String {
    hand.get(&format!("select detail from divvy.explain({split}) where rule = '{rule}'")).await
}

#[tokio::test]
async fn a_split_that_nothing_keeps_is_taken_by_the_next_claim() {
    let (_db, _clock, mut hand) = bench().await;
    hand.declare("x", "{}").await;
    serve(&mut hand, "x", 100).await;
    let plain = hand.insert("(task_type) values ('x')").await;
    let rows = hand.divided("x", 5).await;
    let stretch = hand.divided("x", SPLITS).await;
    let mut splits = vec![plain];
    for task in [rows, stretch] {
        splits.push(hand.get(&format!("{SPLIT_OF}{task}")).await);
    }
    for split in &splits {
        assert_eq!(blocking(&mut hand, *split).await, [""; 0], "split {split}");
    }
    let taken: Vec<i64> = hand.claim("x", 100).await.iter().map(|split| split.split_id).collect();
    for split in &splits {
        assert!(taken.contains(split), "{split} in {taken:?}");
        assert_eq!(blocking(&mut hand, *split).await, [""; 0], "it runs");
        let lease = detail(&mut hand, *split, "lease").await;
        assert!(lease.contains(&hand.worker.to_string()) && lease.contains("(hand)"), "{lease}");
    }
}

#[tokio::test]
async fn what_people_and_moments_hold_is_named_in_both_ways_of_storing() {
    for count in [5, SPLITS] {
        let (_db, clock, mut hand) = bench().await;
        let task = hand.divided("x", count).await;
        assert_eq!(blocking(&mut hand, task).await, ["type", "worker"], "it has not started");
        assert!(detail(&mut hand, task, "type").await.contains("nobody has declared type x"));
        hand.declare("x", "{}").await;
        serve(&mut hand, "x", 100).await;
        let later = "(task_type, run_at) values ('x', divvy.clock() + interval '1 hour')";
        let later = hand.insert(later).await;
        assert_eq!(blocking(&mut hand, later).await, ["moment"]);
        clock.advance(Duration::from_secs(3600)).await;
        assert_eq!(blocking(&mut hand, later).await, ["moment", "tick", "worker"], "nobody ticks");
        hand.run("select divvy.tick()").await;
        serve(&mut hand, "x", 100).await;
        assert_eq!(blocking(&mut hand, later).await, [""; 0]);
        let split: i64 = hand.get(&format!("{SPLIT_OF}{task}")).await;
        assert_eq!(blocking(&mut hand, split).await, [""; 0]);
        hand.run("select divvy.pause('x', null, 'night')").await;
        assert_eq!(blocking(&mut hand, split).await, ["type_pause"]);
        assert_eq!(
            detail(&mut hand, split, "type_pause").await,
            "type x is paused until it is resumed: night"
        );
        hand.run("select divvy.resume('x')").await;
        hand.run(&format!("select divvy.pause_task({task}, divvy.clock() + interval '1 hour', 'audit')"))
            .await;
        assert_eq!(blocking(&mut hand, split).await, ["task_pause", "moment"]);
        assert!(detail(&mut hand, split, "task_pause").await.ends_with(": audit"));
        hand.run(&format!("select divvy.resume_task({task})")).await;
        assert_eq!(blocking(&mut hand, split).await, [""; 0]);
        hand.run(&format!("select divvy.cancel({task}, 'enough')")).await;
        assert_eq!(blocking(&mut hand, split).await, ["status"]);
        assert!(detail(&mut hand, split, "status").await.starts_with("it is cancelled since"));
    }
}

#[tokio::test]
async fn a_retry_says_what_failed_and_when_it_comes_again() {
    let (_db, clock, mut hand) = bench().await;
    hand.declare("x", "{}").await;
    serve(&mut hand, "x", 9).await;
    for given in ["(task_type) values ('x')", "(task_type, split_count) values ('x', 40)"] {
        let task = hand.insert(given).await;
        let split = hand.claim_one("x").await;
        assert_eq!(split.task_id, task);
        let error = r#"'{"class": "io", "message": "disk 3"}', true, interval '1 hour'"#;
        assert_eq!(hand.call("fail", &split, error).await, "ok");
        assert_eq!(blocking(&mut hand, split.split_id).await, ["moment"]);
        let said = detail(&mut hand, split.split_id, "moment").await;
        assert!(said.contains("retry after io: disk 3"), "{said}");
        clock.advance(Duration::from_secs(3600)).await;
        let kept = blocking(&mut hand, split.split_id).await;
        assert!(kept.starts_with(&["moment".to_owned(), "tick".to_owned()]), "{kept:?}");
        hand.run("select divvy.tick()").await;
        serve(&mut hand, "x", 99).await;
        assert_eq!(blocking(&mut hand, split.split_id).await, [""; 0]);
        hand.run(&format!("select divvy.cancel({task})")).await;
    }
}

#[tokio::test]
async fn workers_that_are_gone_quiet_or_full_are_named() {
    let (_db, clock, mut hand) = bench().await;
    hand.declare("x", "{}").await;
    let first = hand.insert("(task_type) values ('x')").await;
    assert_eq!(blocking(&mut hand, first).await, ["worker"]);
    serve(&mut hand, "x", 1).await;
    let worker = hand.worker;
    hand.run(&format!("select divvy.worker_command('{worker}', 'quiet')")).await;
    assert_eq!(blocking(&mut hand, first).await, ["worker"]);
    assert!(detail(&mut hand, first, "worker").await.contains("told to be quiet"));
    hand.run(&format!("select divvy.worker_command('{worker}', 'run')")).await;
    let second = hand.insert("(task_type) values ('x')").await;
    assert_eq!(blocking(&mut hand, second).await, ["position"], "one slot, one before it");
    hand.claim("x", 1).await;
    assert_eq!(blocking(&mut hand, second).await, ["slots"]);
    let large = hand.divided("x", SPLITS).await;
    let split: i64 = hand.get(&format!("{SPLIT_OF}{large}")).await;
    assert_eq!(blocking(&mut hand, split).await, ["slots", "position"]);
    clock.advance(Duration::from_secs(61)).await;
    assert_eq!(blocking(&mut hand, second).await, ["worker"]);
    assert!(detail(&mut hand, second, "worker").await.contains("was seen at"));
    assert_eq!(blocking(&mut hand, first).await, ["lease"], "it ended, and nobody has taken it back");
}

#[tokio::test]
async fn each_limit_says_what_runs_and_when_there_is_room() {
    let (_db, _clock, mut hand) = bench().await;
    serve(&mut hand, "all,rated,grouped,tasked", 100).await;
    hand.declare("all", r#"{"max_running": 1}"#).await;
    hand.declare("rated", r#"{"rate": {"count": 1, "per": "1 min"}}"#).await;
    hand.declare("grouped", r#"{"max_running_per_group": 1, "fair_by_group": true}"#).await;
    hand.declare("tasked", r#"{"max_running_per_task": 1}"#).await;
    for (task_type, rule) in [("all", "max_running"), ("rated", "rate")] {
        hand.insert(&format!("(task_type) values ('{task_type}')")).await;
        let second = hand.insert(&format!("(task_type) values ('{task_type}')")).await;
        assert_eq!(blocking(&mut hand, second).await, [""; 0]);
        hand.claim(task_type, 9).await;
        assert_eq!(blocking(&mut hand, second).await, [rule]);
    }
    let rated = hand.get::<i64>("select max(id) from divvy.task where task_type = 'rated'").await;
    let said = detail(&mut hand, rated, "rate").await;
    let (rate, next) = said.split_once(": the next may start at ").unwrap();
    assert_eq!(rate, "1 in 60 s, burst 1");
    let soon = format!("timestamptz '{next}' - divvy.clock() between interval '59 s' and interval '61 s'");
    assert!(hand.get::<bool>(&format!("select {soon}")).await, "{said}");
    hand.insert("(task_type, group_key) values ('grouped', 'g')").await;
    let held = hand.insert("(task_type, group_key) values ('grouped', 'g')").await;
    assert!(detail(&mut hand, held, "fair_by_group").await.starts_with("1 splits of its group 'g'"));
    hand.claim("grouped", 9).await;
    assert_eq!(blocking(&mut hand, held).await, ["held", "max_running_per_group"]);
    let task = hand.divided("tasked", SPLITS).await;
    hand.claim("tasked", 9).await;
    let split: i64 = hand.get(&format!("{SPLIT_OF}{task}")).await;
    assert_eq!(blocking(&mut hand, split).await, ["held", "max_running_per_task"]);
    let said = detail(&mut hand, split, "max_running_per_task").await;
    assert_eq!(said, format!("1 of at most 1 splits of task {task} run"));
}

#[tokio::test]
async fn a_place_behind_more_than_a_look_sees_says_so() {
    let (_db, _clock, mut hand) = bench().await;
    serve(&mut hand, "fair", 100).await;
    hand.declare("fair", r#"{"fair_by_group": true}"#).await;
    hand.run(
        "insert into divvy.task (task_type, group_key) select 'fair', 'g' from generate_series(1, 1000)",
    )
    .await;
    let near = hand.get::<i64>("select max(id) from divvy.task").await;
    let far = hand.insert("(task_type, group_key) values ('fair', 'g')").await;
    let place = async |hand: &mut Hand, split| detail(hand, split, "fair_by_group").await;
    assert_eq!(
        place(&mut hand, near).await,
        "999 splits of its group 'g' come before it; 1 groups take turns"
    );
    assert_eq!(
        place(&mut hand, far).await,
        "1000 or more splits of its group 'g' come before it; 1 or more groups take turns"
    );
}

#[tokio::test]
async fn what_is_no_split_is_refused_and_the_command_line_says_what_keeps_one() {
    let (db, _clock, mut hand) = bench().await;
    hand.declare("x", "{}").await;
    let task = hand.divided("x", SPLITS).await;
    assert_eq!(hand.code("select divvy.explain(4000000000000000000)").await, "DV011");
    assert_eq!(hand.code(&format!("select divvy.explain({task})")).await, "DV011", "it has many");
    let split: i64 = hand.get(&format!("{SPLIT_OF}{task}")).await;
    let told = ok(&mut divvy_on(db.url(), &["split", "explain", &split.to_string()]));
    assert!(told.contains("worker    ") && told.contains("no worker has registered type x"), "{told}");
    let told = ok(&mut divvy_on(db.url(), &["split", "explain", &split.to_string(), "--json"]));
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["split_id"], split.to_string());
    assert_eq!(told["rules"][0]["rule"], "status");
}
