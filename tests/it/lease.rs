//! How long a worker holds a split, and how it loses it.

mod fence;
mod light;
mod written;

use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::Hand;
use std::sync::Arc;
use std::time::Duration;

/// Lets time pass with a reclaim every 5 s, since a longer gap counts as a pause of the database.
pub async fn let_time_pass(clock: &Clock, duty: &mut Hand, seconds: u64) {
    duty.run("select divvy.reclaim()").await;
    for _ in 0..seconds / 5 {
        clock.advance(Duration::from_secs(5)).await;
        duty.run("select divvy.reclaim()").await;
    }
}

struct Bench {
    db: Arc<TestDb>,
    clock: Clock,
    hand: Hand,
    duty: Hand,
}

/// A type `x` with a lease of 30 s and these options.
async fn bench(options: &str) -> Bench {
    bench_in(Arc::new(TestDb::new().await), options).await
}

/// The same in this database.
async fn bench_in(db: Arc<TestDb>, options: &str) -> Bench {
    let clock = Clock::stop(&db).await;
    let (mut hand, mut duty) = (Hand::new(&db).await, Hand::new(&db).await);
    hand.declare("x", options).await;
    duty.run("select divvy.reclaim()").await;
    Bench { db, clock, hand, duty }
}

impl Bench {
    async fn pass(&mut self, seconds: u64) {
        let_time_pass(&self.clock, &mut self.duty, seconds).await;
    }

    async fn beat(&mut self, split: i64, token: i64) -> Vec<Option<String>> {
        let sql = format!(
            "select verdict from divvy.heartbeat('{}', '{{{split}}}', '{{{token}}}')",
            self.hand.worker
        );
        self.hand.all(&sql).await
    }
}

#[tokio::test]
async fn an_expired_lease_returns_the_split_once_and_charges_an_attempt() {
    let mut b = bench("{}").await;
    b.hand.insert("(task_type) values ('x')").await;
    let first = b.hand.claim_one("x").await;
    b.pass(30).await;
    assert_eq!(b.duty.state(first.split_id).await, "ready");
    b.pass(60).await;
    assert_eq!(b.duty.count("divvy.attempt where outcome = 'expired'").await, 1);
    assert_eq!(b.duty.count("divvy.lease").await, 0);
    let second = b.hand.claim_one("x").await;
    assert_eq!((second.split_id, second.attempt), (first.split_id, 2));
    assert!(second.token > first.token);
}

#[tokio::test]
async fn a_renewed_lease_does_not_expire() {
    let mut b = bench("{}").await;
    b.hand.insert("(task_type) values ('x')").await;
    let split = b.hand.claim_one("x").await;
    for _ in 0..10 {
        b.pass(25).await;
        assert_eq!(b.beat(split.split_id, split.token).await[0].as_deref(), Some("ok"));
    }
    assert_eq!(b.hand.complete(&split).await, "ok");
    assert_eq!(b.hand.count("divvy.attempt").await, 0);
}

#[tokio::test]
async fn a_lease_is_lost_when_it_is_taken_not_when_its_time_is_over() {
    let mut b = bench("{}").await;
    b.hand.insert("(task_type) values ('x')").await;
    let split = b.hand.claim_one("x").await;
    b.clock.advance(Duration::from_secs(7200)).await;
    assert_eq!(b.hand.call("checkpoint", &split, "'1'").await, "ok");
    assert_eq!(b.hand.complete(&split).await, "ok");
}

#[tokio::test]
async fn a_heartbeat_renews_exactly_the_tokens_it_names() {
    let mut b = bench("{}").await;
    b.hand.run("insert into divvy.task (task_type) select 'x' from generate_series(1, 4)").await;
    let renewed = b.hand.claim("x", 2).await;
    let left = b.hand.claim("x", 2).await;
    b.pass(20).await;
    // One split of the claim is named: its lease is that of both.
    b.beat(renewed[0].split_id, renewed[0].token).await;
    b.pass(20).await;
    for split in &renewed {
        assert_eq!(b.hand.state(split.split_id).await, "running");
    }
    for split in &left {
        assert_eq!(b.hand.state(split.split_id).await, "ready");
        assert_eq!(b.beat(split.split_id, split.token).await[0].as_deref(), Some("lost"));
    }
}

