//! Plans that can't flip: whatever the statistics say, the hot calls find their rows by index and touch no others.

use crate::support::db::TestDb;
use crate::support::hand::{Claimed, Hand};

/// The rows that the statistics know of, or that they don't.
const MANY: i32 = 200_000;
/// Plain tasks, a task whose splits are rows, one whose splits lie in stretches.
const TYPES: [&str; 3] = ["plain", "divided", "large"];
/// What the hot calls are asked for at once.
const BATCH: usize = 50;
/// What they take of one type, together.
const BATCH_OF_ALL: i32 = 200;
/// Rows that a call of one batch may read from a table: each a few times, never the table.
const ROWS_READ_MAX: i64 = 60 * BATCH as i64;

/// The transaction so far has read these tables by index, and few rows of them.
async fn assert_by_index(hand: &mut Hand, call: &str, case: &str) {
    for table in ["task", "share", "stretch", "given", "ended"] {
        let counts: Vec<i64> = hand
            .get(&format!(
                "select array[seq_scan, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)]
                   from pg_stat_xact_user_tables where schemaname = 'divvy' and relname = '{table}'"
            ))
            .await;
        assert_eq!(counts[0], 0, "{call} scans divvy.{table} from end to end {case}");
        assert!(counts[1] <= ROWS_READ_MAX, "{call} reads {} rows of divvy.{table} {case}", counts[1]);
    }
}

/// Each call in a transaction, its reads counted.
async fn hot_calls(db: &TestDb, case: &str) {
    let mut hand = Hand::new(db).await;
    let mut claimed: Vec<Claimed> = Vec::new();
    for task_type in TYPES {
        hand.run("begin").await;
        let got = hand.claim(task_type, BATCH).await;
        assert_eq!(got.len(), BATCH, "{task_type} {case}");
        assert_by_index(&mut hand, "claim", case).await;
        hand.run("commit").await;
        claimed.extend(got);
    }
    for batch in claimed.chunks(BATCH) {
        hand.run("begin").await;
        let verdicts = hand.complete_many(batch).await;
        assert!(verdicts.iter().all(|v| v == "ok"), "{verdicts:?}");
        assert_by_index(&mut hand, "complete_many", case).await;
        hand.run("commit").await;
    }
    for task_type in TYPES {
        let split = hand.claim_one(task_type).await;
        hand.run("begin").await;
        assert_eq!(hand.complete(&split).await, "ok");
        assert_by_index(&mut hand, "complete", case).await;
        hand.run("commit").await;
        for (function, more) in [("fail", "'{}', true, '0 s'"), ("snooze", "'0 s'"), ("release", "")] {
            let split = hand.claim_one(task_type).await;
            hand.run("begin").await;
            assert_eq!(hand.call(function, &split, more).await, "ok");
            assert_by_index(&mut hand, function, case).await;
            hand.run("commit").await;
        }
    }
    for call in [
        "settle(50)",
        "reclaim(50)",
        "promote(50)",
        "prune(50)",
        "prune(50)",
        "advance_low_water()",
        "next_wait('{plain,divided,large}')",
    ] {
        hand.run("begin").await;
        hand.run(&format!("select divvy.{call}")).await;
        assert_by_index(&mut hand, call, case).await;
        hand.run("commit").await;
    }
    // Where nothing is left, finding that out is cheap too.
    hand.run("begin").await;
    assert!(hand.claim("empty", BATCH).await.is_empty());
    assert_by_index(&mut hand, "an empty claim", case).await;
    hand.run("commit").await;
}

async fn declared() -> (TestDb, Hand) {
    let db = TestDb::new().await;
    let mut hand = Hand::new(&db).await;
    for task_type in ["plain", "divided", "large", "empty"] {
        hand.declare(task_type, "{}").await;
    }
    hand.run("alter table divvy.task set (autovacuum_enabled = off)").await;
    hand.run("alter table divvy.share set (autovacuum_enabled = off)").await;
    (db, hand)
}

async fn fill(hand: &mut Hand, count: i32) {
    hand.run(&format!("insert into divvy.task (task_type) select 'plain' from generate_series(1, {count})"))
        .await;
    hand.divided_into_rows("divided", count).await;
    hand.divided("large", count.max(BATCH_OF_ALL)).await;
}

#[tokio::test]
async fn hot_calls_use_their_indexes_with_statistics_of_empty_tables() {
    let (db, mut hand) = declared().await;
    hand.run("analyze divvy.task; analyze divvy.share; analyze divvy.unit").await;
    fill(&mut hand, MANY).await;
    hot_calls(&db, "with 200,000 rows and statistics of none").await;
}

#[tokio::test]
async fn hot_calls_use_their_indexes_with_statistics_of_200000_ready_rows_that_are_done_by_now() {
    let (db, mut hand) = declared().await;
    fill(&mut hand, MANY).await;
    hand.run("analyze divvy.task; analyze divvy.share").await;
    hand.run(
        "update divvy.task set state = 'succeeded', status = 'succeeded', finished_at = now() where task_type = 'plain';
         update divvy.share set state = 'succeeded', finished_at = now()",
    )
    .await;
    // To find that the last of 200,000 splits has ended, each is read once.
    hand.run("select divvy.settle()").await;
    // The claim's index keeps what ended well, and a new session walks from the marks: they follow once somebody looks.
    hand.run("select divvy.advance_low_water(), divvy.raise_marks('plain'), divvy.raise_marks('divided')")
        .await;
    fill(&mut hand, 200).await;
    hot_calls(&db, "with statistics of 200,000 ready rows and few of them left").await;
}

#[tokio::test]
async fn hot_calls_use_their_indexes_without_any_statistics() {
    let (db, mut hand) = declared().await;
    fill(&mut hand, 500).await;
    hot_calls(&db, "on new tables").await;
}
