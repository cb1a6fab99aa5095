//! `divvy bench`, in short: each subcommand through the program, its counts and its JSON.

use serde_json::Value;

use crate::support::db::TestDb;
use crate::support::program::{Said, divvy_on, ok, said};

/// The report of a run: the last line, after those that come while it runs.
fn report(db: &TestDb, arguments: &[&str]) -> Value {
    let out = ok(divvy_on(db.url(), &["bench", "--json"]).args(arguments));
    let last = out.lines().last().unwrap_or_default();
    let report: Value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {last}"));
    assert_eq!(report["command"], arguments[0]);
    for name in
        ["version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size"]
    {
        assert!(report["server"][name].as_str().is_some_and(|value| !value.is_empty()), "{name}: {report}");
    }
    for name in ["file_system", "date", "divvy"] {
        assert!(report["server"][name].is_string(), "{name}: {report}");
    }
    assert!(report["server"]["cores"].as_u64() > Some(0), "{report}");
    assert_eq!(report["counts"]["agree"], true, "{report}");
    assert!(count(&report, "inserted") > 0, "{report}");
    report
}

/// A way's rate, and its CPU time where the server is on this machine.
fn measured(report: &Value, way: &str) {
    let figure = &report["results"][way];
    assert!(figure["rate"].as_f64() > Some(0.0), "{way}: {report}");
    let local = report["server"]["local"] == true;
    assert_eq!(figure["server_us"].is_f64(), local, "{way}: {report}");
}

fn count(report: &Value, name: &str) -> u64 {
    report["counts"][name].as_u64().unwrap_or_else(|| panic!("{name}: {report}"))
}

#[tokio::test]
async fn drain_and_fanin_count_what_they_did_and_stand_beside_the_floor() {
    let db = TestDb::new().await;
    let drain = report(&db, &["drain", "--tasks", "1000", "--rounds", "2", "--payload-bytes", "200"]);
    let counts = ["inserted", "succeeded", "handler_calls"].map(|name| count(&drain, name));
    assert_eq!(counts, [2_000; 3], "{drain}");
    measured(&drain, "divvy");
    measured(&drain, "floor");
    assert!(drain["ratios"]["divvy_floor"]["rate"].is_f64(), "{drain}");
    assert_eq!(drain["results"]["divvy"]["rounds"].as_array().map(Vec::len), Some(2));

    let options = ["--history", "1500", "--backlog", "700", "--types", "3", "--in-flight", "10"];
    let drain =
        report(&db, &[&["drain", "--tasks", "500", "--rounds", "2", "--keep"], &options[..]].concat());
    assert!(count(&drain, "succeeded") >= 1_000, "{drain}");
    let left = count(&drain, "left_ready");
    assert!((1..=700).contains(&left), "the backlog is there once: {drain}");
    assert_eq!(count(&drain, "inserted"), count(&drain, "succeeded") + left);
    let (finished, types): (i64, i64) = sqlx::query_as(
        "select count(*) filter (where status = 'succeeded' and finished_at < now() - interval '50 min'),
            count(distinct task_type) from divvy.task_overview where task_type like 'bench.%'",
    )
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert_eq!((finished, types), (1_500, 3), "history is finished, and everything is spread over the types");

    let drain = report(&db, &["drain", "--tasks", "500", "--rounds", "1", "--types", "20"]);
    assert_eq!(count(&drain, "succeeded"), 1_000, "twenty types, and one: {drain}");
    ["divvy", "one_type", "floor"].iter().for_each(|way| measured(&drain, way));
    assert!(drain["ratios"]["divvy_one_type"]["rate"].is_f64(), "{drain}");
    let each = ["drain", "--tasks", "100", "--rounds", "1", "--types", "20", "--slots-each", "2"];
    assert_eq!(count(&report(&db, &each), "succeeded"), 200);

    let fanin = report(&db, &["fanin", "--tasks", "300", "--rounds", "1"]);
    assert_eq!(count(&fanin, "succeeded"), 600, "{fanin}");
    ["fanin", "single", "floor"].iter().for_each(|way| measured(&fanin, way));
    assert!(fanin["reduce_after_ms"]["median"].is_f64(), "{fanin}");
    let left: i64 = sqlx::query_scalar("select count(*) from divvy.task").fetch_one(db.pool()).await.unwrap();
    let kept: i64 =
        sqlx::query_scalar("select count(*) from divvy_bench.run where report -> 'server' ? 'fsync'")
            .fetch_one(db.pool())
            .await
            .unwrap();
    assert_eq!((left, kept), (0, 5), "tasks are gone, reports are kept");
}

