//! The defects of the systems that divvy descends from, as promises that it keeps.

use crate::support::clock::Clock;
use crate::support::queue::{Claimed, Queue, WORKER};
use crate::support::race;
use serde_json::{Value, json};
use sqlx::Connection;
use std::time::Duration;

/// Everything there is about splits and tasks, to see that nothing changed.
async fn everything(q: &mut Queue) -> Value {
    q.one(
        "select jsonb_build_array((select jsonb_agg(to_jsonb(k) order by k.id) from divvy.task k),
            (select jsonb_agg(to_jsonb(s) order by s.id) from divvy.share s),
            (select jsonb_agg(to_jsonb(a) order by a.split_id, a.token) from divvy.attempt a))",
    )
    .await
}

// Their RETRY was put back to a broker by a line that was commented out: the split hung for ever.
#[tokio::test]
async fn ten_thousand_continuations_use_no_attempt_and_the_task_still_finishes() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_attempts": 1, "reduce": true})).await;
    let task = q.enqueue_splits("a", 100).await;
    for round in 1..=100 {
        let again: i64 = q
            .one(format!(
                "select count(divvy.snooze(split_id, token, '0', jsonb_build_object('round', {round})))
                 from divvy.claim('{WORKER}', '{{a}}', 100)"
            ))
            .await;
        assert_eq!(again, 100);
    }
    let splits = q.claim_up_to("a", 100).await;
    assert_eq!(splits.len(), 100);
    for split in &splits {
        assert_eq!((split.attempt, split.checkpoint.clone()), (1, Some(json!({"round": 100}))));
        assert!(split.idempotency_key.ends_with(".1.100"));
        q.complete(split).await;
    }
    assert_eq!(q.work("a").await.phase, "reduce");
    assert_eq!(q.status(task).await, "succeeded");
}

// Their handler's exception was redelivered a few times and then forgotten in state EXECUTING.
#[tokio::test]
async fn a_split_that_always_fails_ends_failed_and_is_never_stuck() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_attempts": 4})).await;
    let task = q.enqueue_splits("a", 1).await;
    let mut attempts = 0;
    while let Some(split) = q.claim_up_to("a", 1).await.pop() {
        attempts += 1;
        q.fail(&split, ", retry_in => '0'").await;
    }
    assert_eq!((attempts, q.status(task).await.as_str()), (4, "failed"));
    assert_eq!(
        q.one::<i64>("select count(*) from divvy.split where status in ('ready', 'running', 'delayed')")
            .await,
        0
    );
}

// Their task row and its splits were two statements without a transaction.
#[tokio::test]
async fn a_producer_that_dies_in_the_middle_leaves_nothing() {
    let mut q = Queue::with_types(&["a"]).await;
    let mut producer = q.db.connect().await;
    let pid = race::backend_pid(&mut producer).await;
    sqlx::raw_sql("begin; insert into divvy.task (task_type, split_count) values ('a', 50)")
        .execute(&mut producer)
        .await
        .unwrap();
    assert!(q.one::<bool>(format!("select pg_terminate_backend({pid}, 10000)")).await);
    producer.close().await.ok();
    assert_eq!(q.one::<i64>("select count(*) from divvy.unit").await, 0);
}

// Their scan read the first hundred unfinished tasks and never the others.
#[tokio::test]
async fn hundreds_of_unfinished_tasks_starve_nobody() {
    let mut q = Queue::new().await;
    q.put("a", json!({"reduce": true})).await;
    q.run("insert into divvy.task (task_type, split_count) select 'a', 2 from generate_series(1, 300)").await;
    let last: i64 = q.one("select max(id) from divvy.task").await;
    let stuck = q.claim_up_to("a", 600).await;
    let (of_last, others): (Vec<Claimed>, Vec<Claimed>) = stuck.into_iter().partition(|s| s.task_id == last);
    q.tick().await;
    for split in &of_last {
        q.complete(split).await;
    }
    assert_eq!(q.work("a").await.task_id, last);
    assert_eq!(q.status(last).await, "succeeded");
    assert_eq!(others.len(), 598);
    for task in [others[0].task_id, others[597].task_id] {
        assert_eq!(q.status(task).await, "running");
    }
}

