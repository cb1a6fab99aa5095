//! Plans that can't flip: whatever the statistics say, the hot calls find their rows by index and touch no others.
//!
//! What counts is what a call did: scans from end to end, rows read by index, and entries of indexes walked over (dead ones
//! among them). An index that is used in the wrong way reads too many rows, whatever its plan is called.

use super::measured::{BATCH, Measured};
use crate::support::db::TestDb;
use crate::support::hand::{Claimed, Hand};

/// The rows that the statistics know of, or that they don't.
const MANY: i32 = 100_000;
/// Plain tasks, a task whose splits are rows, one whose splits lie in stretches.
const TYPES: [&str; 3] = ["plain", "divided", "large"];
/// What the hot calls take of a type, together, at most.
const TAKEN_MAX: i32 = 400;
/// Leases of other workers, which hot calls must not walk over.
const LEASES: i32 = 10_000;

/// Each call in a transaction, its reads counted.
async fn hot_calls(m: &mut Measured, case: &'static str) {
    m.case = case;
    for task_type in TYPES {
        let claimed = m.claim(task_type, "claim").await;
        m.complete_many(&claimed, "complete_many").await;
        // What is written down ends on another path.
        let claimed = m.claim(task_type, "a second claim").await;
        m.run(&format!("divvy.write_down('{{{}}}')", ids(&claimed))).await;
        m.complete_many(&claimed, "complete_many of what is written down").await;
        exchange(m, task_type).await;
        singles(m, task_type).await;
    }
    fan_in(m).await;
    m.run("divvy.advance_low_water()").await;
    m.run("divvy.raise_marks('plain', null, 0)").await;
    m.run("divvy.raise_marks('divided', null, 0)").await;
    for duty in [
        "settle(50)",
        "reclaim(50)",
        "promote(50)",
        "prune(50)",
        "prune(50)",
        "next_wait('{plain,divided,large}')",
    ] {
        m.run(&format!("divvy.{duty}")).await;
    }
    // Where nothing is left, finding that out is cheap too.
    m.begin().await;
    assert!(m.hand.claim("empty", BATCH).await.is_empty());
    m.end("an empty claim").await;
}

/// The round trip of divvy's own worker: ends a batch and takes the next.
async fn exchange(m: &mut Measured, task_type: &str) {
    let claimed = m.claim(task_type, "a third claim").await;
    let tokens: Vec<String> = claimed.iter().map(|s| s.token.to_string()).collect();
    let held = format!("'{}', '{{{}}}', '{{{}}}'", m.hand.worker, ids(&claimed), tokens.join(","));
    m.run(&format!("divvy.heartbeat({held})")).await;
    m.begin().await;
    let taken: i64 = m
        .hand
        .get(&format!(
            "select sum(cardinality((part).split_ids))::bigint
               from divvy.exchange('{}', '{{{}}}', '{{{}}}', null, '{{{task_type}}}', {BATCH})",
            m.hand.worker,
            ids(&claimed),
            tokens.join(",")
        ))
        .await;
    m.end("exchange").await;
    assert_eq!(taken, BATCH as i64);
    if task_type == "large" {
        runs(m, task_type).await;
    }
}

/// The same in runs.
async fn runs(m: &mut Measured, task_type: &str) {
    let mut claimed = m.claim(task_type, "a fourth claim").await;
    claimed.sort_by_key(|split| (split.token, split.split_id));
    let runs: Vec<String> = claimed
        .chunk_by(|one, next| one.token == next.token)
        .map(|run| format!("{},{},{}", run[0].token, run[0].split_id, run[run.len() - 1].split_id))
        .collect();
    m.begin().await;
    let answers: i64 = m
        .hand
        .get(&format!(
            "select count(*) from divvy.exchange('{}', '{{}}', '{{}}', null, '{{{task_type}}}', {BATCH}, runs => '{{{}}}')
              where verdicts is null",
            m.hand.worker,
            runs.join(",")
        ))
        .await;
    m.end("exchange of runs").await;
    assert!(answers > 1, "all ended, and more were taken");
}

async fn singles(m: &mut Measured, task_type: &str) {
    for (function, more) in
        [("complete", ""), ("fail", "'{}', true, '0 s'"), ("snooze", "'0 s'"), ("release", "")]
    {
        let split = m.hand.claim_one(task_type).await;
        m.begin().await;
        assert_eq!(m.hand.call(function, &split, more).await, "ok");
        m.end(function).await;
    }
}

/// Whether a divided task is over is asked with every batch.
async fn fan_in(m: &mut Measured) {
    let task: i64 = m
        .hand
        .get("select max(share_of) from divvy.share where state = 'ready' and task_type = 'divided'")
        .await;
    // Without what the session remembers of it, and with it.
    m.hand.run("set divvy.open_split = ''").await;
    for call in ["has_open_split", "has_open_split", "settle_task"] {
        m.run(&format!("divvy.{call}({task})")).await;
    }
    m.run(&format!("divvy.look_at('{{{task}}}')")).await;
}

fn ids(splits: &[Claimed]) -> String {
    splits.iter().map(|s| s.split_id.to_string()).collect::<Vec<_>>().join(",")
}

async fn declared() -> (TestDb, Hand) {
    let db = TestDb::new().await;
    let mut hand = Hand::new(&db).await;
    for task_type in ["plain", "divided", "large", "empty"] {
        hand.declare(task_type, "{}").await;
    }
    for table in ["task", "share", "lease"] {
        hand.run(&format!("alter table divvy.{table} set (autovacuum_enabled = off)")).await;
    }
    (db, hand)
}

