//! What `migrate` refuses, and in which words.

use crate::support::db::{Server, TestDb, fast_dir, settings};
use crate::support::program::{divvy_on, postgres_program, said};
use crate::support::race::until;
use divvy::embedded::Embedded;
use divvy::store::migrate::{self, Status};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::process::Command;

/// A role that may log in and do nothing else; dropped by [`Stranger::leave`].
struct Stranger {
    name: String,
}

impl Stranger {
    async fn come() -> Self {
        let name = format!("stranger_{}", uuid::Uuid::new_v4().simple());
        let mut admin = Server::get().await.admin().await;
        admin.execute(AssertSqlSafe(format!("create role {name} login"))).await.unwrap();
        Self { name }
    }

    async fn leave(self, db: TestDb) {
        let name = self.name;
        db.pool().execute(AssertSqlSafe(format!("drop owned by {name}; drop role {name}"))).await.unwrap();
    }
}

#[tokio::test]
async fn a_role_that_may_not_create_is_told_what_it_needs() {
    let db = TestDb::empty().await;
    let stranger = Stranger::come().await;
    let url = db.url().replace("user=postgres", &format!("user={}", stranger.name));
    let said = said(&mut divvy_on(&url, &["migrate"]));
    assert_eq!(said.code, Some(1));
    for part in [
        &format!("role {}", stranger.name),
        &format!("database {}", db.name()),
        "CREATE on the database",
        "--dump-sql",
    ] {
        assert!(said.err.contains(part), "{part:?} is missing in: {}", said.err);
    }
    assert_eq!(migrate::check(db.options()).await.unwrap(), Status::Missing, "nothing was made");
    stranger.leave(db).await;
}

#[tokio::test]
async fn a_role_with_create_and_membership_needs_no_superuser() {
    let db = TestDb::empty().await;
    // Some database of this server has been migrated, so the roles exist.
    drop(TestDb::new().await);
    let stranger = Stranger::come().await;
    let grants =
        format!("grant create on database {} to {n}; grant divvy_owner to {n}", db.name(), n = stranger.name);
    db.pool().execute(AssertSqlSafe(grants)).await.unwrap();
    let report = migrate::migrate(&db.options().clone().username(&stranger.name)).await.unwrap();
    assert!(report.rules_changed);
    stranger.leave(db).await;
}

#[tokio::test]
async fn a_role_without_rights_cannot_read_the_version_and_is_told_so() {
    let db = TestDb::new().await;
    let stranger = Stranger::come().await;
    let error = migrate::check(&db.options().clone().username(&stranger.name)).await.unwrap_err().to_string();
    assert!(error.contains(&stranger.name) && error.contains("grant divvy_reader"), "{error}");
    stranger.leave(db).await;
}

#[tokio::test]
async fn every_role_of_divvy_may_read_the_version() {
    let db = TestDb::new().await;
    for role in ["divvy_producer", "divvy_worker", "divvy_reader", "divvy_operator"] {
        let member = Stranger::come().await;
        db.pool().execute(AssertSqlSafe(format!("grant {role} to {}", member.name))).await.unwrap();
        let status = migrate::check(&db.options().clone().username(&member.name)).await;
        assert_eq!(status.unwrap_or_else(|e| panic!("{role}: {e}")), Status::Current);
        let mut admin = Server::get().await.admin().await;
        admin.execute(AssertSqlSafe(format!("drop role {}", member.name))).await.unwrap();
    }
}

#[tokio::test]
async fn a_schema_of_somebody_else_is_not_touched() {
    let db = TestDb::empty().await;
    drop(TestDb::new().await);
    db.pool().execute("create schema divvy; create table divvy.mine (id int)").await.unwrap();
    let error = migrate::migrate(db.options()).await.unwrap_err().to_string();
    assert!(error.contains("schema divvy belongs to role postgres"), "{error}");
}

#[tokio::test]
async fn the_schema_of_a_newer_divvy_is_left_alone() {
    let db = TestDb::new().await;
    db.pool()
        .execute("update divvy.protocol_source set version = '999.0.0', checksum = 'newer'")
        .await
        .unwrap();
    assert_eq!(migrate::check(db.options()).await.unwrap(), Status::Ahead);
    let error = migrate::migrate(db.options()).await.unwrap_err();
    assert_eq!(error.kind(), divvy::ErrorKind::Protocol);
    assert!(error.to_string().contains("divvy 999.0.0"), "{error}");
    let kept: String =
        sqlx::query_scalar("select checksum from divvy.protocol_source").fetch_one(db.pool()).await.unwrap();
    assert_eq!(kept, "newer");
}

