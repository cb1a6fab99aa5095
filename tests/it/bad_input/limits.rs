//! Every limit of the contract, at the limit and one beyond it.

use crate::support::queue::{Claimed, Queue, WORKER};
use serde_json::Value;

const PAYLOAD: usize = 1 << 20;
const SPLIT_PAYLOAD: usize = 256 << 10;
const RESULT: usize = 1 << 20;
const CHECKPOINT: usize = 256 << 10;
const HEADERS: usize = 16 << 10;
const ERROR: usize = 64 << 10;

/// An SQL expression: a JSON object whose text has so many bytes.
fn object(bytes: usize) -> String {
    format!("jsonb_build_object('x', repeat('x', {}))", bytes - r#"{"x": ""}"#.len())
}

async fn claimed(q: &mut Queue) -> Claimed {
    q.enqueue("a").await;
    q.claim("a").await
}

#[tokio::test]
async fn a_task_at_every_limit_comes_in() {
    let mut q = Queue::with_types(&["a"]).await;
    q.run(format!(
        "insert into divvy.task (task_type, payload, headers, labels, group_key, dedupe_key, splits)
         values ('a', {}, {}, array(select 'label ' || i from generate_series(1, 20) i), repeat('ä', 200), repeat('k', 1000),
            jsonb_build_array({}, 2))",
        object(PAYLOAD),
        object(HEADERS),
        object(SPLIT_PAYLOAD)
    ))
    .await;
    let sizes: (i32, i32) =
        q.rows("select octet_length(payload::text), octet_length(headers::text) from divvy.task").await[0];
    assert_eq!(sizes, (1 << 20, 16 << 10));
    assert_eq!(q.claim_up_to("a", 10).await.len(), 2);
}

#[tokio::test]
async fn a_task_beyond_a_limit_is_refused_with_the_limit_named() {
    let mut q = Queue::with_types(&["a"]).await;
    for (column, value, names) in [
        ("payload", object(PAYLOAD + 1), ["payload is 1048577", "limit is 1048576"]),
        ("headers", object(HEADERS + 1), ["headers is 16385", "limit is 16384"]),
        (
            "labels",
            "array(select i::text from generate_series(1, 21) i)".into(),
            ["labels is 21", "limit is 20"],
        ),
        ("group_key", "repeat('g', 201)".into(), ["group_key is 201", "limit is 200"]),
        ("dedupe_key", "repeat('k', 1001)".into(), ["dedupe_key is 1001", "limit is 1000"]),
        (
            "splits",
            format!("jsonb_build_array(1, {})", object(SPLIT_PAYLOAD + 1)),
            ["split 2: split payload is 262145", "limit is 262144"],
        ),
    ] {
        super::refused_column(&mut q, column, &value, "DV003", &names).await;
    }
    q.refused(format!("select divvy.enqueue('a', {})", object(PAYLOAD + 1)))
        .await
        .says("DV003", &["payload is 1048577"]);
    q.refused(format!(
        "select divvy.enqueue_many(jsonb_build_array(jsonb_build_object('task_type', 'a'),
            jsonb_build_object('task_type', 'a', 'payload', {})))",
        object(PAYLOAD + 1)
    ))
    .await
    .says("DV003", &["2", "payload is 1048577"]);
}

#[tokio::test]
async fn a_value_that_comes_compressed_from_a_table_is_measured_by_its_text() {
    let mut q = Queue::with_types(&["a"]).await;
    for (column, limit) in [("payload", PAYLOAD), ("headers", HEADERS)] {
        q.run(format!(
            "drop table if exists source; create table source as select {} as value",
            object(limit + 1)
        ))
        .await;
        assert!(
            q.one::<i32>("select pg_column_size(value) from source").await < 20_000,
            "it is stored compressed"
        );
        q.refused(format!("insert into divvy.task (task_type, {column}) select 'a', value from source"))
            .await
            .says("DV003", &["task row 1", column]);
    }
}

