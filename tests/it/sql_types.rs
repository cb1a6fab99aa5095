//! A batch job as three SQL statements.

use crate::support::db::TestDb;
use crate::support::race::{DEADLINE, backend_pid, until, until_waiting_for_lock};
use divvy::worker::{Declared, RoleAccess, Summary};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A host that runs, on a database with a role of its own.
struct Hosted {
    db: TestDb,
    role: String,
    stop: CancellationToken,
    run: JoinHandle<Summary>,
}

/// `setup` sees `{role}` for the role, which may log in and owns nothing.
async fn hosted(setup: &str) -> Hosted {
    let db = TestDb::new().await;
    // Roles belong to the whole server: the database's name makes it this test's.
    let role = format!("r_{}", db.name());
    run(&db, &role, "create role {role} login").await;
    run(&db, &role, setup).await;
    let access = RoleAccess::new(db.options().clone(), None).unwrap();
    let stop = CancellationToken::new();
    let host = Declared::new(db.pool().clone(), db.options().clone()).sql(access, 2);
    let run = tokio::spawn(host.run(stop.clone()));
    Hosted { db, role, stop, run }
}

async fn run(db: &TestDb, role: &str, sql: &str) {
    let sql = sql.replace("{role}", role);
    sqlx::raw_sql(AssertSqlSafe(sql.clone()))
        .execute(db.pool())
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
}

impl Hosted {
    fn pool(&self) -> &PgPool {
        self.db.pool()
    }

    async fn run(&self, sql: &str) {
        run(&self.db, &self.role, sql).await;
    }

    /// Declares type `job` with these statements, retried at once.
    async fn put(&self, statements: Value) {
        let mut handler = statements;
        handler["role"] = json!(self.role);
        let options =
            json!({"handler": {"sql": handler}, "backoff": {"kind": "fixed", "base": 0}, "max_attempts": 2});
        sqlx::query("select divvy.put_task_type('job', $1)")
            .bind(options)
            .execute(self.pool())
            .await
            .unwrap();
    }

    async fn insert(&self, payload: Value) -> i64 {
        sqlx::query_scalar("insert into divvy.task (task_type, payload) values ('job', $1) returning id")
            .bind(payload)
            .fetch_one(self.pool())
            .await
            .unwrap()
    }

    /// Waits until the task has ended: status, result, error.
    async fn ended(&self, task: i64) -> (String, Option<Value>, Option<Value>) {
        until(&format!("task {task} ends"), async || {
            sqlx::query_scalar("select finished_at is not null from divvy.task_result($1)")
                .bind(task)
                .fetch_one(self.pool())
                .await
                .unwrap()
        })
        .await;
        sqlx::query_as("select status, result, error from divvy.task_result($1)")
            .bind(task)
            .fetch_one(self.pool())
            .await
            .unwrap()
    }

    async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(self.pool()).await.unwrap()
    }

    async fn ends(self) -> Summary {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.run).await.expect("the host never ends").unwrap()
    }
}

const NOTES: &str = "create table note (who text not null default session_user, body jsonb);
    grant select, insert on note to {role}";

#[tokio::test]
async fn three_statements_are_a_batch_job_that_runs_as_its_role() {
    let host = hosted(NOTES).await;
    host.put(json!({
        "split": "select g as lo, least(g + 9, ($1->>'n')::int) as hi from generate_series(1, ($1->>'n')::int, 10) g",
        "execute": "with written as (insert into note (body) values ($2)) \
                    select jsonb_build_object('sum', sum(i)) from generate_series(($2->>'lo')::int, ($2->>'hi')::int) i",
        "reduce": "select jsonb_build_object('sum', sum((result->>'sum')::int), 'of', $2) from divvy.results()",
    }))
    .await;
    let task = host.insert(json!({"n": 95})).await;
    let (status, result, _) = host.ended(task).await;
    assert_eq!(status, "succeeded");
    let of = json!({"splits": 10, "succeeded": 10, "failed": 0, "cancelled": 0, "skipped": 0});
    assert_eq!(result, Some(json!({"sum": 95 * 96 / 2, "of": of})));
    let who: Vec<(String, i64)> =
        sqlx::query_as("select who, count(*) from note group by 1").fetch_all(host.pool()).await.unwrap();
    assert_eq!(who, [(host.role.clone(), 10)]);
    assert_eq!(host.ends().await.succeeded, 12);
}

