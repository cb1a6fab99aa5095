//! Bad input gets a clear error, which names the thing, its id and the value, and loses nothing.

mod limits;
mod options;
mod schedules;
mod settings;
mod splits;

use crate::support::queue::Queue;

/// A task with this column must be refused; nothing comes in, by INSERT or by function.
async fn refused_column(q: &mut Queue, column: &str, value: &str, code: &str, names: &[&str]) {
    let insert = format!("insert into divvy.task (task_type, {column}) values ('a', 1::text::int)");
    let insert = insert.replace("1::text::int", value);
    let before: i64 = q.one("select count(*) from divvy.unit").await;
    q.refused(insert).await.says(code, &[&["task row 1"], names].concat());
    let enqueue = format!(
        "select divvy.enqueue('a', options => jsonb_strip_nulls(to_jsonb(o))) from (select {value} as \"{column}\") o"
    );
    if !column.contains(',') && column != "payload" && column != "\"then\"" {
        q.refused(enqueue).await.says(code, names);
    }
    assert_eq!(q.one::<i64>("select count(*) from divvy.unit").await, before);
}

#[tokio::test]
async fn moments_that_no_calendar_reaches_are_refused() {
    let mut q = Queue::with_types(&["a"]).await;
    for column in ["run_at", "deadline_at"] {
        for moment in [
            "infinity",
            "-infinity",
            "294276-12-31 23:59:59+00",
            "10000-01-01 00:00+00",
            "1969-12-31 23:59+00",
        ] {
            let value = format!("'{moment}'::timestamptz");
            refused_column(&mut q, column, &value, "DV010", &[column, "1970", "9999"]).await;
        }
    }
    q.refused("select divvy.enqueue('a', options => '{\"run_at\": \"tomorrow-ish\"}')")
        .await
        .says("DV010", &["type a", "tomorrow-ish"]);
    for call in ["pause('a', 'infinity')", "pause_schedule('a', 'infinity')"] {
        q.refused(format!("select divvy.{call}")).await.says("DV010", &["a: until is infinity"]);
    }
    let task = q.enqueue("a").await;
    for call in ["reschedule", "pause_task"] {
        q.refused(format!("select divvy.{call}({task}, 'infinity')"))
            .await
            .says("DV010", &[&format!("task {task}")]);
    }
}

#[tokio::test]
async fn negative_and_empty_intervals_are_refused() {
    let mut q = Queue::with_types(&["a"]).await;
    for (value, shown) in [("'-1 s'", "-00:00:01"), ("'0'", "00:00:00"), ("'11 years'", "11 years")] {
        refused_column(&mut q, "timeout", &format!("{value}::interval"), "DV010", &["timeout", shown]).await;
    }
    q.enqueue("a").await;
    let split = q.claim("a").await;
    let (id, token) = (split.split_id, split.token);
    let named = format!("split {id}");
    q.refused(format!("select divvy.snooze({id}, {token}, '-1 s')"))
        .await
        .says("DV010", &[&named, "delay", "-00:00:01"]);
    q.refused(format!("select divvy.fail({id}, {token}, null, retry_in => '-1 s')"))
        .await
        .says("DV010", &[&named, "retry_in", "-00:00:01"]);
    for lease in ["-1 s", "0", "999 ms", "2 days"] {
        q.refused(format!("select divvy.claim('{}', '{{a}}', 1, '{lease}')", crate::support::queue::WORKER))
            .await
            .says("DV010", &["lease", "1 s to 1 day"]);
    }
    q.complete(&split).await;
}

#[tokio::test]
async fn numbers_out_of_their_range_are_refused() {
    let mut q = Queue::with_types(&["a"]).await;
    for (column, value, names) in [
        ("priority", "0", ["priority is 0", "1 (first) to 4"]),
        ("priority", "5", ["priority is 5", "1 (first) to 4"]),
        ("max_attempts", "0", ["max_attempts is 0", "1 to 1000"]),
        ("max_attempts", "1001", ["max_attempts is 1001", "1 to 1000"]),
        ("max_failed", "-1", ["max_failed is -1", "not be negative"]),
        ("max_failed_percent", "-0.1", ["max_failed_percent is -0.1", "0 to 100"]),
        ("max_failed_percent", "100.1", ["max_failed_percent is 100.1", "0 to 100"]),
        ("max_failed_percent", "'NaN'::numeric", ["max_failed_percent is NaN", "0 to 100"]),
        ("reduce_on", "'never'", ["reduce_on is 'never'", "success, tolerated or always"]),
        ("split_count", "-1", ["split_count is -1", "negative"]),
    ] {
        refused_column(&mut q, column, value, "DV010", &names).await;
    }
    q.run(
        "insert into divvy.task (task_type, priority, max_attempts, max_failed, max_failed_percent)
        values ('a', 1, 1, 0, 0), ('a', 4, 1000, 2147483647, 100)",
    )
    .await;
}

