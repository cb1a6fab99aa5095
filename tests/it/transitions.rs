//! Every state and every call: what becomes of a split, what becomes of a task, impossible pairs included.
//!
//! The two tables are the truth; a cell is the new state, or the error code of a call that changes nothing.

use crate::support::clock::Clock;
use crate::support::db::TestDb;
use sqlx::{PgConnection, Row};
use std::time::Duration;

const WORKER: &str = "00000000-0000-0000-0000-000000000001";

/// A split of a divided task that stays open: another split of it waits, or runs.
const SPLITS: &str = "
            complete   fail     stop    snooze   release  await      checkpoint  lease_end  promote    cancel     skip     redrive  pause      resume
delayed     DV001      DV001    DV001   DV001    DV001    DV001      DV001       delayed    ready      cancelled  skipped  DV004    delayed    delayed
ready       DV001      DV001    DV001   DV001    DV001    DV001      DV001       ready      ready      cancelled  skipped  DV004    delayed    ready
running     succeeded  delayed  failed  delayed  ready    running    running     ready      running    running    skipped  DV004    running    running
succeeded   DV001      DV001    DV001   DV001    DV001    DV001      DV001       succeeded  succeeded  succeeded  DV004    DV004    succeeded  succeeded
failed      DV001      DV001    DV001   DV001    DV001    DV001      DV001       failed     failed     failed     skipped  DV004    failed     failed
cancelled   DV002      DV002    DV002   DV002    DV002    DV002      DV002       cancelled  cancelled  cancelled  DV004    DV004    cancelled  cancelled
skipped     DV001      DV001    DV001   DV001    DV001    DV001      DV001       skipped    skipped    skipped    DV004    DV004    skipped    skipped
";

/// A task nobody works on just now.
const TASKS: &str = "
            moment     cancel     redrive  payload    priority   reschedule  pause      resume     forget     deadline
scheduled   running    cancelled  DV004    scheduled  scheduled  scheduled   scheduled  scheduled  DV004      failed
planning    planning   cancelled  DV004    DV004      planning   planning    planning   planning   DV004      failed
running     running    cancelled  DV004    DV004      running    running     running    running    DV004      failed
reducing    reducing   cancelled  DV004    DV004      reducing   reducing    reducing   reducing   DV004      failed
succeeded   succeeded  succeeded  DV004    DV004      DV004      DV004       DV004      succeeded  succeeded  succeeded
partial     partial    partial    running  DV004      DV004      DV004       DV004      partial    partial    partial
failed      failed     failed     running  DV004      DV004      DV004       DV004      failed     failed     failed
cancelled   cancelled  cancelled  running  DV004      DV004      DV004       DV004      cancelled  cancelled  cancelled
";

/// (state, call, outcome) of every cell.
fn cells(table: &str) -> Vec<(&str, &str, &str)> {
    let mut lines = table.lines().filter(|line| !line.trim().is_empty());
    let calls: Vec<&str> = lines.next().expect("a head").split_whitespace().collect();
    lines
        .flat_map(|line| {
            let mut words = line.split_whitespace();
            let state = words.next().expect("a state");
            let outcomes: Vec<&str> = words.collect();
            assert_eq!(outcomes.len(), calls.len(), "the row of {state} has every call");
            calls
                .iter()
                .copied()
                .zip(outcomes)
                .map(move |(call, outcome)| (state, call, outcome))
                .collect::<Vec<_>>()
        })
        .collect()
}

struct Bench {
    db: TestDb,
    connection: PgConnection,
    clock: Clock,
}

impl Bench {
    async fn new(db: TestDb) -> Self {
        let clock = Clock::stop(&db).await;
        let connection = db.connect().await;
        let mut bench = Self { db, connection, clock };
        bench.value("select divvy.put_task_type('plain')::text").await.unwrap();
        bench
            .value(r#"select divvy.put_task_type('whole', '{"plan": true, "reduce": true}')::text"#)
            .await
            .unwrap();
        bench
            .value(&format!(
                "select command from divvy.register_worker('{WORKER}', 'bench', '{{plain,whole}}', 1)"
            ))
            .await
            .unwrap();
        bench
    }

    /// The first value of the first row, or the error's code.
    async fn value(&mut self, sql: &str) -> Result<Option<String>, String> {
        let row = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).fetch_optional(&mut self.connection).await;
        match row {
            Ok(row) => Ok(row.and_then(|row| row.try_get::<Option<String>, _>(0).ok().flatten())),
            Err(error) => {
                let error = error.as_database_error().unwrap_or_else(|| panic!("{sql}: {error}"));
                let code = error.code().unwrap_or_default().into_owned();
                assert!(code.starts_with("DV"), "{sql}: {error}");
                Err(code)
            }
        }
    }

    async fn id(&mut self, sql: &str) -> i64 {
        self.value(sql).await.unwrap().expect(sql).parse().expect(sql)
    }

