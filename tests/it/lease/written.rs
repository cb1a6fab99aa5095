//! A split that only its lease names, and everything that may happen to it but a good end: all is as with one whose row
//! says that it runs.

use super::bench;
use crate::support::hand::{Claimed, Hand};

/// Calls on a running split, as `(call, its arguments after split and token)`, then on its task: `%` is the task's id, `#` the
/// split's.
const CALLS: &[(&str, &str)] = &[
    ("fail", r#"'{"class": "x"}'"#),
    ("fail", r#"'{"class": "x"}', false"#),
    ("snooze", "'0 s'"),
    ("snooze", "'1 hour', '{\"at\": 1}'"),
    ("release", ""),
    ("checkpoint", "'{\"at\": 1}', 0.5"),
    ("log", "'info', 'here'"),
    ("add_splits", "'[1, 2]'"),
    ("complete", "'{\"n\": 1}'"),
];
const ORDERS: &[&str] = &[
    "select divvy.cancel(%, 'enough')",
    "select divvy.pause_task(%)",
    "select divvy.resume_task(%)",
    "select divvy.skip_split(#)",
    "select divvy.reschedule(%, divvy.clock() + interval '1 hour')",
    "select divvy.reschedule(%, null, 1)",
    r#"select divvy.update_task(%, '{"priority": 1}')"#,
    r#"select divvy.update_task(%, '{"max_attempts": 1, "timeout": "1 min"}')"#,
    r#"select divvy.update_task(%, '{"payload": {"n": 2}}')"#,
    "select divvy.redrive(%)",
    "select divvy.forget(%)",
    "select divvy.pause('x')",
    "select divvy.promote()",
    "select divvy.tick()",
];

/// All that can be seen of splits, tasks and attempts, without what two runs never have in common.
const EVERYTHING: &str = "
    select format('split %s %s %s %s attempt %s of %s, %s, priority %s, %s %s %s %s %s', split_no, phase, status, reason, attempt, max_attempts,
            crashes, priority, case when isfinite(due_at) then due_at - divvy.clock() end, progress, checkpoint, result, error ->> 'class') from divvy.split
    union all select format('task %s %s %s %s %s', status, split_count, cancel_requested_at is not null, paused_until is not null,
            coalesce(reason, cancel_reason)) from divvy.task
    union all select format('progress %s %s %s %s %s', delayed, ready, running, succeeded, cancelled) from divvy.task_progress
    union all select format('attempt %s %s', attempt, outcome) from divvy.attempt
    union all select format('log %s', message) from divvy.split_log
    union all select format('lease of %s', cardinality(split_ids)) from divvy.lease
    union all select format('type %s %s %s', ready, running, delayed) from divvy.type_stats
    order by 1";

/// Runs one story: a claimed split, written down or not; the call; then its holder's end. What was to be seen.
async fn story(insert: &str, written: bool, act: impl AsyncFn(&mut Hand, &Claimed) -> String) -> Vec<String> {
    let mut b = bench(r#"{"backoff": {"kind": "fixed", "base": 5, "jitter": 0}, "timeout": "1 hour"}"#).await;
    b.hand.insert(insert).await;
    let split = b.hand.claim_one("x").await;
    if written {
        b.duty.run(&format!("select divvy.write_down('{{{}}}')", split.split_id)).await;
    }
    let stored: String =
        b.duty.get(&format!("select state::text from divvy.unit where id = {}", split.split_id)).await;
    assert_eq!(stored, if written { "running" } else { "ready" });
    let mut seen = b.duty.all::<String>(EVERYTHING).await;
    seen.push(format!("-> {}", act(&mut b.hand, &split).await));
    seen.extend(b.duty.all::<String>(EVERYTHING).await);
    seen.push(format!("beat {:?}", b.beat(split.split_id, split.token).await));
    seen.push(format!("-> complete {}", b.hand.complete(&split).await));
    seen.extend(b.duty.all::<String>(EVERYTHING).await);
    b.pass(35).await;
    seen.extend(b.duty.all::<String>(EVERYTHING).await);
    let anew = Hand::new(&b.db).await.claim("x", 10).await;
    seen.extend(anew.iter().map(|s| format!("claimed {} {} {}", s.phase, s.split_no, s.attempt)));
    seen
}

async fn assert_no_difference(what: &str, act: impl AsyncFn(&mut Hand, &Claimed) -> String) {
    for insert in ["(task_type) values ('x')", "(task_type, split_count) values ('x', 3)"] {
        let leased = story(insert, false, &act).await;
        let written = story(insert, true, &act).await;
        assert_eq!(leased, written, "{what} of {insert}");
        assert!(leased.iter().any(|line| line.contains("execute running")), "{leased:?}");
    }
}

#[tokio::test]
async fn every_call_on_a_leased_split_does_what_it_does_to_one_that_is_written_down() {
    for (function, more) in CALLS {
        assert_no_difference(function, async |hand: &mut Hand, split: &Claimed| {
            hand.call(function, split, more).await
        })
        .await;
    }
}

#[tokio::test]
async fn every_order_on_the_task_of_a_leased_split_does_what_it_does_to_one_that_is_written_down() {
    for order in ORDERS {
        assert_no_difference(order, async |hand: &mut Hand, split: &Claimed| {
            hand.code(
                &order.replace('%', &split.task_id.to_string()).replace('#', &split.split_id.to_string()),
            )
            .await
        })
        .await;
    }
}

#[tokio::test]
async fn a_failure_of_one_of_200_leased_splits_writes_down_that_one_alone() {
    for insert in
        ["(task_type) select 'x' from generate_series(1, 200)", "(task_type, split_count) values ('x', 200)"]
    {
        let mut b = bench("{}").await;
        b.hand.run(&format!("insert into divvy.task {insert}")).await;
        b.hand.run("select divvy.write_out_unbegun(id) from divvy.task").await;
        let splits = b.hand.claim("x", 200).await;
        let version = "select id || ' ' || ctid from divvy.task where phase is not null union all select id || ' ' || ctid from divvy.share order by 1";
        let before = b.hand.all::<String>(version).await;
        assert_eq!(b.hand.call("fail", &splits[120], r#"'{"class": "x"}'"#).await, "ok");
        let after = b.hand.all::<String>(version).await;
        let same = before.iter().filter(|row| after.contains(row)).count();
        assert_eq!((before.len(), same), (200, 199), "{insert}");
        assert_eq!(b.hand.state(splits[120].split_id).await, "delayed");
        assert_eq!(b.hand.count("divvy.split where status = 'running'").await, 199);
        let verdicts = b.hand.complete_many(&splits).await;
        assert_eq!(verdicts.iter().filter(|v| *v == "ok").count(), 199);
        assert_eq!(verdicts[120], "lost");
        assert_eq!(b.hand.count("divvy.lease").await, 0);
    }
}

#[tokio::test]
async fn the_end_of_a_lease_returns_all_its_leased_splits_once() {
    let mut b = bench("{}").await;
    b.hand.run("insert into divvy.task (task_type) select 'x' from generate_series(1, 10)").await;
    b.hand.divided("x", 10).await;
    let splits = b.hand.claim("x", 20).await;
    // Some are written down by what they say, some have ended: no difference to the others.
    assert_eq!(b.hand.call("checkpoint", &splits[3], "'1'").await, "ok");
    assert_eq!(b.hand.complete(&splits[4]).await, "ok");
    b.pass(35).await;
    assert_eq!(b.hand.count("divvy.split where status = 'ready' and attempt = 1").await, 19);
    b.pass(60).await;
    assert_eq!(b.hand.count("divvy.attempt where outcome = 'expired'").await, 19);
    assert_eq!(b.hand.count("divvy.lease").await, 0);
    let again = Hand::new(&b.db).await.claim("x", 20).await;
    assert_eq!(again.len(), 19);
    assert!(again.iter().all(|s| s.attempt == 2));
    assert!(
        b.hand
            .complete_many(&splits)
            .await
            .iter()
            .enumerate()
            .all(|(i, v)| v == if i == 4 { "already" } else { "lost" })
    );
}

/// Its old lease may name a split for a while when somebody else holds the lease: the key says that this means nothing.
#[tokio::test]
async fn a_split_that_was_ready_anew_is_lost_to_a_lease_that_still_names_it() {
    for insert in ["(task_type) values ('x')", "(task_type, split_count) values ('x', 2)"] {
        let mut b = bench("{}").await;
        b.hand.insert(insert).await;
        let old = b.hand.claim_one("x").await;
        b.duty.run("begin; select from divvy.lease for update").await;
        assert_eq!(b.hand.call("release", &old, "").await, "ok");
        b.duty.run("commit").await;
        let names = format!("divvy.lease where not written and {} = any (split_ids)", old.split_id);
        assert_eq!(b.hand.count(&names).await, 1, "the case that is meant");
        let zombie = async |hand: &mut Hand| {
            assert_eq!(hand.complete(&old).await, "DV001");
            assert_eq!(hand.complete_many(std::slice::from_ref(&old)).await, ["lost"]);
            for (function, more) in CALLS {
                assert_eq!(hand.call(function, &old, more).await, "DV001", "{function}");
            }
        };
        zombie(&mut b.hand).await;
        assert_eq!(b.hand.state(old.split_id).await, "ready");
        assert_eq!(b.beat(old.split_id, old.token).await[0].as_deref(), Some("lost"));
        let mut other = Hand::new(&b.db).await;
        let claimed = other.claim("x", 2).await;
        let new = claimed.iter().find(|s| s.split_id == old.split_id).expect("it is claimed anew");
        zombie(&mut b.hand).await;
        assert_eq!(
            b.hand.get::<i64>(&format!("select token from divvy.split where id = {}", old.split_id)).await,
            new.token
        );
        // The end of the old lease takes nothing from the new one.
        b.duty
            .run(&format!("update divvy.lease set lease_until = divvy.clock() where token = {}", old.token))
            .await;
        b.pass(25).await;
        assert_eq!(b.hand.state(old.split_id).await, "running");
        assert_eq!(other.complete(new).await, "ok");
        assert_eq!(b.hand.count("divvy.attempt").await, 0);
    }
}

#[tokio::test]
async fn redrive_opens_what_a_lease_names_still_and_the_old_holder_has_lost_it() {
    let mut b = bench("{}").await;
    let task = b.hand.insert("(task_type) values ('x')").await;
    let old = b.hand.claim_one("x").await;
    b.duty.run("begin; select from divvy.lease for update").await;
    assert_eq!(b.hand.call("fail", &old, "'{}', false").await, "ok");
    b.duty.run("commit").await;
    assert_eq!(b.hand.get::<i64>(&format!("select divvy.redrive({task})")).await, 1);
    assert_eq!(b.hand.state(task).await, "ready");
    assert_eq!(b.hand.complete(&old).await, "DV001");
    let new = Hand::new(&b.db).await.claim_one("x").await;
    assert_eq!((new.split_id, new.attempt), (task, 2));
    assert_eq!(b.hand.complete(&new).await, "ok");
}
