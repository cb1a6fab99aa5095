//! The same done to many tasks.

use crate::support::program::{divvy_on, ok, said};
use crate::support::queue::{Queue, quoted};
use serde_json::{Value, json};

/// What a call says: matched, done, refused, and where the next goes on.
type Told = (Option<i64>, i64, i64, Option<i64>);

async fn bulk(q: &mut Queue, action: &str, dry_run: bool, filter: Value, options: Value) -> Told {
    let call = format!("divvy.bulk({}, '{action}', {dry_run}, {})", quoted(filter), quoted(options));
    q.rows(format!("select matched, done, refused, last_id from {call}")).await.remove(0)
}

#[tokio::test]
async fn a_filter_that_says_nothing_or_something_unknown_is_refused() {
    let mut q = Queue::with_types(&["a"]).await;
    for (filter, action, options, names) in [
        ("{}", "cancel", "{}", ["empty", "{\"all\": true}"]),
        (r#"{"after": 0, "status": null}"#, "cancel", "{}", ["empty", "every task"]),
        (r#"{"kind": "a"}"#, "cancel", "{}", ["'kind'", "task_type"]),
        (r#"{"all": true, "task_type": "a"}"#, "cancel", "{}", ["all is true", "no other"]),
        (r#"{"status": ["done"]}"#, "cancel", "{}", ["'done'", "succeeded"]),
        (r#"{"created_after": "soon"}"#, "cancel", "{}", ["bulk cancel", "soon"]),
        (r#"{"ids": ["seven"]}"#, "cancel", "{}", ["bulk cancel", "seven"]),
        (r#"{"all": true}"#, "explode", "{}", ["'explode'", "redrive"]),
        (r#"{"all": true}"#, "cancel", r#"{"until": "2030-01-01"}"#, ["'until'", "reason"]),
        (r#"{"all": true}"#, "reschedule", r#"{"priority": 9}"#, ["priority is 9", "1 (first) to 4"]),
        (r#"{"all": true}"#, "redrive", r#"{"max_attempts": 0}"#, ["max_attempts is 0", "1 to 1000"]),
        ("[]", "cancel", "{}", ["JSON object", "array"]),
    ] {
        let call = format!("select divvy.bulk('{filter}', '{action}', true, '{options}')");
        q.refused(call).await.says("DV010", &names);
    }
    let many = format!("select divvy.bulk('{{\"ids\": [{}1]}}', 'cancel')", "1,".repeat(10_000));
    q.refused(many).await.says("DV003", &["ids", "10001", "10000"]);
    assert_eq!(q.one::<i64>("select count(*) from divvy.event where verb = 'bulk'").await, 0);
}

#[tokio::test]
async fn a_dry_run_counts_and_each_condition_restricts() {
    let mut q = Queue::with_types(&["a", "b"]).await;
    q.run(
        "insert into divvy.task (task_type, group_key, labels, dedupe_key, run_at) values
            ('a', 'g', '{x,y}', 'order-1', null), ('a', 'h', '{x}', 'order-2', null), ('b', null, null, 'mail-1', null),
            ('b', null, null, null, now() + interval '1 day')",
    )
    .await;
    let first: i64 = q.one("select min(id) from divvy.task").await;
    for (filter, matched) in [
        (json!({ "all": true }), 4),
        (json!({ "task_type": "a" }), 2),
        (json!({ "task_type": ["a", "b"], "status": "running" }), 3),
        (json!({ "status": ["scheduled", "failed"] }), 1),
        (json!({ "group_key": "g" }), 1),
        (json!({ "labels": "x" }), 2),
        (json!({ "labels": ["x", "y"] }), 1),
        (json!({ "dedupe_key": "order-2" }), 1),
        (json!({ "dedupe_prefix": "order-" }), 2),
        (json!({ "dedupe_prefix": "order_" }), 0),
        (json!({ "ids": [first, 987_654] }), 1),
        (json!({ "ids": [first.to_string()], "task_type": "b" }), 0),
        (json!({ "created_before": "2020-01-01T00:00:00Z" }), 0),
        (json!({ "created_after": "2020-01-01T00:00:00Z" }), 4),
        (json!({ "finished_after": "2020-01-01T00:00:00Z" }), 0),
    ] {
        let told = bulk(&mut q, "cancel", true, filter.clone(), json!({})).await;
        assert_eq!(told, (Some(matched), 0, 0, None), "{filter}");
    }
    assert_eq!(q.one::<i64>("select count(*) from divvy.event where verb in ('bulk', 'cancel')").await, 0);
}

#[tokio::test]
async fn calls_go_on_after_one_another_and_each_writes_an_event_beside_those_of_the_tasks() {
    let mut q = Queue::with_types(&["a"]).await;
    q.run("insert into divvy.task (task_type) select 'a' from generate_series(1, 1500)").await;
    let large = q.enqueue_splits("a", 40).await;
    let filter = json!({ "task_type": "a" });
    let why = json!({ "reason": "a mistake" });
    let first = bulk(&mut q, "cancel", false, filter.clone(), why.clone()).await;
    assert_eq!((first.0, first.1, first.2), (Some(1501), 1000, 0));
    let next = json!({ "task_type": "a", "after": first.3 });
    assert_eq!(bulk(&mut q, "cancel", false, next, why.clone()).await, (None, 501, 0, None));
    assert_eq!(
        bulk(&mut q, "cancel", false, filter, why).await,
        (Some(0), 0, 0, None),
        "until nothing is done"
    );
    assert_eq!(q.status(large).await, "cancelled");
    assert_eq!(q.one::<i64>("select count(*) from divvy.event where verb = 'cancel'").await, 1501);
    let events = q.events("tasks", "cancel").await;
    assert_eq!(events.len(), 3);
    assert_eq!((events[1].verb.as_str(), events[1].reason.as_deref()), ("bulk", Some("a mistake")));
    assert_eq!(events[1].after, Some(json!({ "matched": null, "done": 501, "refused": 0 })));
    assert_eq!(events[1].before.as_ref().unwrap()["after"], json!(first.3));
}

#[tokio::test]
async fn what_failed_so_is_redriven_in_every_way_of_storing_and_what_refuses_is_counted() {
    let mut q = Queue::new().await;
    q.put("a", json!({ "max_failed": 0 })).await;
    let plain = q.enqueue("a").await;
    let rows = q.enqueue_splits("a", 3).await;
    let large = q.enqueue_splits("a", 40).await;
    let keyed: i64 =
        q.one("insert into divvy.task (task_type, dedupe_key) values ('a', 'k') returning id").await;
    for task in [plain, rows, large, keyed] {
        let splits = q.claim_up_to("a", 60).await;
        let Some(split) = splits.iter().find(|split| split.task_id == task) else { continue };
        q.stop(split).await;
        for other in splits.iter().filter(|other| other.split_id != split.split_id) {
            q.run(format!("select divvy.release({}, {})", other.split_id, other.token)).await;
        }
    }
    q.tick().await;
    let failed: Vec<i64> = q.all("select id from divvy.task where status = 'failed' order by id").await;
    assert_eq!(failed, [plain, rows, large, keyed]);
    q.run("insert into divvy.task (task_type, dedupe_key) values ('a', 'k')").await;
    let filter = json!({ "error": "Broken" });
    let none = bulk(&mut q, "redrive", true, json!({ "error": "Flaky" }), json!({})).await;
    assert_eq!(none.0, Some(0));
    let told = bulk(&mut q, "redrive", false, filter, json!({ "fresh": true })).await;
    assert_eq!(told, (Some(4), 3, 1, None), "its key is another's now");
    for task in [plain, rows, large] {
        assert_eq!(q.status(task).await, "running");
    }
    assert_eq!(q.status(keyed).await, "failed");
}

#[tokio::test]
async fn a_task_that_somebody_holds_is_counted_and_not_waited_for() {
    let mut q = Queue::with_types(&["a"]).await;
    let held = q.enqueue("a").await;
    let free = q.enqueue("a").await;
    let mut other = q.db.connect().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("begin; select from divvy.task where id = {held} for update")))
        .execute(&mut other)
        .await
        .unwrap();
    let told = bulk(&mut q, "cancel", false, json!({ "all": true }), json!({})).await;
    assert_eq!(told, (Some(2), 1, 1, None));
    assert_eq!((q.status(held).await, q.status(free).await), ("running".into(), "cancelled".into()));
}

#[tokio::test]
async fn pauses_moments_and_payloads_of_many_are_changed_once_each() {
    let mut q = Queue::with_types(&["a"]).await;
    let large = q.enqueue_splits("a", 40).await;
    let later: i64 = q
        .one("insert into divvy.task (task_type, run_at) values ('a', now() + interval '1 day') returning id")
        .await;
    let all = json!({ "all": true });
    let ended: i64 = q
        .one("insert into divvy.task (task_type, payload) values ('a', '{\"secret\": 1}') returning id")
        .await;
    q.run(format!("select divvy.cancel({ended})")).await;
    for (action, options, done) in [
        ("pause", json!({ "until": "2090-01-01T00:00:00Z", "reason": "audit" }), 2),
        ("pause", json!({ "until": "2090-01-01T00:00:00Z" }), 0),
        ("pause", json!({}), 2),
        ("resume", json!({}), 2),
        ("resume", json!({}), 0),
        ("reschedule", json!({ "run_at": "2090-01-01T00:00:00Z", "priority": 1 }), 1),
        ("reschedule", json!({ "run_at": "2090-01-01T00:00:00Z", "priority": 1 }), 0),
        ("reschedule", json!({}), 1),
        ("reschedule", json!({}), 0),
        ("forget", json!({}), 1),
        ("forget", json!({}), 0),
    ] {
        let told = bulk(&mut q, action, false, all.clone(), options.clone()).await;
        assert_eq!(told, (Some(done), done, 0, None), "{action} {options}");
        if action == "pause" {
            let waits = q.one::<i64>("select count(*) from divvy.split where status = 'delayed'").await;
            assert_eq!(waits, 40);
        }
    }
    assert_eq!(q.splits(large).await, ["ready"; 40]);
    q.tick().await;
    assert_eq!(q.status(later).await, "running", "it was moved to now");
    let payload: Value = q.one(format!("select payload from divvy.task where id = {ended}")).await;
    assert_eq!(payload, json!({}));
}

#[tokio::test]
async fn the_command_line_counts_first_and_then_goes_on_to_the_end() {
    let mut q = Queue::with_types(&["a"]).await;
    q.run("insert into divvy.task (task_type) select 'a' from generate_series(1, 2100)").await;
    let url = q.db.url().to_owned();
    let bulk = |args: &[&str]| said(&mut divvy_on(&url, &[&["bulk"], args].concat()));
    let counted = bulk(&["cancel", "--type", "a", "--status", "running,scheduled"]);
    assert_eq!((counted.code, counted.out.as_str()), (Some(0), "2100\n"), "{}", counted.err);
    assert!(counted.err.contains("--apply does it"), "{}", counted.err);
    let done =
        ok(&mut divvy_on(&url, &["bulk", "cancel", "--type", "a", "--apply", "--reason", "x", "--json"]));
    let done: Value = serde_json::from_str(&done).unwrap();
    assert_eq!(done, json!({ "matched": 2100, "done": 2100, "refused": 0, "dry_run": false }));
    let nothing = bulk(&["cancel", "--apply"]);
    assert_eq!(nothing.code, Some(2), "{}", nothing.err);
    let wrong = bulk(&["pause", "--all", "--fresh"]);
    assert!(wrong.code == Some(1) && wrong.err.contains("'fresh'"), "{}", wrong.err);
}
