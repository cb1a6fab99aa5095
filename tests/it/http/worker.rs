//! Workers without database credentials: every call, waits, and clients that go away.

use super::client::{Running, running};
use crate::support::db::TestDb;
use crate::support::race::until;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

const ME: &str = "33333333-3333-3333-3333-333333333333";

async fn register(http: &Running, worker: &str) {
    let types = json!({ "mail": {}, "walk": { "plan": true, "reduce": true } });
    let who =
        json!({ "worker": worker, "name": "w", "task_types": ["mail", "walk"], "slots": 9, "types": types });
    let told = http.post("/api/v1/worker/register", who).await.is(200);
    assert_eq!(told, json!({ "command": "run", "heartbeat_seconds": 10.0 }));
}

async fn claim(http: &Running, more: Value) -> Vec<Value> {
    let mut ask = json!({ "worker": ME, "task_types": ["mail", "walk"], "max": 10 });
    ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let told = http.post("/api/v1/worker/claim", ask).await.is(200);
    told["splits"].as_array().unwrap().clone()
}

fn held(split: &Value) -> Value {
    json!({ "split_id": split["split_id"], "token": split["token"] })
}

fn with(split: &Value, more: Value) -> Value {
    let mut body = held(split);
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_planned_task_goes_its_whole_way() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    register(&http, ME).await;
    let made =
        http.post("/api/v1/tasks", json!({ "task_type": "walk", "payload": { "root": "/" } })).await.is(201);
    let say = async |what: &str, body: Value| http.post(&format!("/api/v1/worker/{what}"), body).await;
    let plan = claim(&http, json!({})).await.remove(0);
    assert_eq!(
        (&plan["phase"], &plan["payload"], &plan["attempt"]),
        (&json!("plan"), &json!({ "root": "/" }), &json!(1))
    );
    let splits = with(&plan, json!({ "payloads": [1, 2, 3] }));
    assert_eq!(say("add_splits", splits).await.is(200), json!({ "splits": 3 }));
    assert_eq!(say("complete", held(&plan)).await.is(200), json!({ "status": "succeeded" }));
    let mut splits = claim(&http, json!({})).await;
    let (first, second, third) = (splits.remove(0), splits.remove(0), splits.remove(0));
    let saved = json!({ "state": { "seen": 17 }, "progress": 0.5 });
    say("checkpoint", with(&first, saved)).await.is(200);
    say("log", with(&first, json!({ "level": "warn", "message": "slow", "fields": { "disk": 3 } })))
        .await
        .is(200);
    let beat =
        json!({ "worker": ME, "splits": [held(&first), { "split_id": second["split_id"], "token": "999" }] });
    let beat = say("heartbeat", beat).await.is(200);
    assert_eq!(
        (&beat["splits"][0]["verdict"], &beat["splits"][1]["verdict"]),
        (&json!("ok"), &json!("lost"))
    );
    let failed =
        say("fail", with(&first, json!({ "error": { "class": "io", "message": "disk 3" }, "retry_in": 0 })))
            .await;
    assert_eq!(failed.is(200)["status"], "ready");
    say("release", held(&second)).await.is(200);
    assert!(
        say("snooze", with(&third, json!({ "delay": 0, "checkpoint": 9 }))).await.is(200)["due_at"]
            .is_string()
    );
    let stale = say("complete", held(&first)).await.refuses(409, "DV001");
    assert!(stale.contains("is not held by token"), "{stale}");
    until("all three are ready", async || {
        http.post("/api/v1/worker/wait", json!({ "task_types": ["walk"] })).await.is(200);
        http.get(&format!("/api/v1/tasks/{}/progress", made["task_id"].as_str().unwrap())).await.is(200)["ready"] == 3
    })
    .await;
    let splits = claim(&http, json!({})).await;
    assert_eq!(splits.len(), 3);
    let again = splits.iter().find(|one| one["split_id"] == first["split_id"]).unwrap();
    assert_eq!((&again["checkpoint"], &again["attempt"]), (&json!({ "seen": 17 }), &json!(2)));
    let ended: Vec<Value> =
        splits.iter().map(|one| with(one, json!({ "result": one["split_no"] }))).collect();
    let told = say("complete_many", json!({ "splits": ended })).await.is(200);
    assert!(told["splits"].as_array().unwrap().iter().all(|one| one["verdict"] == "ok"), "{told}");
    let reduce = claim(&http, json!({})).await.remove(0);
    let inputs = say("reduce_inputs", with(&reduce, json!({ "max": 2 }))).await.is(200);
    assert_eq!((inputs["items"].as_array().map(Vec::len), &inputs["more"]), (Some(2), &json!(true)));
    let rest = say("reduce_inputs", with(&reduce, json!({ "after": 2 }))).await.is(200);
    assert_eq!((&rest["items"][0]["result"], &rest["more"]), (&json!(3), &json!(false)));
    say("complete", with(&reduce, json!({ "result": 6 }))).await.is(200);
    let result =
        http.get(&format!("/api/v1/tasks/{}/result", made["task_id"].as_str().unwrap())).await.is(200);
    assert_eq!((&result["status"], &result["result"]), (&json!("succeeded"), &json!(6)));
}

