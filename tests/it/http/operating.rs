//! What operators do and look at beside single tasks.

use super::client::{guarded, running, token};
use crate::support::db::TestDb;
use serde_json::json;

#[tokio::test]
async fn a_split_is_explained_and_what_is_none_is_not() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    http.send("PUT", "/api/v1/types/mail", json!({})).await.is(200);
    let made = http.post("/api/v1/tasks", json!({ "task_type": "mail" })).await.is(201);
    let path = format!("/api/v1/splits/{}/explain", made["task_id"].as_str().unwrap());
    let told = http.get(&path).await.is(200);
    let blocking: Vec<_> =
        told["items"].as_array().unwrap().iter().filter(|row| row["blocking"] == true).collect();
    assert_eq!(blocking.len(), 1, "{told}");
    assert_eq!(blocking[0]["rule"], "worker");
    assert_eq!(blocking[0]["detail"], "no worker has registered type mail");
    http.get("/api/v1/splits/987654321/explain").await.refuses(404, "DV011");
}

#[tokio::test]
async fn many_tasks_are_counted_and_cancelled_in_the_token_s_name() {
    let db = TestDb::new().await;
    let mut http = guarded(&db).await;
    http.token = Some(token(&db, "ops", &["operator", "producer"]).await);
    http.send("PUT", "/api/v1/types/mail", json!({})).await.is(200);
    for _ in 0..3 {
        http.post("/api/v1/tasks", json!({ "task_type": "mail" })).await.is(201);
    }
    let ask = json!({ "action": "cancel", "filter": { "task_type": "mail", "status": ["running"] } });
    let counted = http.post("/api/v1/bulk", ask.clone()).await.is(200);
    assert_eq!(counted, json!({ "matched": 3, "done": 0, "refused": 0, "last_id": null }));
    let mut ask = ask;
    ask["dry_run"] = json!(false);
    ask["options"] = json!({ "reason": "a mistake" });
    let done = http.keyed("/api/v1/bulk", "once", ask.clone()).await.is(200);
    assert_eq!(done["done"], 3);
    assert_eq!(http.keyed("/api/v1/bulk", "once", ask).await.is(200), done, "done once");
    let audit = http.get("/api/v1/audit?verb=bulk").await.is(200);
    assert_eq!(audit["items"].as_array().map(Vec::len), Some(1), "{audit}");
    assert_eq!(audit["items"][0]["actor"], "token ops");
    let events = http.get("/api/v1/events?object=tasks&object_id=cancel").await.is(200);
    assert_eq!(events["items"].as_array().map(Vec::len), Some(1), "{events}");
    let empty = json!({ "action": "cancel", "filter": {} });
    assert!(http.post("/api/v1/bulk", empty).await.refuses(422, "DV010").contains("every task"));
    let unknown = json!({ "action": "cancel", "filter": { "kind": "a" } });
    http.post("/api/v1/bulk", unknown).await.refuses(422, "DV010");
}

#[tokio::test]
async fn a_calendar_is_put_looked_at_and_forgotten() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    let bank =
        json!({ "excluded": [{ "date": "2026-12-25", "note": "Christmas" }], "included": ["2026-12-27"] });
    let put = http.send("PUT", "/api/v1/calendars/bank", bank).await.is(200);
    assert_eq!(put["dates"][0], json!({ "date": "2026-12-25", "works": false, "note": "Christmas" }));
    let changed = http.send("PUT", "/api/v1/calendars/bank", json!({ "weekend": [5] })).await.is(200);
    assert_eq!(
        (&changed["weekend"], &changed["excluded"]),
        (&json!([5]), &json!(1)),
        "what is named changes"
    );
    assert_eq!(http.get("/api/v1/calendars/bank").await.is(200), changed);
    let rule = json!({ "task_type": "pay", "cron": "0 9 * * *", "calendar": "bank" });
    http.send("PUT", "/api/v1/schedules/pay", rule).await.is(201);
    let listed = http.get("/api/v1/calendars").await.is(200);
    assert_eq!(listed["items"][0]["schedules"], 1);
    let gone = http.ask("DELETE", "/api/v1/calendars/bank", &[], "").await.refuses(409, "DV004");
    assert_eq!(gone, "calendar bank is used by schedule pay");
    http.post("/api/v1/schedules/pay/cancel", json!({})).await.is(200);
    http.ask("DELETE", "/api/v1/calendars/bank", &[], "").await.is(200);
    http.get("/api/v1/calendars/bank").await.refuses(404, "DV011");
    http.send("PUT", "/api/v1/calendars/bank", json!({ "weekend": [8] })).await.refuses(422, "DV010");
    http.send("PUT", "/api/v1/calendars/bank", json!({ "holidays": [] })).await.refuses(422, "DV010");
}