// One exception in their reduce ended the scan, and all tasks behind it.
#[tokio::test]
async fn a_poisoned_reduce_keeps_no_other_task_from_finishing() {
    let mut q = Queue::new().await;
    q.put("a", json!({"reduce": true, "max_attempts": 2})).await;
    q.run("insert into divvy.task (task_type, split_count) select 'a', 1 from generate_series(1, 500)").await;
    let poisoned: i64 = q.one("select min(id) from divvy.task").await;
    let complete_all = format!(
        "select count(divvy.complete(split_id, token)) from divvy.claim('{WORKER}', '{{a}}', 1000) where task_id <> {poisoned} or phase = 'execute'"
    );
    assert_eq!(q.one::<i64>(&complete_all).await, 500);
    for _ in 0..2 {
        let reduces = q.claim_up_to("a", 1000).await;
        for split in &reduces {
            if split.task_id == poisoned {
                q.fail(split, ", retry_in => '0'").await;
            } else {
                q.complete(split).await;
            }
        }
    }
    let states: Vec<(String, i64)> =
        q.rows("select status::text, count(*) from divvy.task group by 1 order by 1").await;
    assert_eq!(states, [("failed".into(), 1), ("succeeded".into(), 499)]);
    assert_eq!(q.status(poisoned).await, "failed");
}

#[tokio::test]
async fn a_task_that_cannot_be_settled_keeps_no_other_from_it_and_is_looked_at_again() {
    let mut q = Queue::new().await;
    q.put("a", json!({"reduce": true})).await;
    q.run("insert into divvy.task (task_type, split_count) select 'a', 1 from generate_series(1, 3)").await;
    let poisoned: i64 = q.one("select min(id) from divvy.task").await;
    // While somebody else holds the tasks' rows, completions only leave a note.
    let mut holder = q.db.connect().await;
    sqlx::raw_sql("begin; select id from divvy.task for update").execute(&mut holder).await.unwrap();
    for split in q.claim_up_to("a", 3).await {
        q.complete(&split).await;
    }
    sqlx::raw_sql("commit").execute(&mut holder).await.unwrap();
    q.run(format!(
        "create function poison() returns trigger language plpgsql as $$ begin raise 'poison'; end $$;
         create trigger poison before update on divvy.task for each row when (new.id = {poisoned}) execute function poison()"
    ))
    .await;
    q.tick().await;
    let reducing: Vec<i64> = q.all("select id from divvy.task where status = 'reducing' order by id").await;
    assert_eq!(reducing, [poisoned + 1, poisoned + 2]);
    let event = q.last_event("task", poisoned).await;
    assert_eq!((event.verb.as_str(), event.reason.as_deref()), ("settle", Some("poison")));
    q.run("drop trigger poison on divvy.task").await;
    q.tick().await;
    assert_eq!(q.status(poisoned).await, "reducing");
}

// Their late worker's update had no condition: a zombie overwrote what came after it.
#[tokio::test]
async fn a_zombies_late_calls_change_nothing() {
    let mut q = Queue::new().await;
    q.put("a", json!({"lease": "2 s"})).await;
    let clock = Clock::stop(&q.db).await;
    q.tick().await;
    clock.advance(Duration::from_secs(5)).await;
    q.tick().await;
    q.enqueue_splits("a", 2).await;
    let zombie = q.claim("a").await;
    clock.advance(Duration::from_secs(3)).await;
    q.tick().await;
    let heirs = q.claim_up_to("a", 2).await;
    let heir = heirs.iter().find(|s| s.split_id == zombie.split_id).expect("the split is taken back");
    assert_eq!(heir.attempt, 2);
    for ended in [false, true] {
        if ended {
            q.complete_with(heir, json!("the heir's")).await;
        }
        let before = everything(&mut q).await;
        let (id, token) = (zombie.split_id, zombie.token);
        for call in [
            format!("complete({id}, {token}, '\"the zombie''s\"')"),
            format!("fail({id}, {token}, '{{}}')"),
            format!("snooze({id}, {token}, '1 s')"),
            format!("release({id}, {token})"),
            format!("checkpoint({id}, {token}, '{{}}')"),
        ] {
            q.refused(format!("select divvy.{call}"))
                .await
                .says("DV001", &[&id.to_string(), &token.to_string()]);
        }
        let verdict: String =
            q.one(format!("select verdict from divvy.complete_many('{{{id}}}', '{{{token}}}', '[1]')")).await;
        assert_eq!(verdict, "lost");
        assert_eq!(everything(&mut q).await, before);
    }
}

