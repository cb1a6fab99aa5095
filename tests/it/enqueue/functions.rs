//! enqueue, enqueue_many and task_result.

use crate::support::queue::{Queue, quoted};
use serde_json::{Value, json};

#[tokio::test]
async fn enqueue_takes_the_columns_of_a_task_as_options() {
    let mut q = Queue::with_types(&["a"]).await;
    let options = json!({"priority": 1, "group_key": "g", "labels": ["l"], "headers": {"h": 1}, "split_range": "[0,4)",
        "split_size": 2, "max_attempts": 3, "timeout": "1 min", "max_failed": 1, "max_failed_percent": 12.5,
        "reduce_on": "success", "deadline_at": "2999-01-01T00:00:00Z", "dedupe_key": "k", "then": null});
    let (id, created): (i64, bool) = q
        .rows(format!(
            "select task_id, created from divvy.enqueue('a', '{{\"x\": 1}}', {})",
            quoted(&options)
        ))
        .await[0];
    assert!(created);
    let split = q.claim("a").await;
    assert_eq!((split.task_id, split.max_attempts, split.payload), (id, 3, json!({"x": 1})));
    assert_eq!(split.split_payload, Some(json!({"lo": 0, "hi": 2})));
    assert_eq!(split.headers, Some(json!({"h": 1})));
}

#[tokio::test]
async fn enqueue_alone_makes_a_task_with_an_empty_payload() {
    let mut q = Queue::with_types(&["a"]).await;
    let id: i64 = q.one("select task_id from divvy.enqueue('a')").await;
    let split = q.claim("a").await;
    assert_eq!((split.task_id, split.payload), (id, json!({})));
}

#[tokio::test]
async fn enqueue_many_answers_in_the_order_of_its_input() {
    let mut q = Queue::with_types(&["a", "b"]).await;
    q.run("select divvy.enqueue('a', options => '{\"dedupe_key\": \"k\"}')").await;
    let made: Vec<(i32, i64, bool)> = q
        .rows(
            r#"select ord, task_id, created from divvy.enqueue_many('[{"task_type": "a", "dedupe_key": "k"},
                {"task_type": "a", "payload": {"i": 2}}]') order by ord"#,
        )
        .await;
    let holder: i64 = q.one("select id from divvy.task where dedupe_key = 'k'").await;
    assert_eq!(made[0], (1, holder, false));
    assert_eq!((made[1].0, made[1].2), (2, true));
    let payload: Value = q.one(format!("select payload from divvy.task where id = {}", made[1].1)).await;
    assert_eq!(payload, json!({"i": 2}));
}

#[tokio::test]
async fn enqueue_many_of_a_thousand_keeps_each_ordinal_with_its_payload() {
    let mut q = Queue::with_types(&["a"]).await;
    let tasks: Vec<Value> = (1..=1000).map(|i| json!({"task_type": "a", "payload": {"i": i}})).collect();
    q.run(format!(
        "create temp table made as select ord, task_id from divvy.enqueue_many({})",
        quoted(json!(tasks))
    ))
    .await;
    let wrong: i64 = q
        .one(
            "select count(*) from made m left join divvy.task k on k.id = m.task_id
             where (k.payload ->> 'i')::int is distinct from m.ord",
        )
        .await;
    assert_eq!(wrong, 0);
    assert_eq!(q.one::<i64>("select count(*) from made").await, 1000);
    assert_eq!(q.one::<i64>("select count(*) from divvy.enqueue_many('[]')").await, 0);
}

#[tokio::test]
async fn enqueue_many_makes_all_or_none_and_names_the_bad_one() {
    let mut q = Queue::with_types(&["a"]).await;
    for (tasks, names) in [
        (json!([{"task_type": "a"}, {"task_type": "A b"}]), vec!["2", "A b"]),
        (json!([{"task_type": "a"}, {"task_type": "a", "priority": 9}]), vec!["task 2", "priority is 9"]),
        (json!([{"task_type": "a"}, {"task_type": "a", "colour": 9}]), vec!["task 2", "colour"]),
        (json!([{"task_type": "a"}, {"payload": {}}]), vec!["task 2", "task_type"]),
        (json!([{"task_type": "a"}, 7]), vec!["task 2", "number"]),
        (json!({"task_type": "a"}), vec!["enqueue_many", "array"]),
    ] {
        let refusal = q.refused(format!("select divvy.enqueue_many({})", quoted(&tasks))).await;
        refusal.says("DV010", &names);
    }
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 0);
}

#[tokio::test]
async fn task_result_tells_the_state_the_result_and_the_error() {
    let mut q = Queue::with_types(&["a"]).await;
    let id = q.enqueue("a").await;
    let ask = format!("select to_jsonb(r) - 'finished_at' from divvy.task_result({id}) r");
    assert_eq!(q.one::<Value>(&ask).await, json!({"status": "running", "result": null, "error": null}));
    let split = q.claim("a").await;
    q.fail(&split, ", retry_in => '0'").await;
    let split = q.claim("a").await;
    q.complete_with(&split, json!({"rows": 5})).await;
    assert_eq!(
        q.one::<Value>(&ask).await,
        json!({"status": "succeeded", "result": {"rows": 5}, "error": null}),
        "the error of an earlier attempt is no error of the task"
    );
    assert!(q.one::<bool>(format!("select finished_at is not null from divvy.task_result({id})")).await);
    q.refused("select divvy.task_result(999999)").await.says("DV011", &["task", "999999"]);
}