#[tokio::test]
async fn a_claim_has_the_lease_and_the_headers_and_a_failure_may_be_the_last() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    register(&http, ME).await;
    let trace = json!({ "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" });
    http.post("/api/v1/tasks", json!({ "task_type": "mail", "headers": trace })).await.is(201);
    let split = claim(&http, json!({ "lease": 300 })).await.remove(0);
    assert_eq!(split["headers"], trace);
    let left = "select extract(epoch from $1::timestamptz - divvy.clock())::float8";
    let left = async |until: &Value| -> f64 {
        sqlx::query_scalar(left).bind(until.as_str()).fetch_one(db.pool()).await.unwrap()
    };
    assert!((200.0..=300.0).contains(&left(&split["lease_until"]).await), "{split}");
    let beat = json!({ "worker": ME, "splits": [held(&split)], "lease": 600 });
    http.post("/api/v1/worker/heartbeat", beat).await.is(200);
    let one = http.get(&format!("/api/v1/splits/{}", split["split_id"].as_str().unwrap())).await.is(200);
    assert!((500.0..=600.0).contains(&left(&one["lease_until"]).await), "{one}");
    let last = with(&split, json!({ "error": { "message": "no such account" }, "retry": false }));
    let failed = http.post("/api/v1/worker/fail", last).await.is(200);
    assert_eq!(failed, json!({ "status": "failed", "next_at": null }));
}

#[tokio::test]
async fn a_claim_that_waits_is_woken_by_an_insert() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    register(&http, ME).await;
    let began = Instant::now();
    assert_eq!(claim(&http, json!({ "wait": 0.3 })).await.len(), 0);
    assert!(began.elapsed() >= Duration::from_millis(300));
    // Unwoken it would look again after 0.8 s or more.
    let mut soonest = Duration::MAX;
    for _ in 0..5 {
        sqlx::query("delete from divvy.type_wake").execute(db.pool()).await.unwrap();
        let (splits, inserted) = tokio::join!(claim(&http, json!({ "wait": 30 })), async {
            until("somebody waits", async || {
                sqlx::query_scalar("select exists (select from divvy.type_wake where idle_until > now())")
                    .fetch_one(db.pool())
                    .await
                    .unwrap()
            })
            .await;
            let inserted = Instant::now();
            sqlx::query("insert into divvy.task (task_type) values ('mail')")
                .execute(db.pool())
                .await
                .unwrap();
            inserted
        });
        assert_eq!(splits.len(), 1);
        soonest = soonest.min(inserted.elapsed());
    }
    assert!(soonest < Duration::from_millis(400), "{soonest:?}");
}