#[tokio::test]
async fn shares_that_cannot_be_made_are_refused() {
    let mut q = Queue::with_types(&["a"]).await;
    for (columns, values, code, names) in [
        ("splits, split_count", "'[]', 1", "DV010", vec!["one of splits, split_count and split_range"]),
        ("split_count, split_range, split_size", "1, '[0,1)', 1", "DV010", vec!["one of"]),
        ("splits, split_range, split_size", "'[]', '[0,1)', 1", "DV010", vec!["one of"]),
        ("split_range", "'[0,1)'::int8range", "DV010", vec!["split_range and split_size go together"]),
        ("split_size", "1", "DV010", vec!["split_range and split_size go together"]),
        ("split_range, split_size", "'[0,)', 10", "DV010", vec!["split_range [0,) has no end"]),
        ("split_range, split_size", "'(,)', 10", "DV010", vec!["split_range (,) has no end"]),
        ("split_range, split_size", "'(,0)', 10", "DV010", vec!["split_range (,0) has no end"]),
        ("split_range, split_size", "'[0,9)', 0", "DV010", vec!["split_size is 0"]),
        ("split_range, split_size", "'[0,9)', -3", "DV010", vec!["split_size is -3"]),
        ("splits", "'{\"a\": 1}'::jsonb", "DV010", vec!["splits is a JSON array, not object"]),
        ("split_count", "1000001", "DV003", vec!["splits is 1000001", "1000000"]),
        ("split_range, split_size", "'[0,1000001)', 1", "DV003", vec!["splits is 1000001", "1000000"]),
        (
            "split_range, split_size",
            "'[-9223372036854775808,9223372036854775807)', 1",
            "DV003",
            vec!["splits is", "1000000"],
        ),
    ] {
        refused_column(&mut q, columns, values, code, &names).await;
    }
    // A closed range to the end of bigint has no half-open form: Postgres itself says so.
    q.refused("insert into divvy.task (task_type, split_range, split_size) values ('a', '[1,9223372036854775807]', 9)")
        .await
        .says("22003", &["bigint out of range"]);
}

#[tokio::test]
async fn a_million_and_one_given_payloads_are_refused() {
    let mut q = Queue::with_types(&["a"]).await;
    q.refused(
        "insert into divvy.task (task_type, splits)
         select 'a', ('[' || repeat('0,', 1000000) || '0]')::jsonb",
    )
    .await
    .says("DV003", &["task row 1", "splits is 1000001", "1000000"]);
    assert_eq!(q.one::<i64>("select count(*) from divvy.unit").await, 0);
}

#[tokio::test]
async fn names_outside_their_alphabet_are_refused() {
    let mut q = Queue::new().await;
    let long = "a".repeat(101);
    for name in ["", "A", "a b", "o''brien", "a\"b", "ä", "a;drop table x", "a/b", long.as_str()] {
        let shown = name.replace("''", "'").chars().take(20).collect::<String>();
        let task = q.refused(format!("insert into divvy.task (task_type) values ('ok'), ('{name}')")).await;
        task.says("DV010", &["task row 2", "task_type", "1 to 100 of a-z"]);
        let declared = q.refused(format!("select divvy.put_task_type('{name}')")).await;
        declared.says("DV010", &["type", "1 to 100 of a-z"]);
        if !shown.contains('\'') {
            task.says("DV010", &[&shown]);
            declared.says("DV010", &[&shown]);
        }
        q.refused(format!("select divvy.enqueue('{name}')")).await.says("DV010", &["1 to 100 of a-z"]);
    }
    let longest = "a".repeat(100);
    q.put(&longest, serde_json::json!({})).await;
    q.put("a.b:c-d_9", serde_json::json!({})).await;
    let id = q.enqueue(&longest).await;
    assert_eq!(q.work(&longest).await.task_id, id);
}

#[tokio::test]
async fn nul_and_lone_surrogates_are_refused_by_the_type_of_the_value() {
    let mut q = Queue::with_types(&["a"]).await;
    for (json, code) in [(r"\u0000", "22P05"), (r"\ud800", "22P02"), (r"\udc00", "22P02")] {
        for call in [
            format!(r#"insert into divvy.task (task_type, payload) values ('a', '{{"x": "{json}"}}')"#),
            format!(r#"select divvy.enqueue('a', '{{"x": "{json}"}}')"#),
            format!(r#"select divvy.enqueue_many('[{{"task_type": "a", "payload": "{json}"}}]')"#),
        ] {
            q.refused(call).await.says(code, &[]);
        }
    }
    assert_eq!(q.one::<i64>("select count(*) from divvy.unit").await, 0);
    let id: i64 = q.one(r#"insert into divvy.task (task_type, payload) values ('a', '{"x": "\ud83d\ude00"}') returning id"#).await;
    assert_eq!(q.claim("a").await.payload["x"], "😀", "task {id}: a pair is a character");
}

#[tokio::test]
async fn a_payload_that_is_null_or_a_header_that_is_no_object_is_refused() {
    let mut q = Queue::with_types(&["a"]).await;
    q.refused("insert into divvy.task (task_type, payload) values ('a', null)")
        .await
        .says("23502", &["payload"]);
    q.refused("insert into divvy.task (task_type, priority) values ('a', null)")
        .await
        .says("23502", &["priority"]);
    refused_column(&mut q, "headers", "'[1]'::jsonb", "DV010", &["headers is a JSON object, not array"])
        .await;
}
