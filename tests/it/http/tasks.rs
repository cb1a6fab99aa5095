//! Every resource by HTTP, on a real database.

use super::client::{Running, guarded, running, token};
use crate::support::db::TestDb;
use crate::support::race::until;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Long before a wait of a minute is over.
const SOON: Duration = Duration::from_secs(20);

async fn task(service: &Running, body: Value) -> String {
    let made = service.post("/api/v1/tasks", body).await.is(201);
    made["task_id"].as_str().unwrap_or_else(|| panic!("an id is a string: {made}")).to_owned()
}

#[tokio::test]
async fn a_task_is_made_listed_looked_at_changed_and_cancelled() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    http.send("PUT", "/api/v1/types/mail", json!({ "max_attempts": 3 })).await.is(200);
    let id = task(
        &http,
        json!({ "task_type": "mail", "payload": { "n": 12345678901234567890u64 }, "labels": ["eu"] }),
    )
    .await;
    let one = http.get(&format!("/api/v1/tasks/{id}")).await.is(200);
    assert_eq!(
        (one["status"].as_str(), one["payload"].to_string()),
        (Some("running"), r#"{"n":12345678901234567890}"#.to_owned())
    );
    let act = async |what: &str, body| http.post(&format!("/api/v1/tasks/{id}/{what}"), body).await;
    act("pause", json!({ "reason": "lunch" })).await.is(200);
    assert_eq!(http.get(&format!("/api/v1/tasks/{id}/progress")).await.is(200)["delayed"], 1);
    act("resume", json!({})).await.is(200);
    assert_eq!(
        act("reschedule", json!({ "run_at": "2999-01-01T00:00:00Z", "priority": 1 })).await.is(200),
        json!({ "splits": 1 })
    );
    http.send("PATCH", &format!("/api/v1/tasks/{id}"), json!({ "priority": 3 })).await.is(200);
    assert_eq!(act("cancel", json!({ "reason": "no" })).await.is(200), json!({ "status": "cancelled" }));
    assert_eq!(act("redrive", json!({ "fresh": true })).await.is(200), json!({ "splits": 1 }));
    act("cancel", json!({})).await.is(200);
    act("forget", json!({})).await.is(200);
    act("forget", json!({})).await.is(200);
    assert_eq!(http.get(&format!("/api/v1/tasks/{id}")).await.is(200)["payload"], json!({}));
    let splits = http.get(&format!("/api/v1/tasks/{id}/splits")).await.is(200);
    assert_eq!(splits["items"][0]["status"], "cancelled");
    let audit = http.get(&format!("/api/v1/audit?object=task&object_id={id}&verb=cancel")).await.is(200);
    assert_eq!(audit["items"].as_array().map(Vec::len), Some(2));
    let events = http.get(&format!("/api/v1/events?object=task&object_id={id}")).await.is(200);
    assert_eq!(
        (&events["items"][0]["verb"], &events["items"][0]["reason"]),
        (&json!("pause_task"), &json!("lunch"))
    );
    act("redrive", json!({})).await.is(200);
    act("redrive", json!({})).await.refuses(409, "DV004");
    let held = json!({ "task_type": "mail", "dedupe_key": "k" });
    let first = task(&http, held.clone()).await;
    let again = http.post("/api/v1/tasks", held).await.is(200);
    assert_eq!(again, json!({ "task_id": first, "created": false }));
    let by_key = json!({ "task_type": "mail", "dedupe_key": "k" });
    assert_eq!(http.post("/api/v1/tasks/cancel_by_key", by_key.clone()).await.is(200)["status"], "cancelled");
    http.post("/api/v1/tasks/cancel_by_key", by_key).await.refuses(404, "DV011");
}

#[tokio::test]
async fn pages_follow_one_another_until_the_last() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    let tasks: Vec<Value> = (0..7).map(|_| json!({ "task_type": "mail" })).collect();
    let made = http.post("/api/v1/tasks/batch", json!({ "tasks": tasks })).await.is(201);
    assert_eq!(made["items"].as_array().map(Vec::len), Some(7));
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = http.get(&format!("/api/v1/tasks?task_type=mail&limit=3{cursor}")).await.is(200);
        seen.extend(page["items"].as_array().unwrap().iter().map(|row| row["task_id"].clone()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let mut expected: Vec<Value> =
        made["items"].as_array().unwrap().iter().map(|row| row["task_id"].clone()).collect();
    expected.reverse();
    assert_eq!(seen, expected);
}

/// Every page of a list, one row each.
async fn one_by_one(http: &Running, path: &str) -> Vec<Value> {
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = http.get(&format!("{path}limit=1{cursor}")).await.is(200);
        seen.extend(page["items"].as_array().unwrap().iter().cloned());
        assert!(seen.len() < 100, "the pages of {path} have no end");
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return seen,
        }
    }
}

