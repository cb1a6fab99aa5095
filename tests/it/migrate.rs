//! `divvy migrate`: repeatable, safe from many at once, and clear about what it may not do.

mod refusals;

use crate::support::db::TestDb;
use crate::support::program::{divvy, divvy_on, ok, postgres_program, said};
use crate::support::race::until;
use divvy::store::migrate::{self, MIGRATIONS, RULES, Status};
use sqlx::Executor;
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// Everything in the schema, owners and rights included, in pg_dump's words.
fn schema_of(db: &TestDb) -> String {
    let output = postgres_program("pg_dump")
        .args(["--schema-only", "--dbname", db.url()])
        .output()
        .expect("running pg_dump");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // Newer pg_dumps frame their output with a random word.
    text.lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Two schemas are equal; shows only the first difference, for a whole schema is no message.
fn assert_same(got: &str, expected: &str) {
    let difference =
        got.lines().zip(expected.lines()).enumerate().find(|(_, (got, expected))| got != expected);
    assert_eq!(difference, None, "line of the schema dump, (got, expected)");
    assert_eq!(got.lines().count(), expected.lines().count());
}

#[test]
fn the_program_holds_every_sql_file_in_order() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (folder, held) in [("migrations", MIGRATIONS), ("sql", RULES)] {
        let mut there: Vec<String> = fs::read_dir(package.join(folder))
            .unwrap()
            .map(|entry| format!("{folder}/{}", entry.unwrap().file_name().to_string_lossy()))
            .filter(|file| file.ends_with(".sql"))
            .collect();
        there.sort();
        let held: Vec<&str> = held.iter().map(|source| source.file).collect();
        assert_eq!(held, there, "src/store/migrate/sources.rs lists other files than {folder}/ has");
    }
}

