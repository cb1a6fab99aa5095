//! Commands that are declared in the database: they run where somebody allowed a folder, and only what is in it.

use crate::support::db::TestDb;
use crate::support::queue::{Queue, quoted};
use crate::support::race::until;
use divvy::worker::Declared;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

fn program(folder: &Path, name: &str, script: &str) {
    // Written under another name and moved: a program that is open for writing can't be started.
    let draft = folder.join(format!("{name}.draft"));
    fs::write(&draft, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(draft, folder.join(name)).unwrap();
}

async fn put(db: &TestDb, name: &str, handler: Value) {
    let options = json!({"handler": {"exec": handler}, "backoff": {"kind": "fixed", "base": 0}});
    sqlx::query("select divvy.put_task_type($1, $2)")
        .bind(name)
        .bind(options)
        .execute(db.pool())
        .await
        .unwrap();
}

async fn result(db: &TestDb, task_type: &str) -> Value {
    let task: i64 = sqlx::query_scalar("insert into divvy.task (task_type) values ($1) returning id")
        .bind(task_type)
        .fetch_one(db.pool())
        .await
        .unwrap();
    let mut ended: (String, Option<Value>) = Default::default();
    until(&format!("the {task_type} ends"), async || {
        ended = sqlx::query_as("select status, result from divvy.task_result($1)")
            .bind(task)
            .fetch_one(db.pool())
            .await
            .unwrap();
        ended.0 == "succeeded"
    })
    .await;
    ended.1.unwrap_or_default()
}

fn shell(text: &str) -> String {
    format!("echo '\"{text}\"'")
}

#[tokio::test]
async fn a_declared_command_runs_from_the_allowed_folder_and_follows_its_changes() {
    let (db, folder): (TestDb, TempDir) = (TestDb::new().await, tempfile::tempdir().unwrap());
    program(folder.path(), "greet.sh", &format!("{}\n", r#"echo "\"hello, $1\"""#));
    program(
        folder.path(),
        "lines.sh",
        r#"while read -r l; do id=$(expr "$l" : '{"id":\([0-9]*\),'); echo "{\"id\":$id,\"result\":$id}"; done"#,
    );
    let host = Declared::new(db.pool().clone(), db.options().clone()).exec(folder.path().to_owned(), 2);
    let stop = CancellationToken::new();
    let running = tokio::spawn(host.run(stop.clone()));
    put(&db, "greet", json!("greet.sh Ada")).await;
    assert_eq!(result(&db, "greet").await, "hello, Ada");
    put(&db, "greet", json!({"command": "greet.sh 'Ada B.'"})).await;
    let mut greeting = Value::Null;
    until("the change is seen", async || {
        greeting = result(&db, "greet").await;
        greeting == "hello, Ada B."
    })
    .await;
    put(&db, "lines", json!({"command": "lines.sh", "lines": true})).await;
    assert_eq!(result(&db, "lines").await, 1);
    assert_eq!(result(&db, "lines").await, 2);
    stop.cancel();
    assert!(running.await.unwrap().succeeded >= 4);
}

#[tokio::test]
async fn tasks_of_a_program_outside_of_the_folder_wait_and_lose_no_attempt() {
    let (db, folder): (TestDb, TempDir) = (TestDb::new().await, tempfile::tempdir().unwrap());
    fs::create_dir(folder.path().join("allowed")).unwrap();
    program(folder.path(), "outside.sh", &shell("outside"));
    program(&folder.path().join("allowed"), "inside.sh", &shell("inside"));
    std::os::unix::fs::symlink("../outside.sh", folder.path().join("allowed/link.sh")).unwrap();
    let outside = folder.path().join("outside.sh").display().to_string();
    for (name, command) in
        [("up", "../outside.sh"), ("absolute", outside.as_str()), ("link", "link.sh"), ("path", "sh -c true")]
    {
        put(&db, name, json!(command)).await;
    }
    let waiting: Vec<i64> = sqlx::query_scalar(
        "insert into divvy.task (task_type) values ('up'), ('absolute'), ('link'), ('path') returning id",
    )
    .fetch_all(db.pool())
    .await
    .unwrap();
    put(&db, "inside", json!("inside.sh")).await;
    let allowed = folder.path().join("allowed");
    let host = Declared::new(db.pool().clone(), db.options().clone()).exec(allowed, 2);
    let stop = CancellationToken::new();
    let running = tokio::spawn(host.run(stop.clone()));
    assert_eq!(result(&db, "inside").await, "inside");
    let untouched: i64 = sqlx::query_scalar(
        "select count(*) from divvy.split where task_id = any ($1) and status = 'ready' and attempt = 0",
    )
    .bind(&waiting)
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert_eq!(untouched, 4);
    // The program comes to be where it may: the host sees it.
    fs::remove_file(folder.path().join("allowed/link.sh")).unwrap();
    program(&folder.path().join("allowed"), "link.sh", &shell("came"));
    assert_eq!(result(&db, "link").await, "came");
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_command_that_is_none_is_refused() {
    let mut q = Queue::new().await;
    for (exec, parts) in [
        (json!(7), ["handler.exec is 7", "command"]),
        (json!({}), ["handler.exec needs a command", ""]),
        (json!(" "), ["handler.exec needs a command", ""]),
        (json!({"command": ["a"]}), ["handler.exec needs a command", ""]),
        (json!({"command": "a", "shell": true}), ["handler.exec", "unknown option 'shell'"]),
        (json!({"command": "a", "lines": "yes"}), ["handler.exec.lines", "true or false"]),
        (json!("a".repeat(5000)), ["5000 characters", "4096"]),
    ] {
        let options = json!({"handler": {"exec": exec}});
        q.refused(format!("select divvy.put_task_type('a', {})", quoted(options)))
            .await
            .says("DV010", &parts);
    }
    let kept = json!({"command": "a b"});
    q.put("a", json!({"handler": {"exec": "a b"}, "plan": true})).await;
    assert_eq!(q.one::<Value>("select handler -> 'exec' from divvy.task_type").await, kept);
    assert!(q.one::<bool>("select plan from divvy.task_type").await);
}

#[tokio::test]
async fn only_an_operator_declares_commands_also_not_a_worker_that_registers() {
    let mut q = Queue::new().await;
    let role = format!("w_{}", q.db.name());
    q.run(format!("create role {role} login; grant divvy_worker to {role}")).await;
    let options = q.db.options().clone().username(&role);
    let mut worker = <sqlx::PgConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
    let meta = json!({"types": {"evil": {"handler": {"exec": "sh -c evil"}}}});
    let error = sqlx::query("select divvy.register_worker(gen_random_uuid(), 'w', '{evil}', 1, $1)")
        .bind(meta)
        .execute(&mut worker)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("is not a member of divvy_operator, which alone declares commands"), "{error}");
    drop(worker);
    q.run(format!("drop owned by {role}; drop role {role}")).await;
}
