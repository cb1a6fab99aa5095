//! Options that nobody knows, or whose values are not of their kind, by function.

use crate::support::queue::{Queue, WORKER, quoted};
use serde_json::json;

#[tokio::test]
async fn every_function_that_takes_options_refuses_an_unknown_key_and_names_it() {
    let mut q = Queue::with_types(&["a"]).await;
    let task = q.enqueue("a").await;
    let split = q.claim("a").await;
    q.stop(&split).await;
    let open = q.enqueue("a").await;
    let options = r#"'{"colour": 1}'"#;
    for (call, thing) in [
        (format!("enqueue('a', options => {options})"), "type a".to_owned()),
        (r#"enqueue_many('[{"task_type": "a", "colour": 1}]')"#.into(), "task 1".into()),
        (format!("put_task_type('b', {options})"), "type b".into()),
        (r#"put_task_type('b', '{"retention": {"colour": 1}}')"#.into(), "type b: retention".into()),
        (r#"put_task_type('b', '{"backoff": {"colour": 1}}')"#.into(), "type b: backoff".into()),
        (r#"put_task_type('b', '{"handler": {"colour": 1}}')"#.into(), "type b: handler".into()),
        (r#"put_task_type('b', '{"handler": {"sql": {"colour": 1}}}')"#.into(), "type b: handler.sql".into()),
        (r#"put_task_type('b', '{"then": {"colour": {}}}')"#.into(), "type b: then".into()),
        (
            r#"put_task_type('b', '{"then": {"failed": {"task_type": "a", "colour": 1}}}')"#.into(),
            "type b: then".into(),
        ),
        (format!("redrive({task}, {options})"), format!("task {task}")),
        (format!(r#"redrive({task}, '{{"where": {{"colour": 1}}}}')"#), format!("task {task}: where")),
        (format!("update_task({open}, {options})"), format!("task {open}")),
    ] {
        q.refused(format!("select divvy.{call}"))
            .await
            .says("DV010", &[&thing, "unknown option", "colour", "known are"]);
    }
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 2);
    assert_eq!(q.one::<i64>("select count(*) from divvy.task_type").await, 1);
    assert_eq!(q.status(task).await, "failed");
}

#[tokio::test]
async fn options_that_are_no_object_are_refused() {
    let mut q = Queue::with_types(&["a"]).await;
    let task = q.enqueue("a").await;
    for options in ["[]", "7", "\"x\"", "null"] {
        for call in [
            "enqueue('a', '{}', ",
            "put_task_type('b', ",
            &format!("redrive({task}, "),
            &format!("update_task({task}, "),
        ] {
            q.refused(format!("select divvy.{call}'{options}')")).await.says("DV010", &["JSON object"]);
        }
    }
    assert_eq!(q.one::<i64>("select count(*) from divvy.task_type").await, 1);
}

#[tokio::test]
async fn a_value_that_is_not_of_its_options_kind_is_refused() {
    let mut q = Queue::with_types(&["a"]).await;
    let task = q.enqueue("a").await;
    for options in [
        json!({"priority": "high"}),
        json!({"priority": 2.5}),
        json!({"priority": 99999}),
        json!({"labels": "l"}),
        json!({"timeout": "soon"}),
        json!({"max_attempts": "many"}),
        json!({"deadline_at": "someday"}),
    ] {
        let (option, value) =
            options.as_object().unwrap().iter().next().map(|(k, v)| (k.clone(), v.clone())).unwrap();
        for call in [
            format!("enqueue('a', '{{}}', {})", quoted(&options)),
            format!("update_task({task}, {})", quoted(&options)),
        ] {
            let refusal = q.refused(format!("select divvy.{call}")).await;
            refusal.says("DV010", &[]);
            let value = value.as_str().map_or_else(|| value.to_string(), Into::into);
            assert!(
                refusal.message.contains(&value) || option == "labels",
                "{:?} does not name {value}",
                refusal.message
            );
        }
    }
    let split = q.claim("a").await;
    q.stop(&split).await;
    for options in [
        json!({"fresh": "maybe"}),
        json!({"skipped": 7.5}),
        json!({"max_attempts": "x"}),
        json!({"max_attempts": 0}),
        json!({"where": 3}),
    ] {
        q.refused(format!("select divvy.redrive({task}, {})", quoted(&options)))
            .await
            .says("DV010", &[&format!("task {task}")]);
    }
    q.refused("select divvy.enqueue('a', options => '{\"on_duplicate\": \"ignore\"}')")
        .await
        .says("DV010", &["on_duplicate is 'ignore'", "return, raise or replace"]);
}

#[tokio::test]
async fn a_type_with_a_malformed_option_stays_as_it_was() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_attempts": 7})).await;
    for (options, names) in [
        (json!({"max_attempts": 1001}), vec!["max_attempts is 1001", "1 to 1000"]),
        (json!({"max_attempts": 0}), vec!["max_attempts is 0"]),
        (json!({"max_attempts": "x"}), vec!["x"]),
        (json!({"timeout": "-1 s"}), vec!["timeout"]),
        (json!({"timeout": "0"}), vec!["timeout"]),
        (json!({"lease": "10 ms"}), vec!["lease", "1 s to 1 day"]),
        (json!({"max_waiting": 0}), vec!["max_waiting is 0"]),
        (json!({"dedupe_window": "sometimes"}), vec!["dedupe_window is 'sometimes'"]),
        (json!({"dedupe_window": "-1 hour"}), vec!["dedupe_window"]),
        (json!({"retention": {"succeeded": "-1 day"}}), vec!["retention.succeeded"]),
        (json!({"retention": "1 day"}), vec!["retention"]),
        (json!({"backoff": "fast"}), vec!["backoff"]),
        (json!({"backoff": {"kind": "random"}}), vec!["backoff.kind is 'random'"]),
        (json!({"backoff": {"kind": "list"}}), vec!["backoff.steps"]),
        (json!({"backoff": {"kind": "list", "steps": []}}), vec!["backoff.steps"]),
        (json!({"backoff": {"kind": "list", "steps": [true]}}), vec!["backoff"]),
        (json!({"backoff": {"kind": "list", "steps": ["soon"]}}), vec!["backoff", "soon"]),
        (json!({"backoff": {"kind": "fixed", "base": -1}}), vec!["backoff"]),
        (json!({"backoff": {"kind": "fixed", "base": true}}), vec!["backoff"]),
        (json!({"backoff": {"kind": "fixed", "base": 1e300}}), vec!["backoff"]),
        (json!({"backoff": {"kind": "exponential", "factor": 1e300}}), vec!["backoff"]),
        (json!({"backoff": {"jitter": 2}}), vec!["backoff"]),
        (json!({"backoff": {"factor": 0.5}}), vec!["backoff"]),
        (json!({"then": {"succeeded": {}}}), vec!["then: task_type"]),
        (json!({"then": {"succeeded": 7}}), vec!["then", "JSON object"]),
        (json!({"then": {"succeeded": {"task_type": "b", "priority": 9}}}), vec!["then", "priority is 9"]),
        (json!({"then": {"succeeded": {"task_type": "b", "run_at": "soon"}}}), vec!["then", "soon"]),
        (json!({"then": {"succeeded": {"task_type": "b", "payload": [1]}}}), vec!["then", "payload"]),
        (json!({"reduce_on": "never"}), vec!["reduce_on is 'never'"]),
        (json!({"plan": "maybe"}), vec!["maybe"]),
    ] {
        let refusal = q.refused(format!("select divvy.put_task_type('a', {})", quoted(&options))).await;
        refusal.says("DV010", &[&["type a"], names.as_slice()].concat());
    }
    assert_eq!(q.one::<i32>("select max_attempts from divvy.task_type where name = 'a'").await, 7);
    assert_eq!(q.events("type", "a").await.len(), 1);
}

#[tokio::test]
async fn a_task_whose_then_could_not_be_made_is_refused_when_it_comes_in() {
    let mut q = Queue::with_types(&["a"]).await;
    for then in [
        json!({"succeeded": {"task_type": "b", "priority": 9}}),
        json!({"failed": [{"task_type": "b"}, {"task_type": "b", "timeout": "-1 s"}]}),
        json!({"succeeded": {"task_type": "B"}}),
        json!([]),
    ] {
        q.refused(format!("insert into divvy.task (task_type, \"then\") values ('a', {})", quoted(&then)))
            .await
            .says("DV010", &["task row 1", if then.is_array() { "JSON object" } else { "then" }]);
    }
}

#[tokio::test]
async fn a_handler_of_a_kind_that_there_is_not_is_refused_and_told_the_others() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_running": null, "rate": null, "fair_by_group": null})).await;
    q.refused("select divvy.put_task_type('b', '{\"handler\": {\"grpc\": \"x\"}}')")
        .await
        .says("DV010", &["type b", "'grpc'", "worker, sql, exec, http"]);
    assert_eq!(q.one::<i64>("select count(*) from divvy.task_type").await, 1);
}

#[tokio::test]
async fn a_handler_whose_names_hold_quotes_is_refused_or_kept_as_it_is() {
    let mut q = Queue::new().await;
    let role = |role: &str| json!({"handler": {"sql": {"execute": "select 1", "role": role}}});
    for name in ["o'brien", "x\"; drop table divvy.task; --", "it''s"] {
        q.refused(format!("select divvy.put_task_type('a', {})", quoted(role(name))))
            .await
            .says("DV010", &["type a", "handler.sql.role", "does not exist"]);
    }
    // A role that is really called so is taken; roles belong to the server, so it goes with the transaction.
    q.run(r#"begin; create role "o'br""ien" nologin"#).await;
    q.put("a", role("o'br\"ien")).await;
    let kept: String = q.one("select handler #>> '{sql,role}' from divvy.task_type where name = 'a'").await;
    assert_eq!(kept, "o'br\"ien");
    q.run("rollback").await;
    q.refused(r#"select divvy.put_task_type('a', '{"handler": {"sql": {"execute": "x", "o''brien": 1}}}')"#)
        .await
        .says("DV010", &["handler.sql", "brien"]);
}

#[tokio::test]
async fn a_worker_that_is_unknown_or_speaks_another_protocol_is_told_so() {
    let mut q = Queue::with_types(&["a"]).await;
    let nobody = WORKER.replace('1', "9");
    for call in [
        format!("claim('{nobody}', '{{a}}')"),
        format!("heartbeat('{nobody}', '{{}}', '{{}}')"),
        format!("worker_command('{nobody}', 'quiet')"),
    ] {
        q.refused(format!("select divvy.{call}")).await.says("DV011", &["worker", &nobody]);
    }
    q.refused(format!("select divvy.register_worker('{WORKER}', 'w', '{{a}}', 1, '{{\"protocol\": 2}}')"))
        .await
        .says("DV020", &[WORKER, "protocol 2", "speaks 1"]);
    q.refused(format!("select divvy.register_worker('{WORKER}', 'w', '{{a}}', 0)"))
        .await
        .says("DV010", &[WORKER, "slots is 0"]);
    q.refused(format!("select divvy.register_worker('{WORKER}', 'w', '{{A b}}', 1)"))
        .await
        .says("DV010", &[WORKER, "A b"]);
    for command in ["'stop'", "null"] {
        q.refused(format!("select divvy.worker_command('{WORKER}', {command})"))
            .await
            .says("DV010", &[WORKER, "run, quiet or terminate"]);
    }
    q.refused(format!("select divvy.claim('{WORKER}', '{{a}}', -1)")).await.says("DV010", &["max is -1"]);
    q.refused(format!("select divvy.claim('{WORKER}', '{{a}}', 1, null, '{{1,2}}')"))
        .await
        .says("DV010", &["2 entries for 1 types"]);
}
