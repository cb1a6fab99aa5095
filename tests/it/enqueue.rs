//! Tasks come in: by INSERT, COPY and function, in the producer's own transaction.

mod functions;
mod shares;
mod waking;

use crate::support::clock::Clock;
use crate::support::queue::Queue;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn a_raw_insert_takes_every_column_of_the_contract() {
    let mut q = Queue::with_types(&["a"]).await;
    let id: i64 = q
        .one(
            r#"insert into divvy.task (task_type, payload, run_at, priority, dedupe_key, group_key, labels, headers,
                    deadline_at, splits, max_attempts, timeout, max_failed, max_failed_percent, reduce_on, "then")
                values ('a', '{"x": 1}', now() - interval '1 hour', 1, 'k', 'g', '{l1,l2}', '{"trace": "t"}',
                    now() + interval '1 day', '[{"n": 1}, {"n": 2}]', 3, '1 min', 1, 50, 'always',
                    '{"succeeded": {"task_type": "b"}}')
                returning id"#,
        )
        .await;
    let split = q.claim("a").await;
    assert_eq!((split.task_id, split.phase.as_str(), split.epoch), (id, "execute", 1));
    assert_eq!((split.split_no, split.split_count, split.attempt, split.max_attempts), (1, 2, 1, 3));
    assert_eq!(split.payload, json!({"x": 1}));
    assert_eq!(split.split_payload, Some(json!({"n": 1})));
    assert_eq!(split.headers, Some(json!({"trace": "t"})));
    let kept: Value = q
        .one(format!(
            r#"select to_jsonb(k) from (select priority, dedupe_key, group_key, labels, max_attempts, timeout, max_failed,
                max_failed_percent, reduce_on, "then" from divvy.task where id = {id}) k"#
        ))
        .await;
    assert_eq!(
        kept,
        json!({"priority": 1, "dedupe_key": "k", "group_key": "g", "labels": ["l1", "l2"], "max_attempts": 3,
            "timeout": "00:01:00", "max_failed": 1, "max_failed_percent": 50, "reduce_on": "always",
            "then": {"succeeded": {"task_type": "b"}}})
    );
}

#[tokio::test]
async fn a_claim_says_when_the_task_was_scheduled_for_and_until_when_its_lease_lasts() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run("insert into divvy.schedule (name, task_type, run_at) values ('s', 'a', divvy.clock() + interval '1 min')")
        .await;
    let due = clock.now().await + Duration::from_secs(60);
    clock.advance(Duration::from_secs(90)).await;
    q.tick().await;
    let (scheduled_for, lease_until): (chrono::DateTime<chrono::Utc>, chrono::DateTime<chrono::Utc>) = q
        .rows(format!(
            "select scheduled_for, lease_until from divvy.claim('{}', '{{a}}', 1, '7 s')",
            crate::support::queue::WORKER
        ))
        .await
        .pop()
        .expect("the schedule's task");
    assert_eq!(scheduled_for, due);
    assert_eq!(lease_until, clock.now().await + Duration::from_secs(7));
}