#[tokio::test]
async fn an_edited_migration_is_an_error_that_names_it() {
    let db = TestDb::new().await;
    db.pool().execute("update divvy.migration set checksum = 'edited' where version = 1").await.unwrap();
    let error = migrate::migrate(db.options()).await.unwrap_err().to_string();
    assert!(error.contains("migration 0001_") && error.contains("was edited"), "{error}");
}

#[tokio::test]
async fn a_database_that_is_not_there_or_not_reachable_is_named_without_the_password() {
    let nowhere = said(&mut divvy_on("postgres://app:hunter2@127.0.0.1:1/shop", &["migrate"]));
    assert_eq!(nowhere.code, Some(75), "it may be back later");
    assert!(nowhere.err.contains("cannot reach Postgres at 127.0.0.1:1 (database shop)"), "{}", nowhere.err);
    let db = TestDb::empty().await;
    let absent = said(&mut divvy_on(&db.url().replace(db.name(), "no_such_database"), &["migrate"]));
    assert!(absent.err.contains("\"no_such_database\" does not exist"), "{}", absent.err);
    for said in [nowhere, absent] {
        assert!(!said.err.contains("hunter2"), "{}", said.err);
    }
    let malformed = said(&mut divvy_on("my database", &["migrate"]));
    assert_eq!(malformed.code, Some(2));
}

#[tokio::test]
async fn a_read_only_database_is_refused() {
    let db = TestDb::empty().await;
    let freeze = format!("alter database {} set default_transaction_read_only = on", db.name());
    db.pool().execute(AssertSqlSafe(freeze)).await.unwrap();
    let error = migrate::migrate(db.options()).await.unwrap_err().to_string();
    assert!(error.contains("read-only"), "{error}");
}

/// On a server of its own, where nobody has made divvy's roles yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_create_roles_migrates_a_fresh_server_twice() {
    let dir = tempfile::Builder::new().prefix("divvy-roles-").tempdir_in(fast_dir()).unwrap();
    open_to_all(dir.path());
    let server = Embedded::start(&settings(dir.path().join("a"))).await.unwrap_or_else(|e| panic!("{e}"));
    let mut admin = PgConnection::connect_with(&server.options()).await.unwrap();
    admin
        .execute("create role maker login createrole; grant create on database divvy to maker")
        .await
        .unwrap();
    let options = server.options().username("maker");
    assert!(migrate::migrate(&options).await.unwrap_or_else(|e| panic!("{e}")).rules_changed);
    admin.execute("update divvy.protocol_source set checksum = 'of other rules'").await.unwrap();
    assert!(migrate::migrate(&options).await.unwrap_or_else(|e| panic!("{e}")).rules_changed);
    admin.close().await.unwrap();
    divvy::embedded::stop(server.root(), true).await.unwrap();
}

/// A real standby: a copy of a real server by pg_basebackup, started with `standby.signal`.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_refused_and_its_primary_asked_for() {
    let dir = tempfile::Builder::new().prefix("divvy-standby-").tempdir_in(fast_dir()).unwrap();
    open_to_all(dir.path());
    let (primary_root, standby_root) = (dir.path().join("a"), dir.path().join("b"));
    let primary = Embedded::start(&settings(primary_root)).await.unwrap_or_else(|e| panic!("{e}"));
    std::fs::create_dir(&standby_root).unwrap();
    let mut copy = postgres_program("pg_basebackup");
    copy.args(["--checkpoint=fast", "--write-recovery-conf", "-D"]).arg(standby_root.join("data"));
    copy.arg("-d").arg(primary.url("postgres"));
    let copied = copy.output().expect("running pg_basebackup");
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let status = Command::new("chown")
        .arg("-R")
        .arg("--reference")
        .arg(primary.root())
        .arg(&standby_root)
        .status()
        .unwrap();
    assert!(status.success());
    let mut relaxed = settings(standby_root);
    relaxed.linger = std::time::Duration::ZERO;
    let standby = Embedded::start(&relaxed).await.unwrap_or_else(|e| panic!("{e}"));
    let mut session = PgConnection::connect_with(&standby.options()).await.unwrap();
    until("the standby is in recovery", async || {
        sqlx::query_scalar("select pg_is_in_recovery()").fetch_one(&mut session).await.unwrap()
    })
    .await;
    session.close().await.unwrap();
    let said = said(&mut divvy_on(&standby.url("divvy"), &["migrate"]));
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("is a standby") && said.err.contains("primary"), "{}", said.err);
    assert_eq!(migrate::check(&standby.options()).await.unwrap(), Status::Missing, "looking is allowed");
    for root in [standby.root(), primary.root()] {
        divvy::embedded::stop(root, true).await.unwrap();
    }
}

/// The server of a root's test runs as somebody else, who must be able to enter.
fn open_to_all(dir: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
}