    /// Claims one split of the type; its token.
    async fn claim(&mut self, task_type: &str) -> (i64, i64) {
        let got = self
            .value(&format!(
                "select split_id || ' ' || token from divvy.claim('{WORKER}', '{{{task_type}}}')"
            ))
            .await
            .unwrap()
            .expect("something to claim");
        let (split, token) = got.split_once(' ').unwrap();
        (split.parse().unwrap(), token.parse().unwrap())
    }

    /// Nothing of an earlier cell may be claimed by a later one.
    async fn clear(&mut self) {
        for table in ["task", "share", "lease", "stretch", "given", "ended", "dropped"] {
            self.value(&format!("delete from divvy.{table}")).await.unwrap();
        }
    }

    /// Lets leases end: in steps, because a gap between two looks counts as a pause of the database.
    async fn let_leases_end(&mut self) {
        for _ in 0..9 {
            self.value("select divvy.reclaim()::text").await.unwrap();
            self.clock.advance(Duration::from_secs(5)).await;
        }
        self.value("select divvy.reclaim()::text").await.unwrap();
    }
}

/// A split in the state, of a task that is open: (task, split, the token that held it).
async fn split_in(bench: &mut Bench, state: &str) -> (i64, i64, i64) {
    bench.clear().await;
    let task = bench
        .id("insert into divvy.task (task_type, split_count, max_failed) values ('plain', 2, 5) returning id::text")
        .await;
    let first = format!("select id::text from divvy.split where task_id = {task} and split_no = 1");
    if state == "ready" {
        return (task, bench.id(&first).await, 0);
    }
    let (split, token) = bench.claim("plain").await;
    let call = match state {
        "running" => return (task, split, token),
        "delayed" => format!("select divvy.snooze({split}, {token}, '1 hour')::text"),
        "succeeded" => format!("select divvy.complete({split}, {token})"),
        "failed" => format!("select status from divvy.fail({split}, {token}, '{{}}', false)"),
        "skipped" => format!("select divvy.skip_split({split})::text"),
        "cancelled" => {
            let (_running, _) = bench.claim("plain").await;
            bench.value(&format!("select divvy.cancel({task})")).await.unwrap();
            format!("select divvy.release({split}, {token})::text")
        }
        other => panic!("no way to make a split {other}"),
    };
    bench.value(&call).await.unwrap();
    (task, split, token)
}

async fn call_split(
    bench: &mut Bench,
    call: &str,
    (task, split, token): (i64, i64, i64),
) -> Result<(), String> {
    let sql = match call {
        "complete" => format!("select divvy.complete({split}, {token}, '1')"),
        "fail" => format!("select status from divvy.fail({split}, {token}, '{{\"message\": \"no\"}}')"),
        "stop" => format!("select status from divvy.fail({split}, {token}, '{{}}', false)"),
        "snooze" => format!("select divvy.snooze({split}, {token}, '1 min')::text"),
        "release" => format!("select divvy.release({split}, {token})::text"),
        "await" => format!("select divvy.await_callback({split}, {token})::text"),
        "checkpoint" => format!("select divvy.checkpoint({split}, {token}, '{{}}', 0.5)::text"),
        "cancel" => format!("select divvy.cancel({task})"),
        "skip" => format!("select divvy.skip_split({split})::text"),
        "redrive" => format!("select divvy.redrive({task})::text"),
        "pause" => format!("select divvy.pause_task({task})::text"),
        "resume" => format!("select divvy.resume_task({task})::text"),
        "promote" => {
            bench.clock.advance(Duration::from_secs(7200)).await;
            "select divvy.promote()::text".into()
        }
        "lease_end" => {
            bench.let_leases_end().await;
            return Ok(());
        }
        other => panic!("no call {other}"),
    };
    bench.value(&sql).await.map(drop)
}

#[tokio::test]
async fn every_call_on_a_split_in_every_state_does_what_the_table_says() {
    every_cell_of_splits(Bench::new(TestDb::new().await).await).await;
}

#[tokio::test]
async fn every_call_on_a_split_that_lies_in_a_stretch_does_what_the_table_says() {
    every_cell_of_splits(Bench::new(TestDb::all_in_stretches().await).await).await;
}