#[tokio::test]
async fn pages_of_splits_decisions_and_moments_have_every_row_once() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    for act in ["pause", "resume", "pause"] {
        http.send("PUT", "/api/v1/types/mail", json!({})).await.is(200);
        http.post(&format!("/api/v1/types/mail/{act}"), json!({})).await.is(200);
    }
    let rule = json!({ "task_type": "mail", "cron": "0 3 * * *" });
    http.send("PUT", "/api/v1/schedules/nightly", rule).await.is(201);
    let past =
        json!({ "moments": ["2026-01-01T03:00:00Z", "2026-01-02T03:00:00Z", "2026-01-03T03:00:00.000001Z"] });
    http.post("/api/v1/schedules/nightly/backfill", past).await.is(200);
    let id = task(&http, json!({ "task_type": "mail", "split_count": 4 })).await;
    let texts = |rows: Vec<Value>, name: &str| -> Vec<String> {
        rows.iter().map(|row| row[name].to_string().trim_matches('"').to_owned()).collect()
    };
    let decisions = texts(one_by_one(&http, "/api/v1/audit?object=type&").await, "verb");
    let wanted = ["pause", "put_task_type", "resume", "put_task_type", "pause", "put_task_type"];
    assert_eq!(decisions, wanted);
    let moments = texts(one_by_one(&http, "/api/v1/schedules/nightly/history?").await, "fire_at");
    assert_eq!(moments.len(), 3, "{moments:?}");
    assert!(moments[0].starts_with("2026-01-03T03:00:00.000001"), "latest first: {moments:?}");
    let splits = texts(one_by_one(&http, &format!("/api/v1/tasks/{id}/splits?")).await, "split_no");
    assert_eq!(splits, ["1", "2", "3", "4"]);
    assert_eq!(
        one_by_one(&http, "/api/v1/splits?phase=execute&").await.len(),
        4 + 1,
        "of three backfills one may be open"
    );
}

