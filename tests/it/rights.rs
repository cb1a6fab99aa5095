//! Who may do what: four roles, and nothing for anybody else.

use crate::support::queue::Queue;
use serde_json::json;

/// What the role may do, each with whether it is allowed, in a transaction that is rolled back.
async fn may(q: &mut Queue, role: &str, sql: &str) -> bool {
    let tried = q.run_as(role, sql).await;
    match tried {
        Ok(()) => true,
        Err(refusal) if refusal.code == "42501" => false,
        Err(refusal) => panic!("{role}: {sql}: {refusal:?}"),
    }
}

const ROLES: [&str; 4] = ["divvy_producer", "divvy_worker", "divvy_reader", "divvy_operator"];

#[tokio::test]
async fn each_role_can_do_its_part_and_no_more() {
    let mut q = Queue::with_types(&["a"]).await;
    let task = q.enqueue("a").await;
    q.run("insert into divvy.schedule (name, task_type, every) values ('s', 'a', '1 hour')").await;
    let worker = crate::support::queue::WORKER;
    // producer, worker, reader, operator
    for (sql, allowed) in [
        (
            "insert into divvy.task (task_type, payload, split_count) values ('a', '{}', 2) returning id"
                .to_owned(),
            [1, 0, 0, 0],
        ),
        (
            "insert into divvy.schedule (name, task_type, every) values ('t', 'a', '1 min') returning id"
                .into(),
            [1, 0, 0, 0],
        ),
        ("select divvy.enqueue('a')".into(), [1, 0, 0, 1]),
        ("select divvy.enqueue_many('[{\"task_type\": \"a\"}]')".into(), [1, 0, 0, 1]),
        (format!("select divvy.task_result({task})"), [1, 1, 0, 1]),
        ("select divvy.protocol()".into(), [0, 1, 0, 0]),
        (format!("select divvy.register_worker('{worker}', 'w', '{{a}}', 1)"), [0, 1, 0, 0]),
        (
            format!("select divvy.complete(split_id, token) from divvy.claim('{worker}', '{{a}}') c"),
            [0, 1, 0, 0],
        ),
        (format!("select divvy.heartbeat('{worker}', '{{}}', '{{}}')"), [0, 1, 0, 0]),
        ("select divvy.next_wait('{a}')".into(), [0, 1, 0, 0]),
        ("select divvy.tick()".into(), [0, 1, 0, 0]),
        ("select payload from divvy.task".into(), [0, 1, 1, 1]),
        ("select payload from divvy.split".into(), [0, 1, 1, 1]),
        ("select status from divvy.task_overview".into(), [0, 1, 1, 1]),
        ("select name from divvy.database_health".into(), [0, 1, 1, 1]),
        ("select verb from divvy.event".into(), [0, 1, 1, 1]),
        (format!("select rule from divvy.explain({task})"), [0, 1, 1, 1]),
        ("select name from divvy.findings()".into(), [0, 1, 1, 1]),
        ("select name from divvy.alert_overview".into(), [0, 1, 1, 1]),
        ("select ready from divvy.metric_minute".into(), [0, 1, 1, 1]),
        ("select fingerprint from divvy.dead_splits".into(), [0, 1, 1, 1]),
        ("select divvy.take_sample(), divvy.look_for_alerts()".into(), [0, 1, 0, 0]),
        ("select divvy.bulk('{\"all\": true}', 'cancel', false)".into(), [0, 0, 0, 1]),
        (format!("select divvy.cancel({task})"), [0, 0, 0, 1]),
        (format!("select divvy.cancel({task}); select divvy.redrive({task})"), [0, 0, 0, 1]),
        (format!("select divvy.update_task({task}, '{{\"priority\": 1}}')"), [0, 0, 0, 1]),
        (format!("select divvy.reschedule({task}, null)"), [0, 0, 0, 1]),
        (format!("select divvy.pause_task({task}); select divvy.resume_task({task})"), [0, 0, 0, 1]),
        (format!("select divvy.skip_split({task})"), [0, 0, 0, 1]),
        (format!("select divvy.cancel({task}); select divvy.forget({task})"), [0, 0, 0, 1]),
        ("select divvy.pause('a'); select divvy.resume('a')".into(), [0, 0, 0, 1]),
        ("select divvy.put_task_type('b'); select divvy.drop_task_type('b')".into(), [0, 0, 0, 1]),
        (format!("select divvy.worker_command('{worker}', 'quiet')"), [0, 0, 0, 1]),
        ("select divvy.pause_schedule('s'); select divvy.resume_schedule('s')".into(), [0, 0, 0, 1]),
        ("select divvy.trigger_schedule('s'); select divvy.cancel_schedule('s')".into(), [0, 0, 0, 1]),
    ] {
        for (role, allowed) in ROLES.iter().zip(allowed) {
            assert_eq!(may(&mut q, role, &sql).await, allowed == 1, "{role}: {sql}");
        }
    }
}

