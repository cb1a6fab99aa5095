//! No call that divvy makes while it works reads in proportion to what there was: with any statistics, in sessions that planned
//! their calls while the tables were empty or small, and in new ones.
//!
//! Before: a heartbeat, planned on small tables, that joined by merge over every task there was; alerts and samples that scanned all
//! tasks once for each type.

mod cases;

use crate::support::db::TestDb;
use crate::support::hand::Hand;
use cases::{OF_EACH_TYPE, ONCE, OTHER_TYPES, TYPES};

/// What a call may read of any table or index: its work, and dead entries of calls before it. The history has 100,000 of each kind and more.
const READ_MAX: i64 = 30_000;

async fn declared() -> (TestDb, Hand) {
    let db = TestDb::new().await;
    let mut hand = Hand::new(&db).await;
    for (task_type, options) in TYPES.iter().chain(OTHER_TYPES) {
        hand.declare(task_type, options).await;
    }
    let tables: Vec<String> = hand
        .all(
            "select relname::text from pg_class where relnamespace = 'divvy'::regnamespace and relkind = 'r'",
        )
        .await;
    for table in tables {
        hand.run(&format!("alter table divvy.{table} set (autovacuum_enabled = off)")).await;
    }
    (db, hand)
}

async fn session(db: &TestDb) -> Hand {
    let mut hand = Hand::new(db).await;
    let sql = include_str!("bounded/session.sql").replace(":worker", &format!("'{}'", hand.worker));
    hand.run(&sql).await;
    hand
}

/// Each call in a transaction that is rolled back. What reads too much.
async fn calls(hand: &mut Hand, when: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (task_type, _) in TYPES {
        found.extend(calls_of(hand, task_type, when).await);
    }
    for (name, before, call) in ONCE {
        found.extend(one(hand, name, before, call, when).await);
    }
    found
}

async fn calls_of(hand: &mut Hand, task_type: &str, when: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, before, call) in OF_EACH_TYPE {
        let before = format!("select {}", before.replace("{t}", task_type));
        let call = call.replace("{t}", task_type).replace("{w}", &hand.worker.to_string());
        found.extend(one(hand, &format!("{name} ({task_type})"), &before, &call, when).await);
    }
    found
}

async fn one(hand: &mut Hand, name: &str, before: &str, call: &str, when: &str) -> Option<String> {
    hand.run(&format!("begin; {before}")).await;
    let call = call.replace('\'', "''");
    let read: Option<String> = hand.get(&format!("select pg_temp.too_much('{call}', {READ_MAX})")).await;
    hand.run("rollback").await;
    read.map(|read| format!("{name}, {when}: {read}"))
}

/// What the planner knows of the tables from now on.
const ANALYZE: &str = "analyze divvy.task; analyze divvy.share; analyze divvy.lease; analyze divvy.attempt; analyze divvy.event";

async fn with_history_after(small: Option<&str>) {
    let (db, mut hand) = declared().await;
    if let Some(rows) = small {
        hand.run(rows).await;
    }
    hand.run(ANALYZE).await;
    let mut early = session(&db).await;
    // As a session does that has called everything some times, and settled for one plan for all values.
    early.run("set plan_cache_mode = force_generic_plan").await;
    calls(&mut early, "on small tables").await;
    for statement in include_str!("bounded/history.sql").split_inclusive(";\n") {
        hand.run(statement).await;
    }
    let mut found = calls(&mut early, "with plans of before").await;
    let mut fresh = session(&db).await;
    found.extend(calls(&mut fresh, "with statistics of before").await);
    // As autovacuum does in the middle of it all.
    hand.run(ANALYZE).await;
    found.extend(calls(&mut early, "with statistics of the history, in an old session").await);
    assert!(found.is_empty(), "read in proportion to the history:\n{}", found.join("\n"));
}

#[tokio::test]
async fn no_call_reads_the_history_with_plans_and_statistics_of_empty_tables() {
    with_history_after(None).await;
}

#[tokio::test]
async fn no_call_reads_the_history_with_plans_and_statistics_of_500_rows() {
    with_history_after(Some(
        "insert into divvy.task (task_type) select 'plain' from generate_series(1, 500);
         insert into divvy.task (task_type, split_count) select 'divided', 20 from generate_series(1, 25);
         update divvy.task set finished_at = now(), state = case when phase is not null then 'succeeded' end::divvy.split_status, status = 'succeeded', watched = phase is not null;
         update divvy.share set finished_at = now(), state = 'succeeded'",
    ))
    .await;
}

