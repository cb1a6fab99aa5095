//! `divvy demo`: its input, its proof, and the command as a person runs it.

use std::process::{Output, Stdio};
use std::time::Duration;

use divvy::demo::characters::characters;
use divvy::demo::names::ranges;
use divvy::demo::{run, tables};
use divvy::store::lock::try_advisory_lock;
use serde_json::Value;
use tokio::process::Command;

use crate::support::db::TestDb;

/// How long one run of the command may take here: a debug build among other tests.
const RUN_WITHIN: Duration = Duration::from_secs(180);

async fn demo(db: &TestDb, arguments: &[&str]) -> Output {
    let child = Command::new(env!("CARGO_BIN_EXE_divvy"))
        .arg("demo")
        .args(arguments)
        .env("DATABASE_URL", db.url())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(RUN_WITHIN, child).await.expect("the demo ends in time").expect("the demo starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn rust_and_postgres_normalise_every_name_alike() {
    let db = TestDb::new().await;
    let mut connection = db.connect().await;
    // Twice: a second demo begins like the first.
    tables::load(&mut connection, &characters().unwrap()).await.unwrap();
    tables::load(&mut connection, &characters().unwrap()).await.unwrap();

    let pairs = tables::pairs(&mut connection).await.unwrap();
    let chars = tables::characters(&mut connection, 0..0x11_0000).await.unwrap();
    let mut names = 0;
    for range in ranges(&chars, &pairs, 200) {
        let chars = tables::characters(&mut connection, range).await.unwrap();
        names += tables::write(&mut connection, pairs.normalized(&chars)).await.unwrap();
    }
    assert_eq!((names, tables::names(&mut connection).await.unwrap()), (572_913, 572_913));

    let forms = tables::reduce(&mut connection).await.unwrap();
    let groups: Vec<(&str, i64)> = forms.iter().map(|form| (form.form.as_str(), form.groups)).collect();
    assert_eq!(groups, [("NFC", 3_742), ("NFD", 3_742), ("NFKC", 42_281), ("NFKD", 42_281)]);
    assert_eq!(tables::differences(&mut connection).await.unwrap(), []);
}

#[tokio::test]
async fn a_killed_worker_costs_nothing_and_a_changed_row_is_named() {
    let db = TestDb::new().await;
    let output = demo(&db, &["--json"]).await;
    let (said, shown) = (text(&output.stderr), text(&output.stdout));
    assert!(output.status.success(), "{said}\n{shown}");
    let json: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&json["rows"], &json["groups"]), (&572_913.into(), &92_046.into()));
    assert_eq!((&json["equal"], &json["workers"]), (&true.into(), &2.into()));
    assert!(json["rerun_splits"].as_u64() > Some(0) && json["splits"].as_u64() >= Some(200), "{json}");
    assert!(said.contains("SIGKILL") && said.contains("5 s"), "{said}");

    // The second run in the same database begins afresh, and its check is awake.
    let output = demo(&db, &["--splits", "200", "--workers", "3", "--tamper"]).await;
    let (said, shown) = (text(&output.stderr), text(&output.stdout));
    assert_eq!(output.status.code(), Some(1), "{said}\n{shown}");
    assert!(shown.contains("2 rows differ"), "{shown}");
    assert!(shown.contains("NFC \"é\" (U+00E9): the report has 3: U+0065 U+0301 · U+00E9"), "{shown}");
    assert!(shown.contains("NFC \"é\" (U+00E9): Postgres has 2: U+0065 U+0301 · U+00E9"), "{shown}");
}

#[tokio::test]
async fn a_second_demo_in_one_database_is_refused() {
    let db = TestDb::new().await;
    let mut first = db.connect().await;
    assert!(try_advisory_lock(&mut first, run::LOCK_KEY).await.unwrap());
    let output = demo(&db, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("another divvy demo is running in this database"), "{said}");
}
