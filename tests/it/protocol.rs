//! The whole journey by SQL alone, one line a step, as any language with a driver would go it.

use crate::support::db::TestDb;
use serde_json::{Value, json};
use sqlx::PgPool;

const WORKER: &str = "00000000-0000-0000-0000-0000000000aa";

/// The first row as JSON.
async fn one(pool: &PgPool, sql: &str) -> Value {
    sqlx::query_scalar::<_, Value>(sqlx::AssertSqlSafe(format!("select to_jsonb(r) from ({sql}) r")))
        .fetch_one(pool)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"))
}

async fn all(pool: &PgPool, sql: &str) -> Vec<Value> {
    sqlx::query_scalar::<_, Value>(sqlx::AssertSqlSafe(format!("select to_jsonb(r) from ({sql}) r")))
        .fetch_all(pool)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"))
}

async fn task(pool: &PgPool, insert: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("insert into divvy.task {insert} returning id")))
        .fetch_one(pool)
        .await
        .unwrap()
}

async fn declared() -> TestDb {
    let db = TestDb::new().await;
    let pool = db.pool();
    one(pool, r#"select divvy.put_task_type('sum', '{"reduce": true}')::text"#).await;
    one(pool, "select divvy.put_task_type('hello')::text").await;
    let registered =
        one(pool, &format!("select * from divvy.register_worker('{WORKER}', 'psql', '{{sum,hello}}', 10)"))
            .await;
    assert_eq!(registered, json!({ "command": "run", "heartbeat": "00:00:10" }));
    db
}

#[tokio::test]
async fn a_plain_task_is_inserted_claimed_and_completed() {
    let db = declared().await;
    let pool = db.pool();
    let id = task(pool, r#"(task_type, payload) values ('hello', '{"name": "Ada"}')"#).await;
    let claimed = one(pool, &format!("select * from divvy.claim('{WORKER}', '{{hello}}')")).await;
    assert_eq!(claimed["task_id"], json!(id));
    assert_eq!(claimed["payload"], json!({ "name": "Ada" }));
    assert_eq!(
        (&claimed["phase"], &claimed["split_no"], &claimed["attempt"]),
        (&json!("execute"), &json!(1), &json!(1))
    );
    let (split, token) = (&claimed["split_id"], &claimed["token"]);

    let beats =
        all(pool, &format!("select * from divvy.heartbeat('{WORKER}', array[{split}], array[{token}])"))
            .await;
    assert_eq!(
        beats,
        [json!({ "split_id": split, "verdict": "ok" }), json!({ "split_id": null, "verdict": "run" })]
    );
    let status = one(pool, &format!(r#"select divvy.complete({split}, {token}, '"hello, Ada"')"#)).await;
    assert_eq!(status, json!({ "complete": "succeeded" }));
    let result = one(pool, &format!("select status, result from divvy.task_result({id})")).await;
    assert_eq!(result, json!({ "status": "succeeded", "result": "hello, Ada" }));
}

#[tokio::test]
async fn a_divided_task_is_reduced_after_its_last_split() {
    let db = declared().await;
    let pool = db.pool();
    let id = task(pool, "(task_type, split_count) values ('sum', 3)").await;
    let claimed = all(pool, &format!("select * from divvy.claim('{WORKER}', '{{sum}}', 2)")).await;
    assert_eq!(claimed.len(), 2);
    assert_eq!(claimed[1]["split_payload"], json!({ "index": 1, "count": 3 }));

    // One round trip completes the last batch and claims the next.
    let ids = json!([claimed[0]["split_id"], claimed[1]["split_id"]])
        .to_string()
        .replace('[', "{")
        .replace(']', "}");
    let token = &claimed[0]["token"];
    let both = one(
        pool,
        &format!("select * from divvy.complete_and_claim('{WORKER}', '{ids}', array[{token}, {token}], '[10, 20]', '{{sum}}', 5)"),
    )
    .await;
    assert_eq!(both["completed"][1]["verdict"], json!("ok"));
    let last = &both["claimed"][0];
    assert_eq!(both["claimed"].as_array().unwrap().len(), 1);
    assert_eq!(
        one(pool, &format!("select status from divvy.task_overview where task_id = {id}")).await,
        json!({ "status": "running" })
    );

    one(pool, &format!("select divvy.complete({}, {}, '30')", last["split_id"], last["token"])).await;
    assert_eq!(
        one(pool, &format!("select status from divvy.task_overview where task_id = {id}")).await,
        json!({ "status": "reducing" })
    );
    let reduce = one(pool, &format!("select * from divvy.claim('{WORKER}', '{{sum}}', 5)")).await;
    assert_eq!((&reduce["phase"], &reduce["split_no"]), (&json!("reduce"), &json!(0)));
    let inputs = all(
        pool,
        &format!(
            "select split_no, status, result from divvy.reduce_inputs({}, {})",
            reduce["split_id"], reduce["token"]
        ),
    )
    .await;
    assert_eq!(inputs.iter().map(|i| i["result"].as_i64().unwrap()).collect::<Vec<_>>(), [10, 20, 30]);
    one(pool, &format!("select divvy.complete({}, {}, '60')", reduce["split_id"], reduce["token"])).await;
    let result = one(pool, &format!("select status, result from divvy.task_result({id})")).await;
    assert_eq!(result, json!({ "status": "succeeded", "result": 60 }));
    assert!(
        all(pool, &format!("select * from divvy.claim('{WORKER}', '{{sum,hello}}', 5)")).await.is_empty()
    );
}

#[tokio::test]
async fn a_failed_split_is_redriven_and_a_cancelled_task_stays_cancelled() {
    let db = declared().await;
    let pool = db.pool();
    let id = task(pool, "(task_type, split_count, max_failed) values ('sum', 2, 1)").await;
    let claimed = all(pool, &format!("select * from divvy.claim('{WORKER}', '{{sum}}', 2)")).await;
    let (a, b, token) = (&claimed[0]["split_id"], &claimed[1]["split_id"], &claimed[0]["token"]);
    one(
        pool,
        &format!(
            r#"select * from divvy.fail({a}, {token}, '{{"class": "card", "message": "declined"}}', false)"#
        ),
    )
    .await;
    one(pool, &format!("select divvy.complete({b}, {token}, '2')")).await;
    let reduce = one(pool, &format!("select * from divvy.claim('{WORKER}', '{{sum}}')")).await;
    one(pool, &format!("select divvy.complete({}, {}, '2')", reduce["split_id"], reduce["token"])).await;
    assert_eq!(
        one(pool, &format!("select status from divvy.task_result({id})")).await,
        json!({ "status": "partial" })
    );

    assert_eq!(one(pool, &format!("select divvy.redrive({id})")).await, json!({ "redrive": 1 }));
    let again = one(pool, &format!("select * from divvy.claim('{WORKER}', '{{sum}}', 5)")).await;
    assert_eq!((&again["split_id"], &again["attempt"], &again["epoch"]), (a, &json!(2), &json!(2)));
    assert_eq!(
        one(pool, &format!("select divvy.cancel({id}, 'enough')")).await,
        json!({ "cancel": "running" })
    );
    let beats = all(
        pool,
        &format!(
            "select verdict from divvy.heartbeat('{WORKER}', array[{}], array[{}])",
            again["split_id"], again["token"]
        ),
    )
    .await;
    assert_eq!(beats[0], json!({ "verdict": "cancel" }));
    one(pool, &format!("select divvy.release({}, {})::text", again["split_id"], again["token"])).await;
    assert_eq!(
        one(pool, &format!("select status from divvy.task_result({id})")).await,
        json!({ "status": "cancelled" })
    );
}

#[tokio::test]
async fn a_planner_s_splits_appear_when_it_completes() {
    let db = declared().await;
    let pool = db.pool();
    one(pool, r#"select divvy.put_task_type('walk', '{"plan": true}')::text"#).await;
    let id = task(pool, "(task_type) values ('walk')").await;
    let plan = one(pool, &format!("select * from divvy.claim('{WORKER}', '{{walk}}')")).await;
    assert_eq!(plan["phase"], json!("plan"));
    let (split, token) = (&plan["split_id"], &plan["token"]);
    one(pool, &format!(r#"select divvy.add_splits({split}, {token}, '[{{"from": "a"}}, {{"from": "n"}}]')"#))
        .await;
    assert!(
        all(pool, &format!("select * from divvy.claim('{WORKER}', '{{walk}}', 5)")).await.is_empty(),
        "staged, not visible"
    );
    one(pool, &format!("select divvy.complete({split}, {token})")).await;
    let shares = all(
        pool,
        &format!("select split_no, split_payload, split_count from divvy.claim('{WORKER}', '{{walk}}', 5)"),
    )
    .await;
    assert_eq!(
        shares,
        [
            json!({ "split_no": 1, "split_payload": { "from": "a" }, "split_count": 2 }),
            json!({ "split_no": 2, "split_payload": { "from": "n" }, "split_count": 2 })
        ]
    );
    assert_eq!(
        one(pool, &format!("select status from divvy.task_result({id})")).await,
        json!({ "status": "running" })
    );
}