async fn every_cell_of_splits(mut bench: Bench) {
    let mut wrong = Vec::new();
    for (state, call, expected) in cells(SPLITS) {
        let at = split_in(&mut bench, state).await;
        let now = |id| format!("select status from divvy.split where id = {id}");
        let before = bench.value(&now(at.1)).await.unwrap().unwrap();
        assert_eq!(before, state, "the split to call {call} on");
        let outcome = match call_split(&mut bench, call, at).await {
            Ok(()) => bench.value(&now(at.1)).await.unwrap().unwrap(),
            Err(code) => {
                assert_eq!(
                    bench.value(&now(at.1)).await.unwrap().unwrap(),
                    state,
                    "{call} raised and changed it"
                );
                code
            }
        };
        if outcome != expected {
            wrong.push(format!("{state} + {call} = {outcome}, the table says {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A task in the status, that nobody works on.
async fn task_in(bench: &mut Bench, status: &str) -> i64 {
    bench.clear().await;
    let insert = match status {
        "scheduled" => "('plain', '{}', divvy.clock() + interval '1 hour', null, null)",
        "planning" => "('whole', '{}', null, null, null)",
        "running" => "('plain', '{}', null, 2, null)",
        "reducing" => "('whole', '{}', null, 1, null)",
        "partial" => "('plain', '{}', null, 2, 1)",
        _ => "('plain', '{}', null, null, null)",
    };
    let task = bench
        .id(&format!("insert into divvy.task (task_type, payload, run_at, split_count, max_failed) values {insert} returning id::text"))
        .await;
    match status {
        "reducing" => {
            let (split, token) = bench.claim("whole").await;
            bench.value(&format!("select divvy.complete({split}, {token})")).await.unwrap();
        }
        "succeeded" => {
            let (split, token) = bench.claim("plain").await;
            bench.value(&format!("select divvy.complete({split}, {token})")).await.unwrap();
        }
        "partial" => {
            let (split, token) = bench.claim("plain").await;
            bench
                .value(&format!("select status from divvy.fail({split}, {token}, '{{}}', false)"))
                .await
                .unwrap();
            let (split, token) = bench.claim("plain").await;
            bench.value(&format!("select divvy.complete({split}, {token})")).await.unwrap();
        }
        "failed" => {
            let (split, token) = bench.claim("plain").await;
            bench
                .value(&format!("select status from divvy.fail({split}, {token}, '{{}}', false)"))
                .await
                .unwrap();
        }
        "cancelled" => drop(bench.value(&format!("select divvy.cancel({task})")).await.unwrap()),
        _ => {}
    }
    task
}

async fn call_task(bench: &mut Bench, call: &str, task: i64) -> Result<(), String> {
    let sql = match call {
        "cancel" => format!("select divvy.cancel({task})"),
        "redrive" => format!("select divvy.redrive({task})::text"),
        "payload" => format!("select divvy.update_task({task}, '{{\"payload\": {{\"n\": 1}}}}')::text"),
        "priority" => format!("select divvy.update_task({task}, '{{\"priority\": 1}}')::text"),
        "reschedule" => format!("select divvy.reschedule({task}, divvy.clock() + interval '1 day')::text"),
        "pause" => format!("select divvy.pause_task({task})::text"),
        "resume" => format!("select divvy.resume_task({task})::text"),
        "forget" => format!("select divvy.forget({task})::text"),
        "moment" => {
            bench.clock.advance(Duration::from_secs(7200)).await;
            "select divvy.promote()::text".into()
        }
        "deadline" => {
            bench
                .value(&format!(
                    "update divvy.task set deadline_at = divvy.clock() where id = {task} and finished_at is null"
                ))
                .await
                .unwrap();
            "select divvy.reclaim()::text".into()
        }
        other => panic!("no call {other}"),
    };
    bench.value(&sql).await.map(drop)
}

#[tokio::test]
async fn every_call_on_a_task_in_every_status_does_what_the_table_says() {
    every_cell_of_tasks(Bench::new(TestDb::new().await).await).await;
}

#[tokio::test]
async fn every_call_on_a_task_whose_splits_lie_in_stretches_does_what_the_table_says() {
    every_cell_of_tasks(Bench::new(TestDb::all_in_stretches().await).await).await;
}

async fn every_cell_of_tasks(mut bench: Bench) {
    let mut wrong = Vec::new();
    for (status, call, expected) in cells(TASKS) {
        let task = task_in(&mut bench, status).await;
        let now = format!("select status::text from divvy.task where id = {task}");
        let before = bench.value(&now).await.unwrap().unwrap();
        assert_eq!(before, status, "the task to call {call} on");
        let outcome = match call_task(&mut bench, call, task).await {
            Ok(()) => bench.value(&now).await.unwrap().unwrap(),
            Err(code) => {
                assert_eq!(bench.value(&now).await.unwrap().unwrap(), status, "{call} raised and changed it");
                code
            }
        };
        if outcome != expected {
            wrong.push(format!("{status} + {call} = {outcome}, the table says {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!bench.db.name().is_empty());
}

#[tokio::test]
async fn the_tables_name_every_state_there_is() {
    let mut bench = Bench::new(TestDb::new().await).await;
    for (table, kind) in [(SPLITS, "split_status"), (TASKS, "task_status")] {
        let states: std::collections::BTreeSet<&str> = cells(table).iter().map(|cell| cell.0).collect();
        let there = bench
            .value(&format!("select string_agg(v::text, ',') from unnest(enum_range(null::divvy.{kind})) v"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(states, there.split(',').collect(), "{kind}");
    }
}