#[tokio::test]
async fn no_lease_outlives_the_timeout_however_often_it_is_renewed() {
    let mut b = bench(r#"{"timeout": "1 min", "backoff": {"kind": "fixed", "base": 5, "jitter": 0}}"#).await;
    b.hand.insert("(task_type) values ('x')").await;
    let split = b.hand.claim_one("x").await;
    for _ in 0..5 {
        b.pass(10).await;
        b.beat(split.split_id, split.token).await;
    }
    let until_end: bool =
        b.hand.get("select lease_until = claimed_at + interval '1 min' from divvy.lease").await;
    assert!(until_end);
    b.pass(10).await;
    assert_eq!(b.hand.state(split.split_id).await, "delayed");
    assert_eq!(b.hand.get::<String>("select outcome from divvy.attempt").await, "timeout");
    assert_eq!(b.hand.complete(&split).await, "DV001");
}

#[tokio::test]
async fn a_lease_asked_for_that_is_longer_than_the_timeout_ends_with_it() {
    let mut b = bench(r#"{"timeout": "1 min"}"#).await;
    b.hand.insert("(task_type) values ('x')").await;
    let held: String = b
        .hand
        .get(&format!(
            "select (lease_until - divvy.clock())::text from divvy.claim('{}', '{{x}}', 1, '1 hour')",
            b.hand.worker
        ))
        .await;
    assert_eq!(held, "00:01:00");
}

#[tokio::test]
async fn after_a_pause_of_ticks_reclaim_waits_one_lease() {
    let mut b = bench("{}").await;
    b.hand.insert("(task_type) values ('x')").await;
    let split = b.hand.claim_one("x").await;
    b.clock.advance(Duration::from_secs(120)).await;
    assert_eq!(b.duty.get::<i32>("select divvy.reclaim()").await, 0, "nobody could renew meanwhile");
    b.pass(25).await;
    assert_eq!(b.hand.state(split.split_id).await, "running");
    b.pass(5).await;
    assert_eq!(b.hand.state(split.split_id).await, "ready");
}

#[tokio::test]
async fn after_a_start_of_the_server_reclaim_waits_one_lease() {
    let mut b = bench("{}").await;
    b.hand.insert("(task_type) values ('x')").await;
    let split = b.hand.claim_one("x").await;
    b.pass(25).await;
    // The server that ticked last was another one.
    b.duty.run("update divvy.pulse set server_start = server_start - interval '1 s'").await;
    b.pass(25).await;
    assert_eq!(b.hand.state(split.split_id).await, "running");
    assert_eq!(
        b.beat(split.split_id, split.token).await[0].as_deref(),
        Some("ok"),
        "its worker is back in time"
    );
    b.pass(25).await;
    assert_eq!(b.hand.complete(&split).await, "ok");
}

#[tokio::test]
async fn five_expiries_in_a_row_put_a_split_aside() {
    let mut b = bench("{}").await;
    let task = b.hand.insert("(task_type) values ('x')").await;
    for expiry in 1..=5 {
        let split = b.hand.claim_one("x").await;
        assert_eq!(split.attempt, expiry);
        b.pass(35).await;
    }
    let why: String =
        b.hand.get(&format!("select state || ' ' || reason from divvy.unit where id = {task}")).await;
    assert_eq!(why, "failed crashes");
    assert_eq!(b.hand.status(task).await, "failed");
    assert!(b.hand.claim("x", 1).await.is_empty());
}

#[tokio::test]
async fn an_attempt_that_ends_by_itself_breaks_the_row_of_expiries() {
    let mut b = bench(r#"{"backoff": {"kind": "fixed", "base": 0, "jitter": 0}}"#).await;
    let task = b.hand.insert("(task_type) values ('x')").await;
    for round in 1..=9 {
        let split = b.hand.claim_one("x").await;
        if round == 5 {
            assert_eq!(b.hand.call("fail", &split, r#"'{"class": "x"}'"#).await, "ok");
        } else {
            b.pass(35).await;
        }
    }
    assert_eq!(b.hand.state(task).await, "ready", "four in a row, twice");
}

#[tokio::test]
async fn release_and_snooze_use_no_attempt() {
    let mut b = bench(r#"{"max_attempts": 1}"#).await;
    b.hand.insert("(task_type) values ('x')").await;
    for _ in 0..20 {
        let split = b.hand.claim_one("x").await;
        assert_eq!(split.attempt, 1);
        assert_eq!(b.hand.call("release", &split, "").await, "ok");
        let split = b.hand.claim_one("x").await;
        assert_eq!(split.attempt, 1);
        assert_eq!(b.hand.call("snooze", &split, "'0 s'").await, "ok");
    }
    assert_eq!(b.hand.count("divvy.attempt").await, 0);
    let split = b.hand.claim_one("x").await;
    assert_eq!(b.hand.call("fail", &split, r#"'{"class": "x"}'"#).await, "ok");
    assert_eq!(b.hand.state(split.split_id).await, "failed", "the one attempt is used");
}

#[tokio::test]
async fn a_claim_whose_transaction_rolls_back_holds_nothing() {
    let mut b = bench("{}").await;
    b.hand.insert("(task_type) values ('x')").await;
    b.hand.run("begin").await;
    b.hand.claim_one("x").await;
    b.hand.run("rollback").await;
    assert_eq!(b.hand.count("divvy.lease").await, 0);
    let mut other = Hand::new(&b.db).await;
    assert_eq!(other.claim_one("x").await.attempt, 1);
}

#[tokio::test]
async fn the_splits_of_a_lease_that_are_done_stay_done_when_it_ends() {
    let mut b = bench("{}").await;
    b.hand.divided("x", 3).await;
    let splits = b.hand.claim("x", 3).await;
    assert_eq!(b.hand.complete(&splits[1]).await, "ok");
    b.pass(35).await;
    let states: Vec<String> = b.hand.all("select state::text from divvy.share order by split_no").await;
    assert_eq!(states, ["ready", "succeeded", "ready"]);
    assert_eq!(b.hand.count("divvy.lease").await, 0);
}