#[tokio::test]
async fn nobody_writes_what_only_functions_may() {
    let mut q = Queue::with_types(&["a"]).await;
    let task = q.enqueue("a").await;
    for role in ROLES {
        for sql in [
            "insert into divvy.task (task_type, status) values ('a', 'succeeded')".to_owned(),
            "insert into divvy.task (task_type, result) values ('a', '1')".into(),
            "insert into divvy.task (task_type, id) values ('a', 1)".into(),
            "insert into divvy.task (task_type, parent_task_id) values ('a', 1)".into(),
            "insert into divvy.task (task_type, schedule_id) values ('a', 1)".into(),
            "insert into divvy.task (task_type, state) values ('a', 'ready')".into(),
            "insert into divvy.task (task_type, attempt) values ('a', -100)".into(),
            "insert into divvy.share (share_of, task_type) values (1, 'a')".into(),
            "insert into divvy.unit (task_type) values ('a')".into(),
            "insert into divvy.schedule (name, task_type, every, status) values ('s', 'a', '1 min', 'active')".into(),
            "insert into divvy.schedule (name, task_type, every, next_fire_at) values ('s', 'a', '1 min', now())".into(),
            format!("update divvy.task set payload = '{{}}' where id = {task}"),
            "delete from divvy.task".into(),
            "truncate divvy.event".into(),
            "delete from divvy.event".into(),
            "update divvy.task_type set max_attempts = 1".into(),
            "update divvy.lane set mark = 0".into(),
            "select setval('divvy.key', 1)".into(),
            "create table divvy.mine (n int)".into(),
            "create function divvy.clock2() returns int language sql as 'select 1'".into(),
        ] {
            assert!(!may(&mut q, role, &sql).await, "{role}: {sql}");
        }
    }
    for sql in [
        "select payload from divvy.task",
        "select status from divvy.task",
        "select payload from divvy.split",
        "update divvy.task set payload = '{}'",
    ] {
        assert!(!may(&mut q, "divvy_producer", sql).await, "{sql}");
    }
    assert!(may(&mut q, "divvy_producer", "select id from divvy.task").await, "for RETURNING");
}

#[tokio::test]
async fn a_producer_that_is_nothing_else_uses_copy_and_on_conflict() {
    let mut q = Queue::with_types(&["a"]).await;
    for sql in [
        "insert into divvy.task (task_type, dedupe_key) values ('a', 'k'), ('a', 'k') on conflict do nothing returning id",
        "insert into divvy.task (task_type, split_range, split_size) select 'a', '[0,10)', 3",
        "insert into divvy.task (task_type, run_at) values ('not.declared', now() + interval '1 day')",
        "select divvy.enqueue('a', '{}', '{\"splits\": [1, 2], \"dedupe_key\": \"x\"}')",
    ] {
        assert!(may(&mut q, "divvy_producer", sql).await, "{sql}");
    }
    q.run("begin; set local role divvy_producer").await;
    let mut copy = q.session.copy_in_raw("copy divvy.task (task_type, payload) from stdin").await.unwrap();
    copy.send(&b"a\t{}\na\t{}\n"[..]).await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 2);
    q.run("commit").await;
    assert_eq!(q.claim_up_to("a", 9).await.len(), 2);
}