#[tokio::test]
async fn what_was_claimed_for_a_client_that_went_away_comes_back_at_once() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    register(&http, ME).await;
    sqlx::query("insert into divvy.task (task_type) values ('mail')").execute(db.pool()).await.unwrap();
    // Its claim waits for this lock, and the client does not.
    let mut holder = db.connect().await;
    sqlx::raw_sql("begin; lock table divvy.lease in access exclusive mode")
        .execute(&mut holder)
        .await
        .unwrap();
    let mut stream = TcpStream::connect(http.address).await.unwrap();
    let body = json!({ "worker": ME, "task_types": ["mail"], "lease": 3600 }).to_string();
    let head = format!(
        "POST /api/v1/worker/claim HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    until("the claim waits", async || {
        sqlx::query_scalar(
            "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')",
        )
        .fetch_one(db.pool())
        .await
        .unwrap()
    })
    .await;
    drop(stream);
    sqlx::raw_sql("commit").execute(&mut holder).await.unwrap();
    // Its lease lasts for an hour: only a release makes it ready again. A token was used up by then.
    until("the split is released", async || {
        let (token, leases): (i64, i64) =
            sqlx::query_as("select (select last_value from divvy.token), (select count(*) from divvy.lease)")
                .fetch_one(db.pool())
                .await
                .unwrap();
        token >= 1 && leases == 0
    })
    .await;
    let splits = timeout(Duration::from_secs(20), claim(&http, json!({ "wait": 10 }))).await.unwrap();
    assert_eq!((splits.len(), &splits[0]["attempt"]), (1, &json!(1)), "no attempt was charged");
}

#[tokio::test]
async fn two_workers_with_one_id_hold_different_splits_and_are_one_to_commands() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    register(&http, ME).await;
    register(&http, ME).await;
    sqlx::query("insert into divvy.task (task_type) select 'mail' from generate_series(1, 2)")
        .execute(db.pool())
        .await
        .unwrap();
    let (one, two) = (
        claim(&http, json!({ "max": 1 })).await.remove(0),
        claim(&http, json!({ "max": 1 })).await.remove(0),
    );
    assert!(one["split_id"] != two["split_id"] && one["token"] != two["token"]);
    let mixed = json!({ "split_id": one["split_id"], "token": two["token"] });
    http.post("/api/v1/worker/complete", mixed).await.refuses(409, "DV001");
    http.post(&format!("/api/v1/workers/{ME}/quiet"), json!({})).await.is(200);
    for split in [&one, &two] {
        let told = http
            .post("/api/v1/worker/heartbeat", json!({ "worker": ME, "splits": [held(split)] }))
            .await
            .is(200);
        assert_eq!((&told["command"], &told["splits"][0]["verdict"]), (&json!("quiet"), &json!("ok")));
        http.post("/api/v1/worker/complete", held(split)).await.is(200);
    }
    assert_eq!(claim(&http, json!({})).await.len(), 0, "it is quiet");
    let workers = http.get("/api/v1/workers").await.is(200);
    assert_eq!(workers["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_worker_can_not_declare_what_runs_on_the_server_s_side() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    let sql = json!({ "handler": { "sql": { "execute": "select 1" } } });
    let who =
        json!({ "worker": ME, "name": "w", "task_types": [], "slots": 1, "types": { "x": sql.clone() } });
    http.post("/api/v1/worker/register", who).await.refuses(422, "DV010");
    let hidden = json!({ "worker": ME, "name": "w", "task_types": [], "slots": 1, "meta": { "types": { "x": sql.clone() } } });
    http.post("/api/v1/worker/register", hidden).await.is(200);
    http.send("PUT", "/api/v1/types/x", sql).await.refuses(422, "DV010");
    http.get("/api/v1/types/x").await.refuses(404, "DV011");
}

#[tokio::test]
async fn who_waits_is_told_when_the_service_stops() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    register(&http, ME).await;
    let began = Instant::now();
    let (splits, ()) = tokio::join!(claim(&http, json!({ "wait": 30 })), async {
        until("somebody waits", async || {
            sqlx::query_scalar("select exists (select from divvy.type_wake)")
                .fetch_one(db.pool())
                .await
                .unwrap()
        })
        .await;
        http.draining.cancel();
    });
    assert!(splits.is_empty() && began.elapsed() < Duration::from_secs(15));
    let ask = json!({ "worker": ME, "task_types": ["mail"], "wait": 30 });
    let late = http.post("/api/v1/worker/claim", ask).await;
    assert!(late.head.contains("retry-after: 1"), "{}", late.head);
    late.refuses(503, "unavailable");
}