async fn fill(hand: &mut Hand, count: i32) {
    hand.run(&format!("insert into divvy.task (task_type) select 'plain' from generate_series(1, {count})"))
        .await;
    hand.divided_into_rows("divided", count).await;
    hand.divided("large", count.max(TAKEN_MAX)).await;
}

/// What other workers hold, in other lanes.
async fn others_leases(hand: &mut Hand) {
    hand.run(&format!(
        "insert into divvy.lease (token, worker, length, claimed_at, lease_until, deadline_at, split_ids, task_type, lane, lo_key, hi_key, written)
         select nextval('divvy.token'), gen_random_uuid(), '30 s', now(), now() + interval '1 hour', now() + interval '1 hour', '{{}}',
            case when i % 2 = 0 then 'plain' else 'divided' end, 3 + i % 2 * 10, 0, 0, false
           from generate_series(1, {LEASES}) i"
    ))
    .await;
}

/// As if a table were so large and had just been analysed: the planner takes the rows a page from here.
async fn say_a_million(hand: &mut Hand) {
    hand.run(
        "update pg_class c set reltuples = 1000000, relpages = pg_relation_size(c.oid) / 8192
          where c.oid in ('divvy.task'::regclass, 'divvy.share'::regclass)
            or c.oid in (select indexrelid from pg_index where indrelid in ('divvy.task'::regclass, 'divvy.share'::regclass))",
    )
    .await;
    let believed: f64 = hand
        .get("select (explain.plan -> 0 -> 'Plan' ->> 'Plan Rows')::float8 from (select pg_temp.plan_of('select from divvy.share') as plan) explain")
        .await;
    assert!((900_000.0..1_100_000.0).contains(&believed), "the planner believes in {believed} shares");
}

/// The planner's own word, for what the tests make it believe.
async fn explainer(hand: &mut Hand) {
    hand.run(
        "create function pg_temp.plan_of(p_sql text) returns jsonb language plpgsql as $$
         declare v_plan jsonb; begin execute 'explain (format json) ' || p_sql into v_plan; return v_plan; end $$",
    )
    .await;
}

#[tokio::test]
async fn hot_calls_use_their_indexes_with_statistics_of_empty_tables_and_of_a_million_rows() {
    let (db, mut hand) = declared().await;
    explainer(&mut hand).await;
    hand.run("analyze divvy.task; analyze divvy.share; analyze divvy.unit; analyze divvy.lease").await;
    // One that has planned everything while nothing was there, and goes on.
    let mut early = Measured::new(&db, "on empty tables").await;
    fill(&mut hand, 500).await;
    hot_calls(&mut early, "with 500 rows and statistics of none").await;
    fill(&mut hand, MANY).await;
    hot_calls(&mut early, "with 100,000 rows, statistics of none, and plans of before").await;
    others_leases(&mut hand).await;
    let mut fresh = Measured::new(&db, "").await;
    hot_calls(&mut fresh, "with 100,000 rows and statistics of none").await;

    hand.run("analyze divvy.task; analyze divvy.share; analyze divvy.unit; analyze divvy.lease").await;
    say_a_million(&mut hand).await;
    hot_calls(&mut early, "with statistics of a million rows, in an old session").await;
    let mut fresh = Measured::new(&db, "").await;
    hot_calls(&mut fresh, "with statistics of a million rows").await;
}

#[tokio::test]
async fn hot_calls_use_their_indexes_with_statistics_of_100000_ready_rows_that_are_done_by_now() {
    let (db, mut hand) = declared().await;
    fill(&mut hand, MANY).await;
    hand.run("analyze divvy.task; analyze divvy.share").await;
    hand.run(
        "update divvy.task set state = 'succeeded', status = 'succeeded', finished_at = now() where task_type = 'plain';
         update divvy.share set state = 'succeeded', finished_at = now()",
    )
    .await;
    // To find that the last of 100,000 splits has ended, each is read once.
    hand.run("select divvy.settle()").await;
    // The claim's index keeps what ended well, and a new session walks from the marks: they follow once somebody looks.
    hand.run("select divvy.advance_low_water(), divvy.raise_marks('plain', null, 0), divvy.raise_marks('divided', null, 0)")
        .await;
    fill(&mut hand, 300).await;
    let mut m = Measured::new(&db, "").await;
    hot_calls(&mut m, "with statistics of 100,000 ready rows and few of them left").await;

    // And pruned, while the statistics still tell of them: their entries stay until a vacuum.
    hand.run("delete from divvy.lease; delete from divvy.stretch; delete from divvy.given; delete from divvy.ended; delete from divvy.dropped;
             delete from divvy.share; delete from divvy.task").await;
    hand.run("select divvy.advance_low_water(), divvy.raise_marks('plain', null, 0), divvy.raise_marks('divided', null, 0)")
        .await;
    fill(&mut hand, 300).await;
    hot_calls(&mut m, "with statistics of 100,000 rows that are gone, in an old session").await;
    fill(&mut hand, 300).await;
    let mut m = Measured::new(&db, "").await;
    hot_calls(&mut m, "with statistics of 100,000 rows that are gone").await;
}

#[tokio::test]
async fn hot_calls_use_their_indexes_without_any_statistics() {
    let (db, mut hand) = declared().await;
    fill(&mut hand, 500).await;
    let mut m = Measured::new(&db, "").await;
    hot_calls(&mut m, "on new tables").await;
}