#[tokio::test]
async fn the_one_bad_row_among_good_ones_is_named_whatever_it_is_that_is_bad() {
    let mut q = Queue::with_types(&["a"]).await;
    // Characters count, not bytes.
    let good = "null::text[], repeat('ä', 200), null::jsonb, 1, now(), null::timestamptz";
    for (bad, code, named) in [
        ("null, repeat('x', 201), null, 1, null, null", "DV003", "group_key is 201"),
        ("array_fill('l'::text, '{21}'), null, null, 1, null, null", "DV003", "labels is 21"),
        ("null, null, '[]', 1, null, null", "DV010", "headers is a JSON object"),
        ("null, null, null, 1001, null, null", "DV010", "max_attempts is 1001"),
        ("null, null, null, 1, '-infinity', null", "DV010", "run_at"),
        ("null, null, null, 1, null, '1969-01-01'", "DV010", "deadline_at"),
    ] {
        q.refused(format!(
            "insert into divvy.task (task_type, labels, group_key, headers, max_attempts, run_at, deadline_at)
            select 'a', {good} union all select 'a', {good} union all select 'a', {bad} union all select 'a', {good}"
        ))
        .await
        .says(code, &["task row 3", named]);
    }
    q.run(format!(
        "insert into divvy.task (task_type, labels, group_key, headers, max_attempts, run_at, deadline_at) select 'a', {good}"
    ))
    .await;
    assert_eq!(q.claim_up_to("a", 10).await.len(), 1);
}

#[tokio::test]
async fn a_result_and_a_checkpoint_may_fill_their_limit_and_no_more() {
    let mut q = Queue::with_types(&["a"]).await;
    let split = claimed(&mut q).await;
    let (id, token) = (split.split_id, split.token);
    let named = format!("split {id}");
    for call in [format!("checkpoint({id}, {token}, "), format!("snooze({id}, {token}, '0', ")] {
        q.refused(format!("select divvy.{call}{})", object(CHECKPOINT + 1)))
            .await
            .says("DV003", &[&named, "checkpoint is 262145", "limit is 262144"]);
    }
    q.run(format!("select divvy.checkpoint({id}, {token}, {}, 0.5)", object(CHECKPOINT))).await;
    q.refused(format!("select divvy.checkpoint({id}, {token}, '{{}}', 1.5)"))
        .await
        .says("DV010", &[&named, "progress is 1.5"]);
    let too_much = object(RESULT + 1);
    for call in [
        format!("complete({id}, {token}, {too_much})"),
        format!("complete_many('{{{id}}}', '{{{token}}}', jsonb_build_array({too_much}))"),
        format!(
            "complete_and_claim('{WORKER}', '{{{id}}}', '{{{token}}}', jsonb_build_array({too_much}), '{{a}}', 1)"
        ),
    ] {
        q.refused(format!("select divvy.{call}"))
            .await
            .says("DV003", &[&named, "result is 1048577", "limit is 1048576"]);
    }
    q.run(format!("select divvy.complete({id}, {token}, {})", object(RESULT))).await;
    let size: i32 = q.one(format!("select octet_length(result::text) from divvy.task_result({id})")).await;
    assert_eq!(size, 1 << 20);
}

#[tokio::test]
async fn an_error_over_its_limit_is_cut_and_the_split_still_fails() {
    let mut q = Queue::with_types(&["a"]).await;
    for error in [
        format!("jsonb_build_object('class', 'Big', 'message', 'first line' || {})", "repeat('m', 70000)"),
        "jsonb_build_object('class', 'Big' || repeat('c', 70000), 'message', 'first line')".into(),
        "to_jsonb('first line' || repeat('m', 70000))".into(),
    ] {
        let split = claimed(&mut q).await;
        q.run(format!("select divvy.fail({}, {}, {error}, retry => false)", split.split_id, split.token))
            .await;
        let kept: Value = q.one(format!("select error from divvy.task_result({})", split.task_id)).await;
        assert!(kept.to_string().len() < ERROR, "{error}");
        assert_eq!(kept["truncated"], true);
        assert!(kept["message"].as_str().unwrap().starts_with("first line"), "{kept}");
    }
    let split = claimed(&mut q).await;
    q.run(format!(
        "select divvy.fail({}, {}, {}, retry => false)",
        split.split_id,
        split.token,
        object(ERROR)
    ))
    .await;
    let kept: Value = q.one(format!("select error from divvy.task_result({})", split.task_id)).await;
    assert!(kept.get("truncated").is_none(), "at the limit nothing is cut");
}