#[tokio::test]
async fn the_public_can_do_nothing() {
    let mut q = Queue::with_types(&["a"]).await;
    let open: Vec<String> = q
        .all(
            "select p.oid::regprocedure::text from pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
             where p.pronamespace = 'divvy'::regnamespace and a.grantee = 0",
        )
        .await;
    assert_eq!(open, [""; 0], "functions that anybody may execute");
    let open: Vec<String> = q
        .all(
            "select c.oid::regclass::text from pg_class c, aclexplode(c.relacl) a
             where c.relnamespace = 'divvy'::regnamespace and a.grantee = 0",
        )
        .await;
    assert_eq!(open, [""; 0], "relations that anybody may touch");
    q.run("begin; create role divvy_test_nobody").await;
    for sql in [
        "select divvy.enqueue('a')",
        "select divvy.clock()",
        "select id from divvy.task",
        "insert into divvy.task (task_type) values ('a')",
    ] {
        q.run("savepoint here; set local role divvy_test_nobody").await;
        let refusal = q.refused_within(sql).await;
        refusal.says("42501", &["permission denied"]);
    }
    q.run("rollback").await;
}

#[tokio::test]
async fn every_function_that_runs_as_its_owner_has_a_fixed_search_path() {
    let mut q = Queue::new().await;
    let functions: Vec<(String, String, bool)> = q
        .rows(
            "select p.oid::regprocedure::text, r.rolname::text, coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false)
             from pg_proc p join pg_roles r on r.oid = p.proowner
             where p.pronamespace = 'divvy'::regnamespace and p.prosecdef",
        )
        .await;
    assert!(functions.len() > 40);
    for (function, owner, fixed) in functions {
        assert!(fixed, "{function} has no fixed search_path");
        assert_eq!(owner, "divvy_owner", "{function}");
    }
    let login: bool =
        q.one("select rolcanlogin or rolsuper from pg_roles where rolname = 'divvy_owner'").await;
    assert!(!login);
    let granted: Vec<String> = q
        .all(
            "select distinct p.oid::regprocedure::text from pg_proc p, aclexplode(p.proacl) a join pg_roles r on r.oid = a.grantee
             where p.pronamespace = 'divvy'::regnamespace and r.rolname like 'divvy\\_%' and r.rolname <> 'divvy_owner'
                and not p.prosecdef and p.proname not in ('clock', 'lock_of')",
        )
        .await;
    assert_eq!(granted, [""; 0], "what a role may call runs as the owner");
}

#[tokio::test]
async fn a_planted_object_leads_no_function_astray() {
    let mut q = Queue::with_types(&["a"]).await;
    q.run(
        "create function public.format(text, variadic text[]) returns text language sql as $$ select 'astray' $$;
         create temp table task (id bigint, task_type text);
         set search_path = pg_temp, public, pg_catalog",
    )
    .await;
    let task: i64 = q.one("select task_id from divvy.enqueue('a')").await;
    q.refused("select divvy.complete(999999, 1)").await.says("DV011", &["there is no split 999999"]);
    q.run("reset search_path").await;
    assert_eq!(q.status(task).await, "running");
}

#[tokio::test]
async fn a_type_in_sql_runs_only_as_a_role_that_its_author_is_a_member_of() {
    let mut q = Queue::new().await;
    // Roles belong to the server: these are never committed.
    q.run("begin; create role divvy_test_rich; create role divvy_test_author; grant divvy_operator to divvy_test_author").await;
    let options = json!({"handler": {"sql": {"execute": "select 1", "role": "divvy_test_rich"}}});
    let put = format!("select divvy.put_task_type('a', '{options}')");
    q.run("savepoint here; set local session authorization divvy_test_author").await;
    let refusal = q.refused(put).await;
    refusal.says("DV010", &["type a", "divvy_test_author", "not a member", "divvy_test_rich"]);
}