#[tokio::test]
async fn limits_hold_while_they_are_measured_and_stand_beside_none() {
    let db = TestDb::new().await;
    let options = ["--tasks", "1000", "--rounds", "2", "--max-running", "20", "--groups", "150"];
    let limits = report(&db, &[&["limits"], &options[..]].concat());
    assert_eq!(count(&limits, "handler_calls"), 8_000, "{limits}");
    for way in ["unlimited", "max_running", "no_groups", "groups"] {
        measured(&limits, way);
    }
    for ratio in ["max_running_unlimited", "no_groups_unlimited", "groups_no_groups"] {
        assert!(limits["ratios"][ratio]["rate"].is_f64(), "{ratio}: {limits}");
    }
    assert_eq!(limits["max_running_binds"], true, "20 are fewer than what the worker has: {limits}");
}

#[tokio::test]
async fn steady_prints_a_line_for_each_interval_and_says_what_was_held() {
    let db = TestDb::new().await;
    let arguments = ["bench", "steady", "--json", "--secs", "2", "--interval", "1", "--hold-transaction"];
    let out = ok(&mut divvy_on(db.url(), &arguments));
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{out}");
    assert_eq!((&lines[0]["line"]["held"], &lines[1]["line"]["held"]), (&Value::Null, &"transaction".into()));
    assert!(lines[1]["line"]["pick_up"]["p99_ms"].is_f64(), "{out}");
    assert_eq!(lines[2]["counts"]["agree"], true, "{out}");
    assert!(lines[2]["ratios"]["last_before"]["rate"].is_f64(), "{out}");

    let arguments = ["steady", "--secs", "1", "--interval", "1"];
    let rated = report(&db, &[&arguments[..], &["--rate", "500"]].concat());
    assert!((1..=600).contains(&count(&rated, "inserted")), "{rated}");
    for design in ["floor", "s_ctid_cur"] {
        let floor = report(&db, &[&arguments[..], &["--design", design]].concat());
        measured(&floor, "steady");
    }
}

#[tokio::test]
async fn enqueue_latency_and_floor_measure_every_way() {
    let db = TestDb::new().await;
    let arguments = ["enqueue", "--tasks", "1500", "--rounds", "1", "--secs", "1", "--clients", "2"];
    let enqueue = report(&db, &arguments);
    for way in ["insert_select", "enqueue_many", "copy"] {
        measured(&enqueue, way);
        measured(&enqueue, &format!("{way}_plain"));
    }
    assert!(enqueue["ratios"]["single_rows_silent"]["rate"].is_f64(), "{enqueue}");
    assert!(enqueue["notifications"].is_u64(), "{enqueue}");
    assert_eq!(count(&enqueue, "left_ready"), 3 * 1_500, "nobody takes what is put in in bulk: {enqueue}");
    assert!(count(&enqueue, "succeeded") > 0, "single rows are worked off: {enqueue}");

    let latency = report(&db, &["latency", "--tasks", "10", "--rounds", "1", "--spacing", "5"]);
    for way in ["divvy", "divvy_from_intent", "floor", "floor_from_intent"] {
        assert_eq!(latency["results"][way]["count"], 10, "{way}: {latency}");
    }
    let local = latency["server"]["local"] == true;
    for way in ["divvy", "floor"] {
        let figure = &latency["results"][way];
        assert_eq!((figure["server_us"].is_f64(), figure["client_us"].is_f64()), (local, true), "{latency}");
    }

    let floor = report(&db, &["floor", "--tasks", "1000", "--rounds", "1"]);
    ["s_fused", "s_fused_10", "b_block_pk"].iter().for_each(|way| measured(&floor, way));
    assert_eq!((count(&floor, "succeeded"), count(&floor, "handler_calls")), (3_000, 3_000), "{floor}");
    let out = ok(&mut divvy_on(db.url(), &["bench", "floor", "--tasks", "500", "--rounds", "1"]));
    assert!(out.contains("floor b_block_pk, B=100, 2 connections") && out.contains("fsync"), "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
}

/// The test's own hand in the database: with each insert comes a split that has succeeded without a call.
#[tokio::test]
async fn counts_that_do_not_agree_end_the_run_with_exit_code_1_and_the_numbers() {
    let db = TestDb::new().await;
    sqlx::raw_sql(
        "create function one_more() returns trigger language plpgsql as $$ begin
             insert into divvy.task (task_type, status, state, attempt, token, worker, started_at, finished_at)
             values ('bench.noop', 'succeeded', 'succeeded', 1, nextval('divvy.token'), gen_random_uuid(), now(), now());
             return null;
         end $$;
         create trigger one_more after insert on divvy.task for each statement
             when (pg_trigger_depth() = 0) execute function one_more()",
    )
    .execute(db.pool())
    .await
    .unwrap();
    let arguments = ["bench", "drain", "--tasks", "200", "--rounds", "1"];
    let Said { out, err, code } = said(&mut divvy_on(db.url(), &arguments));
    assert_eq!(code, Some(1), "{out}{err}");
    let numbers = "inserted 200, succeeded 201, handler calls 200";
    assert!(err.contains(&format!("the counts do not agree: {numbers}")), "{err}");
    assert!(out.contains(numbers), "the figures are printed all the same: {out}");

    let Said { out, code, .. } = said(divvy_on(db.url(), &arguments).arg("--json"));
    let report: Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!((code, &report["counts"]["agree"]), (Some(1), &Value::Bool(false)), "{report}");

    let short = ["bench", "enqueue", "--tasks", "100", "--rounds", "1", "--secs", "1", "--clients", "1"];
    let Said { err, code, .. } = said(&mut divvy_on(db.url(), &short));
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("the counts do not agree: inserted"), "{err}");
}