#[tokio::test]
async fn add_splits_takes_ten_thousand_a_call_and_each_within_its_limit() {
    let mut q = Queue::new().await;
    q.put("a", serde_json::json!({"plan": true})).await;
    let plan = claimed(&mut q).await;
    let (id, token) = (plan.split_id, plan.token);
    let named = format!("split {id}");
    let many = |n: u32| format!("(select jsonb_agg(i) from generate_series(1, {n}) i)");
    q.refused(format!("select divvy.add_splits({id}, {token}, {})", many(10_001)))
        .await
        .says("DV003", &[&named, "added splits is 10001", "limit is 10000"]);
    q.refused(format!(
        "select divvy.add_splits({id}, {token}, jsonb_build_array(1, {}))",
        object(SPLIT_PAYLOAD + 1)
    ))
    .await
    .says("DV003", &[&named, "split 2", "split payload is 262145"]);
    q.refused(format!("select divvy.add_splits({id}, {token}, '{{}}')"))
        .await
        .says("DV010", &[&named, "JSON array"]);
    assert_eq!(
        q.one::<i32>(format!("select divvy.add_splits({id}, {token}, {})", many(10_000))).await,
        10_000
    );
    let last =
        format!("select divvy.add_splits({id}, {token}, jsonb_build_array({}))", object(SPLIT_PAYLOAD));
    assert_eq!(q.one::<i32>(last).await, 10_001);
    q.complete(&plan).await;
    let count: (i64, i32, i32) = q
        .rows(format!("select count(*), min(split_no), max(split_no) from divvy.split where task_id = {id} and phase = 'execute'"))
        .await[0];
    assert_eq!(count, (10_001, 1, 10_001));
}

#[tokio::test]
async fn one_claim_answers_with_at_most_eight_mebibytes_and_the_next_with_the_rest() {
    let mut q = Queue::with_types(&["a"]).await;
    q.run(format!(
        "insert into divvy.task (task_type, payload) select 'a', {} from generate_series(1, 10)",
        object(PAYLOAD)
    ))
    .await;
    assert_eq!(q.claim_up_to("a", 10).await.len(), 8);
    assert_eq!(q.claim_up_to("a", 10).await.len(), 2);
}

#[tokio::test]
async fn calls_of_more_than_ten_thousand_ids_are_refused() {
    let mut q = Queue::with_types(&["a"]).await;
    let ids = "array(select i from generate_series(1, 10001) i)::bigint[]";
    for call in [
        format!("heartbeat('{WORKER}', {ids}, {ids})"),
        format!("complete_many({ids}, {ids})"),
        format!("claim('{WORKER}', '{{a}}', 10001)"),
    ] {
        q.refused(format!("select divvy.{call}")).await.says("DV003", &["batch is 10001", "limit is 10000"]);
    }
}

#[tokio::test]
async fn the_log_of_an_attempt_is_capped_and_says_so() {
    let mut q = Queue::with_types(&["a"]).await;
    let split = claimed(&mut q).await;
    let (id, token) = (split.split_id, split.token);
    q.refused(format!("select divvy.log({id}, {token}, 'info', repeat('m', 8193))"))
        .await
        .says("DV003", &[&format!("split {id}"), "log message is 8193", "limit is 8192"]);
    q.refused(format!("select divvy.log({id}, {token}, 'shout', 'm')"))
        .await
        .says("DV010", &["level is 'shout'"]);
    q.run(format!("select divvy.log({id}, {token}, 'info', 'line ' || i) from generate_series(1, 1005) i"))
        .await;
    let lines: Vec<(i32, String)> =
        q.rows("select line, message from divvy.split_log order by line desc limit 2").await;
    assert_eq!(lines, [(1000, "the log of this attempt is full".into()), (999, "line 999".into())]);
}