#[tokio::test]
async fn metrics_are_what_prometheus_reads_and_ask_for_a_token_like_any_look() {
    let db = TestDb::new().await;
    let mut http = guarded(&db).await;
    http.get("/metrics").await.refuses(401, "unauthorized");
    http.token = Some(token(&db, "shop", &["producer"]).await);
    http.get("/metrics").await.refuses(403, "forbidden");
    for sql in [
        "select divvy.put_task_type('mail')",
        "insert into divvy.task (task_type) select 'mail' from generate_series(1, 3)",
        "insert into divvy.task (task_type, split_count) values ('mail', 40)",
        "insert into divvy.task (task_type) values ('nobody.s')",
        "select divvy.register_worker(gen_random_uuid(), 'w', '{mail}', 7)",
        "select divvy.tick()",
    ] {
        sqlx::query(sql).execute(db.pool()).await.unwrap();
    }
    http.token = Some(token(&db, "prometheus", &["reader"]).await);
    let answer = http.get("/metrics").await;
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    let text = answer.is(200);
    let text = text.as_str().unwrap();
    for line in [
        "divvy_splits{task_type=\"mail\",state=\"ready\"} 43",
        "divvy_type_workers{task_type=\"mail\"} 1",
        "divvy_type_declared{task_type=\"nobody.s\"} 0",
        "divvy_tasks_scheduled{task_type=\"nobody.s\"} 1",
        "divvy_workers{command=\"run\"} 1",
        "divvy_worker_slots 7",
        "divvy_types_left_out 0",
        "divvy_alert{alert=\"unroutable\",object=\"nobody.s\"} 1",
        "divvy_http_requests_total{method=\"GET\",route=\"/metrics\",status=\"401\"} 1",
        "divvy_http_requests_total{method=\"GET\",route=\"/metrics\",status=\"403\"} 1",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} is missing in:\n{text}");
    }
    assert!(text.contains("\ndivvy_last_tick_seconds ") && text.contains("\ndivvy_leaders 0\n"), "{text}");
    well_formed(text);
}

/// Every metric is described once, before its values, and every line is one or the other.
fn well_formed(text: &str) {
    let mut described = std::collections::BTreeSet::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(told) = line.strip_prefix("# TYPE ") {
            let (name, kind) = told.split_once(' ').unwrap();
            assert!(["gauge", "counter", "histogram"].contains(&kind), "{line}");
            assert!(described.insert(name.to_owned()), "{name} is described twice");
            name.clone_into(&mut current);
        } else if !line.starts_with("# HELP ") {
            let name = line.split(['{', ' ']).next().unwrap();
            let own = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} is under {current}"));
            assert!(["", "_bucket", "_sum", "_count"].contains(&own), "{line}");
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(described.len() > 15, "{described:?}");
}

#[tokio::test]
async fn minutes_come_in_pages_and_alerts_are_silenced() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    sqlx::raw_sql(
        "insert into divvy.sample (at, task_type, ready, delayed, running, scheduled, held, workers, oldest_ready)
            select '2026-11-21 12:00+00'::timestamptz + m * interval '1 min', t, m, 0, 0, 0, 0, 1, '90 s'
              from generate_series(0, 2) m, unnest('{a,b}'::text[]) t;
         insert into divvy.task (task_type) values ('nobody.s'); select divvy.look_for_alerts()",
    )
    .execute(db.pool())
    .await
    .unwrap();
    let first = http.get("/api/v1/timeseries?limit=3").await.is(200);
    assert_eq!(first["items"][0]["oldest_ready_seconds"], 90.0);
    assert_eq!(first["next_cursor"], "2026-11-21T12:01:00Z/a");
    let next = http.get("/api/v1/timeseries?limit=3&cursor=2026-11-21T12:01:00Z/a").await.is(200);
    let seen: Vec<_> =
        next["items"].as_array().unwrap().iter().map(|row| (&row["task_type"], &row["ready"])).collect();
    assert_eq!(seen, [(&json!("b"), &json!(1)), (&json!("a"), &json!(2)), (&json!("b"), &json!(2))]);
    assert_eq!(next["next_cursor"], json!(null));
    let some = "/api/v1/timeseries?task_type=b&from=2026-11-21T12:01:00Z&to=2026-11-21T12:02:00Z";
    assert_eq!(http.get(some).await.is(200)["items"].as_array().map(Vec::len), Some(1));
    http.get("/api/v1/timeseries?cursor=yesterday").await.refuses(422, "DV010");
    let listed = http.get("/api/v1/alerts").await.is(200);
    let alert =
        listed["items"].as_array().unwrap().iter().find(|row| row["name"] == "unroutable").unwrap().clone();
    assert_eq!((&alert["object"], &alert["silenced"]), (&json!("nobody.s"), &json!(false)));
    let silence = json!({ "object": "nobody.s", "reason": "known" });
    http.post("/api/v1/alerts/unroutable/silence", silence).await.is(200);
    http.post("/api/v1/alerts/lag/silence", json!({ "object": "nobody.s" })).await.refuses(404, "DV011");
    let listed = http.get("/api/v1/alerts").await.is(200);
    let last = listed["items"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["silenced"], &last["silence_reason"]), (&json!(true), &json!("known")));
}
