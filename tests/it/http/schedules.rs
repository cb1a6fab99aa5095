//! Schedules by HTTP.

use super::client::running;
use crate::support::db::TestDb;
use serde_json::json;

#[tokio::test]
async fn a_moment_may_be_fourteen_digits_on_the_clock_of_the_zone() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    let once = json!({ "task_type": "a", "run_at": "20991224180000", "timezone": "Europe/Berlin" });
    http.send("PUT", "/api/v1/schedules/once", once).await.is(201);
    let stored = http.get("/api/v1/schedules/once").await.is(200);
    assert_eq!(stored["next_fire_at"], "2099-12-24T17:00:00Z", "{stored}");
    let rule = json!({ "rule": { "run_at": "20991224180000", "timezone": "Europe/Berlin" } });
    let preview = http.post("/api/v1/schedules/preview", rule).await.is(200);
    assert!(preview.to_string().contains("2099-12-24T17:00:00Z"), "{preview}");
    let bad = json!({ "task_type": "a", "run_at": "20991324180000" });
    let said = http.send("PUT", "/api/v1/schedules/bad", bad).await.refuses(422, "DV012");
    assert!(said.contains("20991324180000"), "{said}");
}
