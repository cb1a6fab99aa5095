//! Idempotency-Key: a request that comes twice is done once.

use super::client::{guarded, running, token};
use crate::support::db::TestDb;
use serde_json::json;
use std::sync::Arc;

async fn tasks(db: &TestDb) -> i64 {
    sqlx::query_scalar("select count(*) from divvy.task").fetch_one(db.pool()).await.unwrap()
}

#[tokio::test]
async fn the_same_key_with_the_same_body_is_done_once_however_many_come_at_once() {
    let db = TestDb::new().await;
    let http = Arc::new(running(&db).await);
    let body = json!({ "task_type": "mail", "payload": { "n": 1 } });
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (http, body) = (http.clone(), body.clone());
        asked.spawn(async move { http.keyed("/api/v1/tasks", "order-7", body).await.is(201) });
    }
    let answers = asked.join_all().await;
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(tasks(&db).await, 1);
    let other = json!({ "task_type": "mail", "payload": { "n": 2 } });
    let told = http.keyed("/api/v1/tasks", "order-7", other.clone()).await.refuses(422, "DV010");
    assert!(told.contains("'order-7' was used for another request"), "{told}");
    http.keyed("/api/v1/tasks/batch", "order-7", json!({ "tasks": [body.clone()] }))
        .await
        .refuses(422, "DV010");
    // Nobody who may call the function gives an answer that was given already another content.
    sqlx::query("select divvy.keep_answer('', 'order-7', 500, '\"forged\"')")
        .execute(db.pool())
        .await
        .unwrap();
    assert_eq!(http.keyed("/api/v1/tasks", "order-7", body).await.is(201), answers[0]);
    // After a day the key is free again, and a duty forgets it.
    sqlx::query("update divvy.kept_answer set kept_until = now()").execute(db.pool()).await.unwrap();
    http.keyed("/api/v1/tasks", "order-7", other).await.is(201);
    assert_eq!(tasks(&db).await, 2);
    sqlx::query("update divvy.kept_answer set kept_until = now()").execute(db.pool()).await.unwrap();
    sqlx::query("select divvy.tick()").execute(db.pool()).await.unwrap();
    let kept: i64 =
        sqlx::query_scalar("select count(*) from divvy.kept_answer").fetch_one(db.pool()).await.unwrap();
    assert_eq!(kept, 0);
}

#[tokio::test]
async fn actions_take_keys_and_a_refusal_keeps_nothing() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    http.keyed("/api/v1/tasks/1/cancel", "k", json!({})).await.refuses(404, "DV011");
    let id = http.post("/api/v1/tasks", json!({ "task_type": "mail" })).await.is(201);
    let path = format!("/api/v1/tasks/{}/cancel", id["task_id"].as_str().unwrap());
    for _ in 0..2 {
        assert_eq!(http.keyed(&path, "k", json!({})).await.is(200), json!({ "status": "cancelled" }));
    }
    let events: i64 = sqlx::query_scalar("select count(*) from divvy.event where verb = 'cancel'")
        .fetch_one(db.pool())
        .await
        .unwrap();
    assert_eq!(events, 1);
    // The same key and body, for another task: another request.
    let other = http.post("/api/v1/tasks", json!({ "task_type": "mail" })).await.is(201);
    let path = format!("/api/v1/tasks/{}/cancel", other["task_id"].as_str().unwrap());
    http.keyed(&path, "k", json!({})).await.refuses(422, "DV010");
    let ask = json!({ "task_types": ["mail"] });
    http.keyed("/api/v1/worker/wait", "k", ask).await.refuses(400, "malformed");
    http.keyed("/api/v1/tasks", &"k".repeat(256), json!({ "task_type": "mail" })).await.refuses(422, "DV010");
}

#[tokio::test]
async fn a_key_is_its_token_s_own() {
    let db = TestDb::new().await;
    let mut http = guarded(&db).await;
    let tokens = [token(&db, "one", &["producer"]).await, token(&db, "two", &["producer"]).await];
    for token in tokens {
        http.token = Some(token);
        http.keyed("/api/v1/tasks", "k", json!({ "task_type": "mail" })).await.is(201);
    }
    assert_eq!(tasks(&db).await, 2);
}
