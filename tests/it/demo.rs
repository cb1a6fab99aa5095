//! `divvy demo`: its input, its proof, and the command as a person runs it.

use divvy::demo::characters::characters;
use divvy::demo::names::ranges;
use divvy::demo::{run, tables};
use divvy::store::lock::try_advisory_lock;
use serde_json::Value;

use crate::support::db::TestDb;
use crate::support::program::{Said, divvy_on, said};

fn demo(db: &TestDb, arguments: &[&str]) -> Said {
    said(divvy_on(db.url(), &["demo"]).args(arguments))
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
    let Said { out, err, code } = demo(&db, &["--json"]);
    assert_eq!(code, Some(0), "{err}\n{out}");
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["rows"], &json["groups"]), (&572_913.into(), &92_046.into()));
    assert_eq!((&json["equal"], &json["workers"]), (&true.into(), &2.into()));
    assert!(json["rerun_splits"].as_u64() > Some(0) && json["splits"].as_u64() >= Some(200), "{json}");
    assert!(err.contains("SIGKILL") && err.contains("5 s"), "{err}");

    // The second run in the same database begins afresh, and its check is awake.
    let Said { out, err, code } = demo(&db, &["--splits", "200", "--workers", "3", "--tamper"]);
    assert_eq!(code, Some(1), "{err}\n{out}");
    assert!(out.contains("2 rows differ"), "{out}");
    assert!(out.contains("NFC \"é\" (U+00E9): the report has 3: U+0065 U+0301 · U+00E9"), "{out}");
    assert!(out.contains("NFC \"é\" (U+00E9): Postgres has 2: U+0065 U+0301 · U+00E9"), "{out}");
    assert!(err.contains("differ in 2 rows, first in NFC \"é\""), "{err}");
}

#[tokio::test]
async fn a_second_demo_in_one_database_is_refused() {
    let db = TestDb::new().await;
    let mut first = db.connect().await;
    assert!(try_advisory_lock(&mut first, run::LOCK_KEY).await.unwrap());
    let Said { err, code, .. } = demo(&db, &[]);
    assert_eq!(code, Some(1));
    assert!(err.contains("another divvy demo is running in this database"), "{err}");
}
