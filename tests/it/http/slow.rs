//! Slow clients hold nobody up, and not themselves for ever.

use super::client::{read, running, serving};
use crate::support::db::TestDb;
use divvy::http::Patience;
use serde_json::json;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// So long a test waits for what takes the patience's half a second.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_head_a_body_and_a_reader_that_do_not_come_are_given_up() {
    let db = TestDb::new().await;
    let short = Duration::from_millis(500);
    let patience = Patience { head: short, body: short, stall: short };
    let http = serving(db.pool().clone(), db.options(), false, patience).await;
    let mut head = TcpStream::connect(http.address).await.unwrap();
    head.write_all(b"GET /api/v1/tasks HT").await.unwrap();
    let mut body = TcpStream::connect(http.address).await.unwrap();
    let begun = "POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{\"task";
    body.write_all(begun.as_bytes()).await.unwrap();
    // Others are served meanwhile.
    http.post("/api/v1/tasks", json!({ "task_type": "mail" })).await.is(201);
    let answer = timeout(SOON, read(&mut body)).await.expect("the body is given up");
    answer.refuses(408, "timeout");
    let mut rest = Vec::new();
    let closed = timeout(SOON, tokio::io::AsyncReadExt::read_to_end(&mut head, &mut rest)).await;
    assert!(closed.is_ok(), "the connection is closed");
    let made: i64 = sqlx::query_scalar("select count(*) from divvy.task").fetch_one(db.pool()).await.unwrap();
    assert_eq!(made, 1);
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_of_its_body_changes_nothing() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    for _ in 0..20 {
        let mut stream = TcpStream::connect(http.address).await.unwrap();
        let begun = "POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"task_type\": \"mail\"}";
        stream.write_all(begun.as_bytes()).await.unwrap();
    }
    http.post("/api/v1/tasks", json!({ "task_type": "mail" })).await.is(201);
    let made: i64 = sqlx::query_scalar("select count(*) from divvy.task").fetch_one(db.pool()).await.unwrap();
    assert_eq!(made, 1);
}
