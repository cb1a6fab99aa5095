//! What is wrong is refused with a problem that names it, and changes nothing.

use super::client::running;
use crate::support::db::TestDb;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const JSON: &str = "Content-Type: application/json";

/// Method, path, body; status, code, and what the problem says.
type Bad = (&'static str, &'static str, &'static str, u16, &'static str, &'static str);

const BAD: &[Bad] = &[
    ("POST", "/api/v1/tasks", "{\"task_type\": ", 400, "malformed", "not JSON"),
    ("POST", "/api/v1/tasks", "nonsense", 400, "malformed", "not JSON"),
    ("POST", "/api/v1/tasks", "", 422, "DV010", "missing field `task_type`"),
    ("POST", "/api/v1/tasks", "[]", 422, "DV010", "does not fit"),
    ("POST", "/api/v1/tasks", "{\"task_type\": 5}", 422, "DV010", "invalid type: integer `5`"),
    (
        "POST",
        "/api/v1/tasks",
        "{\"task_type\": \"a\", \"colour\": 1}",
        422,
        "DV010",
        "unknown field `colour`",
    ),
    ("POST", "/api/v1/tasks", "{\"task_type\": \"A b\"}", 422, "DV010", "the name 'A b'"),
    ("POST", "/api/v1/tasks", "{\"task_type\": \"a\", \"run_at\": \"soon\"}", 422, "DV010", "does not fit"),
    ("POST", "/api/v1/tasks", "{\"task_type\": \"a\", \"priority\": 9}", 422, "DV010", "priority is 9"),
    (
        "POST",
        "/api/v1/tasks",
        "{\"task_type\": \"a\", \"payload\": \"\\ud800\"}",
        422,
        "DV010",
        "SQLSTATE 22P02",
    ),
    (
        "POST",
        "/api/v1/tasks",
        "{\"task_type\": \"a\", \"split_range\": \"x\", \"split_size\": 1}",
        422,
        "DV010",
        "range",
    ),
    ("POST", "/api/v1/tasks/batch", "{\"tasks\": []}", 422, "DV010", "0 tasks"),
    (
        "POST",
        "/api/v1/tasks/batch",
        "{\"tasks\": [{\"task_type\": \"a\"}, {\"task_type\": \"-?\"}]}",
        422,
        "DV010",
        "'-?'",
    ),
    ("POST", "/api/v1/tasks?x=1", "{\"task_type\": \"a\"}", 422, "DV010", "takes no parameters"),
    ("POST", "/api/v1/tasks/7/cancel", "{\"reason\": 7}", 422, "DV010", "does not fit"),
    ("POST", "/api/v1/tasks/7/cancel", "{}", 404, "DV011", "there is no task 7"),
    ("POST", "/api/v1/tasks/7x/cancel", "{}", 404, "DV011", "there is no task 7x"),
    ("POST", "/api/v1/splits/99999999999999999999/skip", "{}", 404, "DV011", "99999999999999999999"),
    ("POST", "/api/v1/types/none/pause", "{}", 404, "DV011", "none"),
    ("POST", "/api/v1/schedules/none/trigger", "{}", 404, "DV011", "none"),
    ("PUT", "/api/v1/schedules/s", "{\"task_type\": \"a\"}", 422, "DV012", "exactly one"),
    ("PUT", "/api/v1/types/a", "{\"lease\": \"long\"}", 422, "DV010", "long"),
    ("POST", "/api/v1/schedules/preview", "{\"rule\": {\"cron\": \"x\"}}", 422, "DV012", "x"),
    (
        "POST",
        "/api/v1/worker/complete",
        "{\"split_id\": \"1\", \"token\": \"1\"}",
        404,
        "DV011",
        "there is no split 1",
    ),
    (
        "POST",
        "/api/v1/worker/complete",
        "{\"split_id\": \"one\", \"token\": \"1\"}",
        422,
        "DV010",
        "an id: a string of digits",
    ),
    ("GET", "/api/v1/tasks?limit=0", "", 422, "DV010", "limit is 0"),
    ("GET", "/api/v1/tasks?limit=many", "", 422, "DV010", "invalid digit"),
    ("GET", "/api/v1/tasks?status=lost", "", 422, "DV010", "unknown variant `lost`"),
    ("GET", "/api/v1/tasks?status=", "", 422, "DV010", "unknown variant ``"),
    ("GET", "/api/v1/splits?status=ready,", "", 422, "DV010", "unknown variant ``"),
    ("GET", "/api/v1/tasks?status=,", "", 422, "DV010", "unknown variant ``"),
    ("GET", "/api/v1/tasks?colour=red", "", 422, "DV010", "unknown field `colour`"),
    ("GET", "/api/v1/tasks?cursor=%00", "", 422, "DV010", "an id"),
    ("GET", "/api/v1/tasks?label=%00", "", 422, "DV010", "SQLSTATE 22021"),
    ("GET", "/api/v1/tasks/%ff", "", 400, "malformed", "UTF-8"),
    ("GET", "/api/v1/none", "", 404, "DV011", "/api/v1/none"),
    ("DELETE", "/api/v1/tasks", "", 405, "method", "does not take DELETE"),
];

#[tokio::test]
async fn what_can_not_be_read_or_means_nothing_is_refused_with_its_place() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    let w = "44444444-4444-4444-4444-444444444444";
    let deep =
        format!("{{\"task_type\": \"a\", \"payload\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = ("POST", "/api/v1/tasks", deep.as_str(), 422, "DV010", "stack depth limit");
    for (method, path, body, status, code, says) in BAD.iter().copied().chain([deep]) {
        let told = http.ask(method, path, &[JSON.to_owned()], body).await.refuses(status, code);
        assert!(told.contains(says), "{method} {path} {body}: {told}");
    }
    let ask = json!({ "worker": w, "task_types": ["a"] });
    assert!(http.post("/api/v1/worker/claim", ask).await.refuses(404, "DV011").contains(w));
    for wrong in [
        json!({ "worker": "me", "task_types": [] }),
        json!({ "worker": w, "task_types": ["a"], "max": 0 }),
        json!({ "worker": w, "task_types": ["a"], "wait": 31 }),
    ] {
        http.post("/api/v1/worker/claim", wrong).await.refuses(422, "DV010");
    }
    let made: i64 = sqlx::query_scalar("select count(*) from divvy.task").fetch_one(db.pool()).await.unwrap();
    assert_eq!(made, 0);
}

#[tokio::test]
async fn a_body_that_is_too_large_or_no_json_is_not_read() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    let large = format!("{{\"task_type\": \"a\", \"payload\": \"{}\"}}", "x".repeat(1 << 20));
    assert!(
        http.ask("POST", "/api/v1/tasks", &[JSON.to_owned()], &large)
            .await
            .refuses(422, "DV003")
            .contains("1048576")
    );
    let larger = "x".repeat((16 << 20) + 1);
    http.ask("POST", "/api/v1/tasks", &[JSON.to_owned()], &larger).await.refuses(413, "too_large");
    // The same where the length is not told.
    let mut stream = tokio::net::TcpStream::connect(http.address).await.unwrap();
    let head = format!(
        "POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let (mut answer, mut body) = stream.split();
    let sending = async {
        let chunk = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
        body.write_all(head.as_bytes()).await.ok();
        for _ in 0..17 {
            body.write_all(chunk.as_bytes()).await.ok();
        }
    };
    let reading = async {
        let mut status = [0; 12];
        answer.read_exact(&mut status).await.unwrap();
        String::from_utf8(status.to_vec()).unwrap()
    };
    assert_eq!(tokio::join!(sending, reading).1, "HTTP/1.1 413");
    let form = ["Content-Type: application/x-www-form-urlencoded".to_owned()];
    http.ask("POST", "/api/v1/tasks", &form, "{\"task_type\": \"a\"}").await.refuses(415, "media_type");
}

#[tokio::test]
async fn without_tokens_only_this_machine_s_own_names_lead_here() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    for host in ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:8080", ""] {
        let mut stream = tokio::net::TcpStream::connect(http.address).await.unwrap();
        let ask = format!("GET /api/v1/tasks HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        super::client::read(&mut stream).await.refuses(403, "forbidden");
    }
}

#[tokio::test]
async fn what_no_second_try_cures_is_a_failure_of_the_service_and_tells_no_stranger_why() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    sqlx::raw_sql("set client_min_messages = error; drop schema divvy cascade")
        .execute(db.pool())
        .await
        .unwrap();
    for told in [
        http.post("/api/v1/tasks", json!({ "task_type": "mail" })).await,
        http.keyed("/api/v1/tasks", "k", json!({ "task_type": "mail" })).await,
        http.get("/api/v1/tasks").await,
    ] {
        assert_eq!(told.refuses(500, "internal"), "the service failed; its log says why");
    }
}