#[tokio::test]
async fn a_type_with_an_execute_statement_alone_is_a_plain_task() {
    let host = hosted(NOTES).await;
    host.put(json!({"execute": "insert into note (body) values ($1)"})).await;
    let task = host.insert(json!({"hello": "world"})).await;
    assert_eq!(host.ended(task).await, ("succeeded".to_owned(), None, None));
    assert_eq!(host.count("select count(*) from note where body = '{\"hello\": \"world\"}'").await, 1);
    // Values of common types become JSON; a number keeps every digit.
    host.put(json!({"execute": "select 7::bigint as n, 'x'::text as t, true as b, null::int as z, $1 as p"}))
        .await;
    let task = host.insert(json!(123_456_789_012_345_678_u64)).await;
    let result = json!({"n": 7, "t": "x", "b": true, "z": null, "p": 123_456_789_012_345_678_u64});
    assert_eq!(host.ended(task).await.1, Some(result));
    host.ends().await;
}

#[tokio::test]
async fn a_statement_that_fails_is_a_failed_attempt_and_leaves_nothing() {
    let host = hosted(NOTES).await;
    for (statement, class, part) in [
        ("with w as (insert into note (body) values ($1)) select 1 / 0", "22012", "division by zero"),
        ("select nonsense", "42703", "nonsense"),
        ("select 1; select 2", "42601", "multiple commands"),
        ("select generate_series(1, 3)", "sql", "returned 3 rows"),
        ("select 1.5 as x", "sql", "column x is numeric"),
        ("select payload from divvy.task", "42501", "permission denied"),
    ] {
        host.put(json!({"execute": statement})).await;
        let task = host.insert(json!({})).await;
        let (status, _, error) = host.ended(task).await;
        let error = error.unwrap();
        assert_eq!(status, "failed", "{statement}");
        assert_eq!(error["class"], class, "{statement}: {error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with("execute of type job: ") && message.contains(part), "{message}");
    }
    assert_eq!(host.count("select count(*) from note").await, 0);
    assert!(host.ends().await.failed >= 6);
}

#[tokio::test]
async fn a_statement_whose_lease_is_lost_leaves_nothing() {
    let host = hosted(NOTES).await;
    let mut gate = host.db.connect().await;
    sqlx::query("select pg_advisory_lock(1)").execute(&mut gate).await.unwrap();
    host.put(
        json!({"execute": "with w as (insert into note (body) values ($1)) select pg_advisory_xact_lock(1)"}),
    )
    .await;
    let task = host.insert(json!({})).await;
    let waiting = "select coalesce(min(pid), 0)::bigint from pg_stat_activity
                    where datname = current_database() and wait_event_type = 'Lock'";
    until("the statement waits", async || host.count(waiting).await != 0).await;
    let pid = i32::try_from(host.count(waiting).await).unwrap();
    assert_ne!(pid, backend_pid(&mut gate).await);
    until_waiting_for_lock(host.pool(), pid).await;
    host.run(&format!("select divvy.skip_split({task}, 'not wanted any more')")).await;
    sqlx::query("select pg_advisory_unlock(1)").execute(&mut gate).await.unwrap();
    host.ended(task).await;
    let summary = host.stopped_summary().await;
    assert_eq!((summary.succeeded, summary.lost), (0, 1), "{summary}");
}

impl Hosted {
    /// Ends the host, and sees that no note was left.
    async fn stopped_summary(self) -> Summary {
        let pool = self.db.pool().clone();
        let (db, stop, run) = (self.db, self.stop, self.run);
        stop.cancel();
        let summary = tokio::time::timeout(DEADLINE, run).await.expect("the host never ends").unwrap();
        let notes: i64 = sqlx::query_scalar("select count(*) from note").fetch_one(&pool).await.unwrap();
        assert_eq!(notes, 0);
        drop(db);
        summary
    }
}

#[tokio::test]
async fn a_statement_past_its_timeout_is_ended() {
    let host = hosted(NOTES).await;
    host.put(json!({"execute": "select pg_sleep(60)", "statement_timeout": "50 ms"})).await;
    let task = host.insert(json!({})).await;
    let (status, _, error) = host.ended(task).await;
    assert_eq!((status.as_str(), &error.unwrap()["class"]), ("failed", &json!("57014")));
    host.ends().await;
}

#[tokio::test]
async fn a_changed_type_is_served_with_its_new_statements() {
    let host = hosted(NOTES).await;
    for version in 1..=2 {
        host.put(json!({"execute": format!("select {version}")})).await;
        until("the worker of this version is registered", async || {
            host.count("select count(*) from divvy.worker where task_types = array['job']").await >= version
        })
        .await;
        let task = host.insert(json!({})).await;
        assert_eq!(host.ended(task).await.1, Some(json!(version)));
    }
    host.ends().await;
}

#[tokio::test]
async fn tasks_of_a_role_that_cannot_log_in_wait_and_lose_no_attempt() {
    let host = hosted("alter role {role} nologin").await;
    host.put(json!({"execute": "select 1"})).await;
    let task = host.insert(json!({})).await;
    // A type whose role can log in is served meanwhile: the host has looked at both.
    let other = format!("{}_b", host.role);
    run(&host.db, &other, "create role {role} login").await;
    let options = json!({"handler": {"sql": {"execute": "select 2", "role": other}}});
    sqlx::query("select divvy.put_task_type('other', $1)").bind(options).execute(host.pool()).await.unwrap();
    let second: i64 = sqlx::query_scalar("insert into divvy.task (task_type) values ('other') returning id")
        .fetch_one(host.pool())
        .await
        .unwrap();
    assert_eq!(host.ended(second).await.1, Some(json!(2)));
    let (status, attempt): (String, i32) =
        sqlx::query_as("select status::text, attempt from divvy.task where id = $1")
            .bind(task)
            .fetch_one(host.pool())
            .await
            .unwrap();
    assert_eq!((status.as_str(), attempt), ("running", 0));
    host.run("alter role {role} login").await;
    assert_eq!(host.ended(task).await.1, Some(json!(1)));
    host.ends().await;
}

#[tokio::test]
async fn the_role_of_a_type_may_finish_splits_and_nothing_else() {
    let host = hosted(NOTES).await;
    host.put(json!({"execute": "select 1"})).await;
    let may: Vec<String> = sqlx::query_scalar(
        "select p.proname::text from pg_proc p
          where p.pronamespace = 'divvy'::regnamespace and has_function_privilege($1, p.oid, 'execute') order by 1",
    )
    .bind(&host.role)
    .fetch_all(host.pool())
    .await
    .unwrap();
    assert_eq!(may, ["complete", "results"]);
    let reads: i64 = sqlx::query_scalar(
        "select count(*) from pg_class c where c.relnamespace = 'divvy'::regnamespace and c.relkind in ('r', 'v')
            and has_table_privilege($1, c.oid, 'select, insert, update, delete')",
    )
    .bind(&host.role)
    .fetch_one(host.pool())
    .await
    .unwrap();
    assert_eq!(reads, 0);
    let error =
        sqlx::query("select * from divvy.results()").execute(host.pool()).await.unwrap_err().to_string();
    assert!(error.contains("is for the reduce statement of a type in SQL"), "{error}");
    host.ends().await;
}
