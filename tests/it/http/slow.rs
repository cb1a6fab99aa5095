//! Slow clients hold nobody up, and not themselves for ever.

use super::client::{read, running, serving};
use crate::support::db::TestDb;
use crate::support::race::until;
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
    let patience = Patience { head: short, body: short, stall: short, ..Patience::default() };
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

#[tokio::test]
async fn clients_that_go_away_while_the_database_works_hold_no_connection_of_it() {
    let db = TestDb::new().await;
    // Two connections for all.
    let pool = divvy::store::pool::options().max_connections(2).connect_lazy_with(db.options().clone());
    let patience = Patience { database: Duration::from_secs(1), ..Patience::default() };
    let http = serving(pool, db.options(), false, patience).await;
    let mut holder = db.connect().await;
    sqlx::raw_sql("begin; lock table divvy.task in access exclusive mode")
        .execute(&mut holder)
        .await
        .unwrap();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(http.address).await.unwrap();
        stream.write_all(b"GET /api/v1/tasks/1/progress HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        until("it waits for the lock, or for a connection", async || {
            let waiting: i64 = sqlx::query_scalar(
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
            )
            .fetch_one(db.pool())
            .await
            .unwrap();
            waiting > 0
        })
        .await;
    }
    // Their calls end after their second, though the lock is held.
    timeout(SOON, http.get("/api/v1/audit")).await.expect("an answer").is(200);
    sqlx::raw_sql("rollback").execute(&mut holder).await.unwrap();
}

#[tokio::test]
async fn a_client_that_asks_and_never_reads_is_cut_off() {
    let db = TestDb::new().await;
    let patience = Patience { stall: Duration::from_millis(500), ..Patience::default() };
    let http = serving(db.pool().clone(), db.options(), false, patience).await;
    let mut stream = TcpStream::connect(http.address).await.unwrap();
    // More answers than all buffers between here and there can hold: the rest has nowhere to go.
    let ask = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let cut = async { while stream.write_all(ask.as_bytes()).await.is_ok() {} };
    timeout(SOON, cut).await.expect("the connection is closed");
    http.get("/healthz").await.is(200);
}

#[tokio::test]
async fn streams_are_so_many_and_one_that_nobody_reads_any_more_leaves_its_place() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    let id = http.post("/api/v1/tasks", json!({ "task_type": "mail" })).await.is(201);
    let ask = format!(
        "GET /api/v1/tasks/{}/stream HTTP/1.1\r\nHost: localhost\r\n\r\n",
        id["task_id"].as_str().unwrap()
    );
    let open = async || {
        let mut stream = TcpStream::connect(http.address).await.unwrap();
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut head).await.unwrap();
        (stream, String::from_utf8(head.to_vec()).unwrap())
    };
    let mut streams = Vec::new();
    for _ in 0..100 {
        let (stream, head) = open().await;
        assert_eq!(head, "HTTP/1.1 200");
        streams.push(stream);
    }
    assert_eq!(open().await.1, "HTTP/1.1 503");
    drop(streams);
    until("a place is free", async || open().await.1 == "HTTP/1.1 200").await;
}