#[tokio::test]
async fn what_others_do_is_left_alone() {
    let db = TestDb::new().await;
    let sql = "select divvy.put_task_type('mail'); insert into divvy.task (task_type) values ('mail')";
    sqlx::raw_sql(sql).execute(db.pool()).await.unwrap();
    let arguments = ["bench", "drain", "--tasks", "200", "--rounds", "1"];
    let Said { err, code, .. } = said(&mut divvy_on(db.url(), &arguments));
    assert_eq!(code, Some(1));
    assert!(err.contains("1 ready splits of type mail") && err.contains("--force"), "{err}");

    ok(divvy_on(db.url(), &arguments).arg("--force"));
    let left: Vec<(String, String)> =
        sqlx::query_as("select task_type, status::text from divvy.task").fetch_all(db.pool()).await.unwrap();
    assert_eq!(left, [("mail".to_owned(), "running".to_owned())]);
    let types: Vec<String> =
        sqlx::query_scalar("select name from divvy.task_type").fetch_all(db.pool()).await.unwrap();
    assert_eq!(types, ["mail"]);

    let Said { err, code, .. } = said(&mut divvy_on(db.url(), &["bench", "drain", "--payload-bytes", "10"]));
    assert_eq!(code, Some(2), "{err}");
}

#[tokio::test]
async fn exec_runs_commands_and_counts_their_splits() {
    let db = TestDb::new().await;
    let options = ["exec", "--splits", "40", "--lines", "500", "--rounds", "1"];
    let exec = report(&db, &options);
    assert_eq!(count(&exec, "succeeded"), 580);
    for way in ["bare", "rust", "once", "lines"] {
        measured(&exec, way);
    }
    assert!(exec["overhead_us"].is_f64(), "{exec}");
}

#[tokio::test]
async fn http_counts_what_it_enqueued_and_worked_off() {
    let db = TestDb::new().await;
    let sizes = ["--tasks", "200", "--clients", "8", "--batched", "400", "--batch", "100"];
    let http = report(&db, &[&["http"], &sizes[..]].concat());
    for way in ["direct_alone", "single_alone", "single", "batch", "http_worker", "worker"] {
        measured(&http, way);
    }
    // Ten alone by each of two ways; what was put in by HTTP and SQL is worked off by HTTP, as many again by a worker.
    assert_eq!(count(&http, "inserted"), 2 * (10 + 10 + 200 + 400), "{http}");
    assert!(http["requests"]["single"]["p99_ms"].as_f64() > Some(0.0), "{http}");
}