#[tokio::test]
async fn many_rows_an_insert_from_select_and_copy_are_claimed_alike() {
    let mut q = Queue::with_types(&["a"]).await;
    let ids: Vec<i64> =
        q.all("insert into divvy.task (task_type) values ('a'), ('a'), ('a') returning id").await;
    assert_eq!(ids.len(), 3);
    q.run("insert into divvy.task (task_type, payload) select 'a', jsonb_build_object('i', i) from generate_series(4, 6) i")
        .await;
    let mut copy =
        q.session.copy_in_raw("copy divvy.task (task_type, payload, split_count) from stdin").await.unwrap();
    copy.send(&b"a\t{\"i\": 7}\t\\N\na\t{\"i\": 8}\t2\n"[..]).await.unwrap();
    copy.finish().await.unwrap();
    let claimed = q.claim_up_to("a", 100).await;
    let numbers: Vec<_> = claimed.iter().map(|c| (c.payload["i"].as_i64(), c.split_no)).collect();
    assert_eq!(
        numbers,
        [
            (None, 1),
            (None, 1),
            (None, 1),
            (Some(4), 1),
            (Some(5), 1),
            (Some(6), 1),
            (Some(7), 1),
            (Some(8), 1),
            (Some(8), 2)
        ]
    );
    assert_eq!(claimed[..3].iter().map(|c| c.task_id).collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn one_bad_row_of_a_copy_keeps_all_others_out() {
    let mut q = Queue::with_types(&["a"]).await;
    let mut copy = q.session.copy_in_raw("copy divvy.task (task_type, priority) from stdin").await.unwrap();
    copy.send(&b"a\t1\na\t7\n"[..]).await.unwrap();
    let refusal = crate::support::queue::Refusal::of(copy.finish().await.unwrap_err());
    refusal.says("DV010", &["task row 2", "priority is 7", "1 (first) to 4"]);
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 0);
}

#[tokio::test]
async fn a_rollback_leaves_nothing() {
    let mut q = Queue::with_types(&["a"]).await;
    let mut other = q.db.connect().await;
    q.run(
        "begin; insert into divvy.task (task_type, split_count) values ('a', 3); select divvy.enqueue('a')",
    )
    .await;
    let seen: i64 =
        sqlx::query_scalar("select count(*) from divvy.unit").fetch_one(&mut other).await.unwrap();
    assert_eq!(seen, 0, "what is not committed is nobody's");
    q.run("rollback").await;
    assert_eq!(q.one::<i64>("select count(*) from divvy.unit").await, 0);
    assert!(q.claim_up_to("a", 10).await.is_empty());
}

#[tokio::test]
async fn a_task_of_an_undeclared_type_waits_and_starts_when_the_type_is_declared() {
    let mut q = Queue::new().await;
    let id = q.enqueue_splits("later", 2).await;
    assert_eq!(q.status(id).await, "scheduled");
    assert_eq!(
        q.one::<String>(format!("select reason from divvy.task_overview where task_id = {id}")).await,
        "undeclared type"
    );
    assert!(
        !q.one::<bool>("select declared from divvy.type_stats where task_type = 'later'").await,
        "shown as unroutable"
    );
    q.tick().await;
    assert!(q.claim_up_to("later", 10).await.is_empty());
    q.put("later", json!({})).await;
    assert_eq!(q.status(id).await, "running");
    assert_eq!(q.claim_up_to("later", 10).await.len(), 2);
}

#[tokio::test]
async fn a_tick_starts_what_an_open_transaction_hid_from_the_declaration() {
    let mut q = Queue::new().await;
    q.run("begin").await;
    let id = q.enqueue("later").await;
    sqlx::query("select divvy.put_task_type('later')").execute(q.db.pool()).await.unwrap();
    q.run("commit").await;
    assert_eq!(
        q.status(id).await,
        "scheduled",
        "the declaration did not see the task, the task not the declaration"
    );
    q.tick().await;
    assert_eq!(q.work("later").await.task_id, id);
}

#[tokio::test]
async fn a_worker_declares_unknown_types_and_never_alters_a_declared_one() {
    let mut q = Queue::new().await;
    q.put("known", json!({"max_attempts": 3})).await;
    q.run(
        r#"select divvy.register_worker('00000000-0000-0000-0000-000000000002', 'w', '{known,new}', 1,
            '{"types": {"known": {"max_attempts": 9}, "new": {"reduce": true}}}')"#,
    )
    .await;
    let types: Vec<(String, i32, bool, String)> =
        q.rows("select name, max_attempts, reduce, declared_by from divvy.task_type order by name").await;
    assert_eq!(
        types,
        [("known".into(), 3, false, "put_task_type".into()), ("new".into(), 20, true, "worker".into()),]
    );
}

#[tokio::test]
async fn a_task_with_a_future_run_at_starts_at_that_moment() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    let id: i64 = q
        .one("insert into divvy.task (task_type, run_at) values ('a', divvy.clock() + interval '10 s') returning id")
        .await;
    clock.advance(Duration::from_millis(9_999)).await;
    q.tick().await;
    assert_eq!(q.status(id).await, "scheduled");
    assert!(q.claim_up_to("a", 1).await.is_empty());
    clock.advance(Duration::from_millis(1)).await;
    q.tick().await;
    assert_eq!(q.work("a").await.task_id, id);
    assert_eq!(q.status(id).await, "succeeded");
}

#[tokio::test]
async fn the_idempotency_key_lasts_over_retries_and_is_new_after_a_snooze_and_a_redrive() {
    let mut q = Queue::with_types(&["a"]).await;
    let id = q.enqueue("a").await;
    let first = q.claim("a").await;
    assert_eq!(first.idempotency_key, format!("{id}.1.1.0"));
    q.fail(&first, ", retry_in => '0'").await;
    let retried = q.claim("a").await;
    assert_eq!(retried.attempt, 2);
    assert_eq!(retried.idempotency_key, first.idempotency_key);
    q.run(format!("select divvy.snooze({}, {}, '0')", retried.split_id, retried.token)).await;
    let snoozed = q.claim("a").await;
    assert_eq!(snoozed.attempt, 2, "a snooze uses no attempt");
    assert_eq!(snoozed.idempotency_key, format!("{id}.1.1.1"));
    q.stop(&snoozed).await;
    q.run(format!("select divvy.redrive({id})")).await;
    let redriven = q.claim("a").await;
    assert_eq!(redriven.idempotency_key, format!("{id}.1.2.1"));
}