/// Rows that are deleted, which nobody may remove while somebody reads: a vacuum says that the tables are as good as empty.
const DELETED: &[&str] = &[
    "insert into divvy.task (task_type) select 'plain' from generate_series(1, 100000)",
    "insert into divvy.task (task_type, split_count) select 'divided', 20 from generate_series(1, 5000)",
    "update divvy.task set created_at = now() - interval '90 days', finished_at = now() - interval '80 days', state = case when phase is not null then 'succeeded' end::divvy.split_status, status = 'succeeded', watched = phase is not null",
    "select divvy.prune(1000000)",
    "vacuum (analyze) divvy.task, divvy.share",
];

#[tokio::test]
async fn no_call_reads_what_was_deleted_and_an_old_snapshot_keeps() {
    let (db, mut hand) = declared().await;
    let mut reader = Hand::new(&db).await;
    reader.run("begin isolation level repeatable read; select count(*) from divvy.task").await;
    for statement in DELETED {
        hand.run(statement).await;
    }
    let empty: bool = hand.get("select min(relpages) > 1000 and max(reltuples) = 0 from pg_class where oid in ('divvy.task'::regclass, 'divvy.share'::regclass)").await;
    assert!(empty, "the planner should take them for empty");
    // The marks follow once, as they do in every second of a worker.
    hand.run("select divvy.advance_low_water(), divvy.raise_marks(name, null, 0) from divvy.task_type").await;
    let found = calls(&mut session(&db).await, "after a vacuum that could remove nothing").await;
    assert!(found.is_empty(), "read in proportion to what was deleted:\n{}", found.join("\n"));
    reader.run("rollback").await;
}

/// Half of a large task has ended, one by one. What was analyzed is all of other tasks.
const HALF_ENDED: &[&str] = &[
    "select divvy.advance_low_water()",
    "insert into divvy.ended (share_of, first_no, last_no, id_base, token, worker, started_at, finished_at)
     select -i, 1, 9, (1::bigint << 60) + i * 10, 1, gen_random_uuid(), now(), now() from generate_series(1, 30000) i",
    "analyze divvy.ended",
    "insert into divvy.task (task_type, split_count) values ('large', 300000)",
    "insert into divvy.ended (share_of, first_no, last_no, id_base, token, worker, started_at, finished_at)
     select s.share_of, n, n, s.id_base, 1, gen_random_uuid(), now(), now()
     from divvy.stretch s, generate_series(s.first_no, (s.first_no + s.last_no) / 2) n",
    "update divvy.stretch s set first_no = (select max(e.last_no) + 1 from divvy.ended e
     where e.share_of = s.share_of and e.first_no between s.first_no and s.last_no)",
];

#[tokio::test]
async fn no_call_reads_all_that_has_ended_of_a_large_task_that_statistics_do_not_know() {
    let (db, mut hand) = declared().await;
    for statement in HALF_ENDED {
        hand.run(statement).await;
    }
    assert!(hand.count("divvy.ended where share_of > 0").await > 140_000);
    let found = calls_of(&mut session(&db).await, "large", "beside what has ended of a large task").await;
    assert!(found.is_empty(), "read in proportion to what has ended:\n{}", found.join("\n"));
}

/// What a worker may call and no case is about, because it reads one row by its id, or nothing of what grows.
const ELSEWHERE: &[&str] = &[
    "clock",
    "idle_span",
    "protocol",
    "lock_of",
    "lead",
    "somebody_leads",
    "numbers",
    "fingerprint",
    "secret_values",
    "due_times",
    "token_of",
    "act_as",
    "take_key",
    "keep_answer",
    "open_breaker",
    "probe_breaker",
    "close_breaker",
    "await_callback",
    "callback_token",
    "schedules_to_plan",
    "plan_schedule",
    "refuse_schedule",
    "attempts_by_id",
    "ended_through",
    "payload_of",
    // Of these a case calls what calls them.
    "findings",
    "waiting_of",
    "running_by_type",
    "scheduled_by_type",
    "may_start",
    "running_by_worker",
];

#[tokio::test]
async fn every_function_that_a_worker_may_call_is_among_the_calls() {
    let (_db, mut hand) = declared().await;
    let functions: Vec<String> = hand
        .all(
            "select distinct proname::text from pg_proc p where pronamespace = 'divvy'::regnamespace
                and has_function_privilege('divvy_worker', p.oid, 'execute') order by 1",
        )
        .await;
    let text: String =
        OF_EACH_TYPE.iter().chain(ONCE).map(|(_, before, call)| format!("{before} {call}\n")).collect();
    let missing: Vec<&String> = functions
        .iter()
        .filter(|name| !ELSEWHERE.contains(&name.as_str()) && !text.contains(&format!("divvy.{name}(")))
        .collect();
    assert!(missing.is_empty(), "no case calls {missing:?}");
}
