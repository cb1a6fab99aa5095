//! What a claim may not take costs it nothing: splits that wait for a moment, and what an open producer keeps the mark from
//! passing.

use super::measured::{BATCH, Measured};
use crate::support::db::TestDb;
use crate::support::hand::Hand;
use crate::support::race::{DEADLINE, until};
use std::time::{Duration, Instant};

/// Delayed tasks, and as many shares; DIVVY_TEST_DELAYED overrules it.
const DELAYED: i32 = 50_000;
/// Entries between the mark and where workers are.
const HELD_BACK: i64 = 50_000;

#[tokio::test]
async fn a_lane_with_100000_delayed_splits_costs_a_claim_nothing() {
    let db = TestDb::new().await;
    let mut hand = Hand::new(&db).await;
    hand.declare("x", "{}").await;
    // A reader of before: what the delays leave behind in the indexes can't be removed.
    let mut reader = Hand::new(&db).await;
    reader.run("begin isolation level repeatable read; select count(*) from divvy.task").await;
    let delayed = std::env::var("DIVVY_TEST_DELAYED").map_or(DELAYED, |n| n.parse().unwrap());
    hand.divided_into_rows("x", delayed).await;
    hand.run(&format!("insert into divvy.task (task_type) select 'x' from generate_series(1, {delayed})"))
        .await;
    // As so many calls of snooze would.
    for table in ["task", "share"] {
        hand.run(&format!(
            "update divvy.{table} set state = 'delayed', key = -key, due_at = now() + interval '1 hour' where state = 'ready'"
        ))
        .await;
    }
    assert_eq!(hand.count("divvy.split where status = 'delayed'").await, 2 * i64::from(delayed));
    // The marks follow once, as they do in every second of a worker.
    hand.run("select divvy.advance_low_water(), divvy.raise_marks('x', null, 0)").await;
    let rounds = 6;
    let ready = i32::try_from(2 * rounds * BATCH).unwrap();
    hand.run(&format!("insert into divvy.task (task_type) select 'x' from generate_series(1, {ready})"))
        .await;
    hand.divided("x", ready).await;
    let mut early = Measured::new(&db, "beside 100,000 delayed splits, in a session that goes on").await;
    for _ in 0..rounds {
        let got = early.claim("x", "claim").await;
        early.complete_many(&got, "complete_many").await;
        let mut fresh = Measured::new(&db, "beside 100,000 delayed splits, in a new session").await;
        let got = fresh.claim("x", "claim").await;
        fresh.complete_many(&got, "complete_many").await;
    }
    for duty in ["promote(50)", "next_wait('{x}')", "raise_marks('x', null, 0)"] {
        early.run(&format!("divvy.{duty}")).await;
    }
    reader.run("rollback").await;
    // And what is due among them comes at once.
    hand.run("update divvy.task set due_at = now() where id = (select min(id) from divvy.task where state = 'delayed')")
        .await;
    assert_eq!(hand.get::<i32>("select divvy.promote()").await, 1);
    let left: i64 = hand.count("divvy.split where status = 'ready'").await;
    let mut got = 0;
    while got < left {
        let batch = hand.claim("x", 1_000).await;
        assert!(!batch.is_empty(), "{got} of {left}");
        got += batch.len() as i64;
    }
}

/// An open producer, so many entries after its key, and one more producer that is open too, behind them all.
struct HeldBack {
    db: TestDb,
    hand: Hand,
    holder: Hand,
    late: Hand,
    task: i64,
}

impl HeldBack {
    async fn new() -> Self {
        let db = TestDb::new().await;
        let (mut hand, mut holder, mut late) =
            (Hand::new(&db).await, Hand::new(&db).await, Hand::new(&db).await);
        hand.declare("x", "{}").await;
        holder.run("begin").await;
        let task = holder.insert("(task_type) values ('x')").await;
        // As workers would have left them by now.
        hand.run(&format!(
            "insert into divvy.task (task_type, status, state, attempt, token, worker, started_at, finished_at)
             select 'x', 'succeeded', 'succeeded', 1, nextval('divvy.token'), gen_random_uuid(), now(), now()
               from generate_series(1, {HELD_BACK})"
        ))
        .await;
        hand.run("vacuum (analyze) divvy.task").await;
        late.run("begin").await;
        late.insert("(task_type) values ('x')").await;
        let mut held = Self { db, hand, holder, late, task };
        until("the mark goes on without them", async || held.behind().await < HELD_BACK).await;
        held
    }

    /// How far the mark is behind, after a pass of the duty.
    async fn behind(&mut self) -> i64 {
        self.hand.run("select divvy.advance_low_water(), divvy.raise_marks('x', null, 0)").await;
        self.hand
            .get("select (select last_value from divvy.key) - mark from divvy.lane where task_type = 'x' and lane = 2")
            .await
    }

    /// So many ready splits, behind everything.
    async fn fill(&mut self, count: usize) {
        self.hand
            .run(&format!("insert into divvy.task (task_type) select 'x' from generate_series(1, {count})"))
            .await;
        self.hand.run("select divvy.advance_low_water()").await;
    }
}

#[tokio::test]
async fn a_producer_open_since_50000_entries_slows_no_claim_and_its_split_comes_within_seconds() {
    let mut held = HeldBack::new().await;
    held.fill(200 * BATCH).await;
    let mut m = Measured::new(&held.db, "behind two open producers").await;
    let (before, began) = (m.entries_read().await, Instant::now());
    let (mut rounds, mut committed, mut found) = (0, None, None);
    while found.is_none() {
        assert!(began.elapsed() < DEADLINE, "the late split is not claimed");
        let got = m.hand.claim("x", BATCH).await;
        assert!(!got.is_empty(), "there is enough for all");
        assert!(m.hand.complete_many(&got).await.iter().all(|v| v == "ok"));
        if got.iter().any(|split| split.task_id == held.task) {
            found = committed.map(|at: Instant| at.elapsed());
        }
        rounds += 1;
        if rounds == 40 {
            let read = m.entries_read().await - before;
            let each = 60 * BATCH as i64;
            assert!(read < rounds * each, "{read} entries read in {rounds} rounds");
            held.holder.run("commit").await;
            committed = Some(Instant::now());
        }
        if rounds % 100 == 0 {
            held.fill(100 * BATCH).await;
        }
        if rounds % 10 == 0 {
            held.hand.run("select divvy.advance_low_water()").await;
        }
    }
    let found = found.expect("the loop ended");
    assert!(found < Duration::from_secs(5), "claimed after {found:?}");
    held.late.run("commit").await;
}

#[tokio::test]
async fn idle_claims_and_waits_walk_over_nothing_that_an_open_producer_leaves_behind() {
    let mut held = HeldBack::new().await;
    let mut m = Measured::new(&held.db, "behind two open producers, with nothing ready").await;
    let before = m.entries_read().await;
    for _ in 0..20 {
        assert!(m.hand.claim("x", BATCH).await.is_empty());
        m.hand.run("select divvy.next_wait('{x}')").await;
    }
    let read = m.entries_read().await - before;
    assert!(read < HELD_BACK / 2, "{read} entries read by 20 claims and waits");
    held.late.run("rollback").await;
    held.holder.run("rollback").await;
}
