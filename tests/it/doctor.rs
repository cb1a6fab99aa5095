//! What `divvy doctor` finds.

use crate::support::db::TestDb;
use crate::support::program::{divvy_on, said};
use serde_json::Value;

/// The exit code and the verdict of each check.
fn doctor(url: &str) -> (Option<i32>, Vec<(String, String)>) {
    let said = said(&mut divvy_on(url, &["doctor", "--json"]));
    let told: Value =
        serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {} {}", said.out, said.err));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = told["checks"].as_array().unwrap().iter();
    (said.code, checks.map(|check| (text(&check["check"]), text(&check["verdict"]))).collect())
}

fn verdict<'a>(checks: &'a [(String, String)], check: &str) -> &'a str {
    &checks.iter().find(|(name, _)| name == check).unwrap_or_else(|| panic!("no {check} in {checks:?}")).1
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tells_what_would_lose_commits() {
    let db = TestDb::new().await;
    let (code, checks) = doctor(db.url());
    // The tests' server writes nothing through; that is what doctor is for.
    let lax: bool =
        sqlx::query_scalar("select current_setting('fsync') = 'off'").fetch_one(db.pool()).await.unwrap();
    assert_eq!(verdict(&checks, "fsync") == "fail", lax);
    assert_eq!(code, Some(i32::from(lax)));
    for check in ["connection", "server", "pooler", "direct connection", "schema"] {
        assert_eq!(verdict(&checks, check), "ok", "{check}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tells_that_the_schema_is_missing_and_what_to_do() {
    let db = TestDb::empty().await;
    let said = said(&mut divvy_on(db.url(), &["doctor"]));
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("schema") && said.out.contains("-> run divvy migrate"), "{}", said.out);
}

#[test]
fn doctor_tells_that_nobody_answers_and_hides_the_password() {
    let (code, checks) = doctor("postgres://someone:hunter2@127.0.0.1:1/nowhere");
    assert_eq!((code, checks.len()), (Some(1), 1));
    let said = said(&mut divvy_on("postgres://someone:hunter2@127.0.0.1:1/nowhere", &["doctor"]));
    assert!(said.out.contains("127.0.0.1:1") && !said.out.contains("hunter2"), "{}", said.out);
}