#[test]
fn migrations_are_numbered_without_gaps() {
    let numbers: Vec<i32> = MIGRATIONS.iter().map(|source| source.number()).collect();
    assert_eq!(numbers, (1..=numbers.len() as i32).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_processes_that_start_at_once_all_succeed() {
    let db = TestDb::empty().await;
    let spawn = || {
        divvy_on(db.url(), &["migrate", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let processes: Vec<_> = (0..10).map(|_| spawn()).collect();
    let mut appliers = 0;
    for process in processes {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        appliers += usize::from(!report["applied"].as_array().unwrap().is_empty());
    }
    assert_eq!(appliers, 1, "exactly one process applies the migrations");
    assert_eq!(migrate::check(db.options()).await.unwrap(), Status::Current);
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_of_one_server_migrate_at_the_same_time() {
    // The roles are the server's: only here can the makers of roles meet.
    let (a, b, c) = (TestDb::empty().await, TestDb::empty().await, TestDb::empty().await);
    let (a, b, c) = tokio::join!(
        migrate::migrate(a.options()),
        migrate::migrate(b.options()),
        migrate::migrate(c.options())
    );
    for report in [a, b, c] {
        assert_eq!(report.unwrap().applied.len(), MIGRATIONS.len());
    }
}

#[tokio::test]
async fn migrating_twice_is_migrating_once() {
    let db = TestDb::empty().await;
    assert_eq!(migrate::check(db.options()).await.unwrap(), Status::Missing);
    let first = migrate::migrate(db.options()).await.unwrap();
    assert!(first.rules_changed && first.applied.len() == MIGRATIONS.len());
    let schema = schema_of(&db);
    assert_eq!(migrate::migrate(db.options()).await.unwrap(), migrate::Report::default());
    assert_same(&schema_of(&db), &schema);
    assert_eq!(migrate::check(db.options()).await.unwrap(), Status::Current);
}

#[tokio::test]
async fn rules_that_differ_are_replaced_and_tables_are_not() {
    let db = TestDb::new().await;
    let schema = schema_of(&db);
    let changes = "alter function divvy.protocol() cost 4242;
                   revoke execute on function divvy.protocol() from divvy_worker;
                   update divvy.protocol_source set checksum = 'of other rules'";
    db.pool().execute(changes).await.unwrap();
    assert_eq!(migrate::check(db.options()).await.unwrap(), Status::Behind);
    let report = migrate::migrate(db.options()).await.unwrap();
    assert!(report.rules_changed && report.applied.is_empty());
    assert_same(&schema_of(&db), &schema);
}

#[tokio::test]
async fn a_busy_view_delays_a_migration_and_does_not_fail_it() {
    let db = TestDb::new().await;
    db.pool().execute("update divvy.protocol_source set checksum = 'of other rules'").await.unwrap();
    let mut reader = db.connect().await;
    reader.execute("begin; select count(*) from divvy.task_overview").await.unwrap();
    let options = db.options().clone();
    let migration = tokio::spawn(async move { migrate::migrate(&options).await });
    until("the migration waits for the reader", async || {
        sqlx::query_scalar(
            "select exists (select from pg_stat_activity where datname = current_database()
                            and application_name = 'divvy migrate' and wait_event_type = 'Lock')",
        )
        .fetch_one(db.pool())
        .await
        .unwrap()
    })
    .await;
    reader.execute("commit").await.unwrap();
    assert!(migration.await.unwrap().unwrap().rules_changed);
}

#[tokio::test]
async fn everything_belongs_to_divvy_owner_and_the_public_may_call_nothing() {
    let db = TestDb::new().await;
    let foreign: Vec<String> = sqlx::query_scalar(
        "select c.oid::regclass::text from pg_class c
         where c.relnamespace = 'divvy'::regnamespace and c.relowner <> 'divvy_owner'::regrole
         union all
         select p.oid::regprocedure::text from pg_proc p
         where p.pronamespace = 'divvy'::regnamespace and p.proowner <> 'divvy_owner'::regrole",
    )
    .fetch_all(db.pool())
    .await
    .unwrap();
    assert!(foreign.is_empty(), "not divvy_owner's: {foreign:?}");
    // Grantee 0 is PUBLIC; a function without any ACL is open to it too.
    let open: Vec<String> = sqlx::query_scalar(
        "select p.oid::regprocedure::text from pg_proc p
         where p.pronamespace = 'divvy'::regnamespace
           and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0)",
    )
    .fetch_all(db.pool())
    .await
    .unwrap();
    assert!(open.is_empty(), "anyone may call {open:?}");
}

#[tokio::test]
async fn the_dump_makes_the_same_schema_and_may_be_run_again() {
    let (by_migrate, by_psql) = (TestDb::empty().await, TestDb::empty().await);
    migrate::migrate(by_migrate.options()).await.unwrap();
    let script = tempfile::NamedTempFile::new().unwrap();
    fs::write(script.path(), ok(&mut divvy(&["migrate", "--dump-sql"]))).unwrap();
    for run in ["first", "second"] {
        let mut psql = postgres_program("psql");
        let output = psql
            .args(["-X", "-q", "-f"])
            .arg(script.path())
            .arg(by_psql.url())
            .output()
            .expect("running psql");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !errors.contains("ERROR"), "{run} run: {errors}");
        assert_same(&schema_of(&by_psql), &schema_of(&by_migrate));
        assert_eq!(migrate::check(by_psql.options()).await.unwrap(), Status::Current, "{run} run");
    }
}

#[tokio::test]
async fn check_says_how_the_database_stands() {
    let db = TestDb::empty().await;
    let missing = said(&mut divvy_on(db.url(), &["migrate", "--check"]));
    assert_eq!((missing.code, missing.out.as_str()), (Some(1), "schema divvy is missing\n"));
    assert!(missing.err.contains("run `divvy migrate`"), "{}", missing.err);
    assert!(ok(&mut divvy_on(db.url(), &["migrate"])).contains("applied 0001_"));
    assert_eq!(ok(&mut divvy_on(db.url(), &["migrate", "--check", "--json"])), "{\"schema\":\"current\"}\n");
}

#[tokio::test]
async fn the_host_applications_own_migrations_are_left_alone() {
    let db = TestDb::empty().await;
    db.pool()
        .execute(
            "create table public._sqlx_migrations (version bigint); insert into _sqlx_migrations values (42)",
        )
        .await
        .unwrap();
    migrate::migrate(db.options()).await.unwrap();
    let versions: Vec<i64> =
        sqlx::query_scalar("select version from public._sqlx_migrations").fetch_all(db.pool()).await.unwrap();
    assert_eq!(versions, [42]);
}