#[tokio::test]
async fn types_schedules_workers_and_figures_are_there() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    http.send("PUT", "/api/v1/types/mail", json!({ "timeout": "2 min" })).await.is(200);
    http.post("/api/v1/types/mail/pause", json!({ "reason": "night" })).await.is(200);
    let one = http.get("/api/v1/types/mail").await.is(200);
    assert_eq!(
        (&one["stats"]["paused"], &one["declaration"]["options"]["timeout"]),
        (&json!(true), &json!("00:02:00"))
    );
    http.post("/api/v1/types/mail/resume", json!({})).await.is(200);
    assert_eq!(http.get("/api/v1/types").await.is(200)["items"][0]["paused"], false);
    let rule = json!({ "task_type": "mail", "cron": "0 3 * * *", "timezone": "Europe/Berlin" });
    assert_eq!(
        http.send("PUT", "/api/v1/schedules/nightly", rule.clone()).await.is(201)["outcome"],
        "created"
    );
    assert_eq!(http.send("PUT", "/api/v1/schedules/nightly", rule).await.is(200)["outcome"], "unchanged");
    let bad = json!({ "task_type": "mail", "cron": "0 3 32 * *" });
    assert!(
        http.send("PUT", "/api/v1/schedules/bad", bad).await.refuses(422, "DV012").contains("day of month")
    );
    let never = json!({ "task_type": "mail", "cron": "0 0 0 30 2 * 2030" });
    http.send("PUT", "/api/v1/schedules/bad", never).await.refuses(422, "DV012");
    assert!(http.post("/api/v1/schedules/nightly/trigger", json!({})).await.is(200)["task_id"].is_string());
    let past = json!({ "moments": ["2026-01-01T03:00:00Z"], "max_running": 2 });
    assert_eq!(
        http.post("/api/v1/schedules/nightly/backfill", past.clone()).await.is(200),
        json!({ "new": 1 })
    );
    assert_eq!(http.post("/api/v1/schedules/nightly/backfill", past).await.is(200), json!({ "new": 0 }));
    let history = http.get("/api/v1/schedules/nightly/history").await.is(200);
    assert_eq!(history["items"].as_array().map(Vec::len), Some(2), "{history}");
    for act in ["pause", "resume", "cancel"] {
        http.post(&format!("/api/v1/schedules/nightly/{act}"), json!({})).await.is(200);
    }
    assert_eq!(http.get("/api/v1/schedules/nightly").await.is(200)["status"], "cancelled");
    assert_eq!(http.get("/api/v1/schedules").await.is(200)["items"].as_array().map(Vec::len), Some(1));
    let rule = json!({ "rule": { "cron": "30 2 * * *", "timezone": "Europe/Berlin" }, "after": "2026-03-28T12:00:00Z", "count": 2 });
    let moments = json!({ "moments": ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"] });
    assert_eq!(http.post("/api/v1/schedules/preview", rule).await.is(200), moments);
    let worker = "22222222-2222-2222-2222-222222222222";
    let who = json!({ "worker": worker, "name": "w", "task_types": ["mail"], "slots": 1 });
    http.post("/api/v1/worker/register", who).await.is(200);
    http.post(&format!("/api/v1/workers/{worker}/quiet"), json!({})).await.is(200);
    let row = &http.get("/api/v1/workers").await.is(200)["items"][0];
    assert_eq!((&row["name"], &row["command"]), (&json!("w"), &json!("quiet")));
    assert!(http.get("/api/v1/stats").await.is(200)["database"]["server_version"].is_string());
    assert_eq!(http.get("/api/v1/dead").await.is(200)["items"], json!([]));
    http.ask("DELETE", "/api/v1/types/mail", &[], "").await.refuses(409, "DV004");
}

#[tokio::test]
async fn a_bad_task_does_not_harm_those_that_came_with_it() {
    let db = TestDb::new().await;
    let http = Arc::new(running(&db).await);
    let mut asked = tokio::task::JoinSet::new();
    for n in 0..200 {
        let http = http.clone();
        asked.spawn(async move {
            let body = match n % 10 {
                3 => json!({ "task_type": "mail", "payload": { "nul": "\u{0}" } }),
                7 => json!({ "task_type": "mail", "headers": { "x": "y".repeat(20_000) } }),
                8 => json!({ "task_type": "mail", "priority": 1 }),
                _ => json!({ "task_type": "mail" }),
            };
            (n % 10, http.post("/api/v1/tasks", body).await)
        });
    }
    let mut made = 0;
    while let Some(done) = asked.join_next().await {
        match done.unwrap() {
            (3, answer) => assert!(answer.refuses(422, "DV010").contains("SQLSTATE 22P05")),
            (7, answer) => assert!(answer.refuses(422, "DV003").contains("the limit is 16384")),
            (_, answer) => {
                answer.is(201);
                made += 1;
            }
        }
    }
    let there: i64 =
        sqlx::query_scalar("select count(*) from divvy.task").fetch_one(db.pool()).await.unwrap();
    assert_eq!((made, there), (160, 160));
}

#[tokio::test]
async fn the_end_of_a_task_is_waited_for_and_streamed() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    http.send("PUT", "/api/v1/types/mail", json!({})).await.is(200);
    let id = task(&http, json!({ "task_type": "mail" })).await;
    let mut stream = TcpStream::connect(http.address).await.unwrap();
    let ask =
        format!("GET /api/v1/tasks/{id}/stream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let streamed = tokio::spawn(async move {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    });
    let path = format!("/api/v1/tasks/{id}/result");
    let at_once = http.get(&path).await.is(200);
    assert_eq!((&at_once["status"], &at_once["finished_at"]), (&json!("running"), &Value::Null));
    let in_vain = timeout(SOON, http.get(&format!("{path}?wait=0.2"))).await.expect("a wait ends");
    assert_eq!(in_vain.is(200)["status"], "running");
    let waiting = format!("{path}?wait=60");
    let cancel = format!("/api/v1/tasks/{id}/cancel");
    let began = Instant::now();
    let (ended, cancelled) = tokio::join!(http.get(&waiting), http.post(&cancel, json!({})));
    cancelled.is(200);
    assert_eq!(ended.is(200)["status"], "cancelled");
    assert!(began.elapsed() < SOON, "it is told at the end, not when the wait is over");
    let text = streamed.await.unwrap();
    assert!(text.contains("content-type: text/event-stream") && text.contains("event: end"), "{text}");
    http.get(&format!("{path}?wait=61")).await.refuses(422, "DV010");
    http.get("/api/v1/tasks/999/stream").await.refuses(404, "DV011");
}

#[tokio::test]
async fn a_split_is_looked_at_and_set_aside() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    http.send("PUT", "/api/v1/types/mail", json!({ "max_failed": 1 })).await.is(200);
    let id = task(&http, json!({ "task_type": "mail", "splits": [{ "a": 1 }, { "a": 2 }] })).await;
    let page = http.get(&format!("/api/v1/tasks/{id}/splits?limit=1")).await.is(200);
    let split = page["items"][0]["split_id"].as_str().unwrap().to_owned();
    assert_eq!(http.get(&format!("/api/v1/splits/{split}")).await.is(200)["payload"], json!({ "a": 1 }));
    http.post(&format!("/api/v1/splits/{split}/skip"), json!({ "reason": "why not" })).await.is(200);
    http.post(&format!("/api/v1/splits/{split}/skip"), json!({})).await.refuses(409, "DV004");
    let next = page["next_cursor"].as_str().unwrap();
    let rest = http.get(&format!("/api/v1/tasks/{id}/splits?limit=1&cursor={next}")).await.is(200);
    assert_eq!((&rest["items"][0]["split_no"], &rest["next_cursor"]), (&json!(2), &Value::Null));
    let skipped = http.get("/api/v1/splits?status=skipped,failed&task_type=mail").await.is(200);
    assert_eq!(skipped["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(http.get(&format!("/api/v1/splits/{split}/attempts")).await.is(200)["items"], json!([]));
    assert_eq!(http.get(&format!("/api/v1/splits/{split}/log")).await.is(200)["items"], json!([]));
}

async fn task_of_tomorrow(db: &TestDb) -> i64 {
    sqlx::query_scalar("insert into divvy.task (task_type, run_at) values ('mail', 'tomorrow') returning id")
        .fetch_one(db.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn payloads_and_results_are_for_those_who_may_read_them() {
    let db = TestDb::new().await;
    let mut http = guarded(&db).await;
    let (all, reads) =
        (token(&db, "all", &["producer", "payloads"]).await, token(&db, "reads", &["reader"]).await);
    http.token = Some(all);
    let id = task(
        &http,
        json!({ "task_type": "mail", "payload": { "iban": "secret" }, "headers": { "h": "secret" } }),
    )
    .await;
    sqlx::query("update divvy.task set result = '\"secret\"'").execute(db.pool()).await.unwrap();
    for path in [format!("/api/v1/tasks/{id}"), format!("/api/v1/tasks/{id}/result")] {
        assert!(http.get(&path).await.is(200).to_string().contains("secret"));
    }
    // Whoever makes tasks sees how they end.
    http.token = Some(token(&db, "makes", &["producer"]).await);
    assert_eq!(http.get(&format!("/api/v1/tasks/{id}/result")).await.is(200)["result"], "secret");
    http.token = Some(token(&db, "decides", &["operator"]).await);
    let then = json!({ "then": { "succeeded": { "task_type": "mail", "payload": { "iban": "secret" } } } });
    http.send("PUT", "/api/v1/types/mail", then).await.is(200);
    let rule = json!({ "task_type": "mail", "cron": "0 3 * * *", "splits": ["secret"], "payload": { "iban": "secret" } });
    http.send("PUT", "/api/v1/schedules/nightly", rule).await.is(201);
    let later = task_of_tomorrow(&db).await;
    http.send("PATCH", &format!("/api/v1/tasks/{later}"), json!({ "payload": { "iban": "secret" } }))
        .await
        .is(200);
    let shown = http.get("/api/v1/audit").await.is(200);
    assert_eq!(shown["items"].as_array().map(Vec::len), Some(3 + 4), "tokens and decisions: {shown}");
    for path in ["/audit", "/types/mail", "/schedules/nightly", "/events?object=type&object_id=mail"] {
        let shown = http.get(&format!("/api/v1{path}")).await.is(200);
        assert!(!shown.to_string().contains("secret"), "{path}: {shown}");
    }
    http.token = Some(reads);
    for path in ["", "/result", "/splits", "/log", "/progress"] {
        let shown = http.get(&format!("/api/v1/tasks/{id}{path}")).await.is(200);
        assert!(!shown.to_string().contains("secret"), "{shown}");
    }
    until("the token's use is noted", async || {
        let used: bool =
            sqlx::query_scalar("select used_at is not null from divvy.api_token where name = 'reads'")
                .fetch_one(db.pool())
                .await
                .unwrap();
        used
    })
    .await;
}