// Their cancel looked for a name that only one kind of schedule had: the others fired on.
#[tokio::test]
async fn a_cancelled_schedule_of_any_kind_never_fires_again() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run(
        "insert into divvy.schedule (name, task_type, steps) values ('stepped', 'a', '{1 min,2 min}');
         insert into divvy.schedule (name, task_type, run_at) values ('timed', 'a', divvy.clock() + interval '1 min');
         insert into divvy.schedule (name, task_type, every) values ('every', 'a', '1 min');
         insert into divvy.schedule (name, task_type, cron) values ('cron', 'a', '* * * * *');
         select divvy.plan_schedule(schedule_id, planned_from, array[planned_from + interval '1 min'], planned_from + interval '1 min') from divvy.schedules_to_plan()",
    )
    .await;
    for name in ["stepped", "timed", "every", "cron"] {
        q.run(format!("select divvy.cancel_schedule('{name}', 'not needed')")).await;
    }
    for _ in 0..3 {
        clock.advance(Duration::from_secs(61)).await;
        q.tick().await;
    }
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 0);
    assert_eq!(q.one::<i64>("select count(*) from divvy.schedules_to_plan()").await, 0);
    let states: Vec<String> = q.all("select distinct status from divvy.schedule_overview").await;
    assert_eq!(states, ["cancelled"]);
}

// Their runOnce deleted the remaining steps some time after the success.
#[tokio::test]
async fn the_first_success_cancels_the_remaining_steps_in_its_own_transaction() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run("insert into divvy.schedule (name, task_type, steps, stop_on_success) values ('s', 'a', '{0,1 min,2 min,3 min}', true)")
        .await;
    let state = "select status from divvy.schedule_overview";
    q.tick().await;
    let split = q.claim("a").await;
    q.stop(&split).await;
    assert_eq!(q.one::<String>(state).await, "active", "a failure is followed by the next step");
    clock.advance(Duration::from_secs(60)).await;
    q.tick().await;
    let split = q.claim("a").await;
    q.run(format!("begin; select divvy.complete({}, {})", split.split_id, split.token)).await;
    assert_eq!(q.one::<String>(state).await, "done");
    q.run("rollback").await;
    assert_eq!(q.one::<String>(state).await, "active");
    q.complete(&split).await;
    clock.advance(Duration::from_secs(600)).await;
    q.tick().await;
    assert_eq!(q.one::<String>(state).await, "done");
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 2);
}

// They had a topic and a consumer group for each type; divvy has an index range.
#[tokio::test]
async fn a_backlog_of_one_type_never_delays_another() {
    let mut q = Queue::with_types(&["a", "b"]).await;
    q.run("insert into divvy.task (task_type) select 'a' from generate_series(1, 5000)").await;
    let urgent = q.enqueue("b").await;
    assert_eq!(q.claim("b").await.task_id, urgent);
    let second = q.enqueue("b").await;
    let shared: Vec<i64> =
        q.all(format!("select task_id from divvy.claim('{WORKER}', '{{a,b}}', 10, null, '{{9,1}}')")).await;
    assert_eq!(shared.len(), 10);
    assert!(shared.contains(&second), "a worker of both types has room for each");
    q.run("select divvy.pause('a')").await;
    let third = q.enqueue("b").await;
    let beside: i64 = q.one(format!("select task_id from divvy.claim('{WORKER}', '{{a,b}}', 1)")).await;
    assert_eq!(beside, third, "a paused type takes no turn");
}

// Their reduce saw the task alone.
#[tokio::test]
async fn a_plan_knows_its_task_and_a_reduce_sees_every_result() {
    let mut q = Queue::new().await;
    q.put("a", json!({"plan": true, "reduce": true, "max_failed": 1})).await;
    let task = q.enqueue("a").await;
    let plan = q.claim("a").await;
    assert_eq!(plan.task_id, task);
    q.run(format!("select divvy.add_splits({}, {}, '[1, 2]')", plan.split_id, plan.token)).await;
    q.complete(&plan).await;
    let splits = q.claim_up_to("a", 2).await;
    q.complete_with(&splits[0], json!("one")).await;
    q.stop(&splits[1]).await;
    let reduce = q.claim("a").await;
    let inputs: Vec<(i32, String, Option<Value>, Option<Value>)> = q
        .rows(format!(
            "select split_no, status, result, error -> 'class' from divvy.reduce_inputs({}, {})",
            reduce.split_id, reduce.token
        ))
        .await;
    assert_eq!(
        inputs,
        [
            (1, "succeeded".into(), Some(json!("one")), None),
            (2, "failed".into(), None, Some(json!("Broken")))
        ]
    );
}
