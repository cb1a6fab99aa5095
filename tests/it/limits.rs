//! Limits of a type hold over all workers, hold back no more than they must, and are seen as what they are.

mod behind;
mod changed;
mod fair;
mod groups;
mod large;
mod locked;
mod rate;
mod storm;

use crate::support::both::over_both;
use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::Hand;
use crate::support::queue::{Queue, WORKER};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

over_both! { what_a_full_type_holds_back_is_delayed_by_a_limit_and_no_lag }

/// Makes so many plain tasks.
pub async fn enqueue_many(q: &mut Queue, task_type: &str, count: u32) {
    q.run(format!(
        "insert into divvy.task (task_type) select '{task_type}' from generate_series(1, {count})"
    ))
    .await;
}

/// The status and the reason of each split of the type, with how many there are of it.
pub async fn seen(q: &mut Queue, task_type: &str) -> Vec<(String, Option<String>, i64)> {
    q.rows(format!(
        "select status, reason, count(*) from divvy.split where task_type = '{task_type}' group by 1, 2 order by 1, 2"
    ))
    .await
}

#[tokio::test]
async fn no_more_than_max_running_are_claimed_and_each_end_lets_one_more_start() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_running": 3})).await;
    enqueue_many(&mut q, "a", 10).await;
    let first = q.claim_up_to("a", 2).await;
    assert_eq!(first.len(), 2);
    let third = q.claim_up_to("a", 5).await;
    assert_eq!(third.len(), 1);
    assert!(q.claim_up_to("a", 5).await.is_empty());
    q.complete(&first[0]).await;
    assert_eq!(q.claim_up_to("a", 5).await.len(), 1);
    q.fail(&first[1], ", retry_in => '1 hour'").await;
    assert_eq!(q.claim_up_to("a", 5).await.len(), 1);
    q.run(format!("select divvy.snooze({}, {}, '1 hour')", third[0].split_id, third[0].token)).await;
    let more = q.claim_up_to("a", 5).await;
    assert_eq!(more.len(), 1);
    q.run(format!("select divvy.release({}, {})", more[0].split_id, more[0].token)).await;
    assert_eq!(q.claim_up_to("a", 5).await.len(), 1);
}

#[tokio::test]
async fn the_slot_that_a_call_frees_is_taken_by_the_same_call() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_running": 1, "max_running_per_group": 1})).await;
    q.run("insert into divvy.task (task_type, group_key) select 'a', 'g' from generate_series(1, 3)").await;
    let mut split = q.claim_up_to("a", 9).await;
    assert_eq!(split.len(), 1);
    for left in [2, 1, 0] {
        let claimed: i32 = q
            .one(format!(
                "select jsonb_array_length(claimed) from divvy.complete_and_claim('{WORKER}', array[{}::bigint],
                    array[{}::bigint], null, '{{a}}', 9)",
                split[0].split_id, split[0].token
            ))
            .await;
        assert_eq!(claimed, left.min(1));
        split[0].split_id += 1;
        split[0].token += 1;
    }
    assert_eq!(q.one::<i64>("select count(*) from divvy.task where status = 'succeeded'").await, 3);
}

#[tokio::test]
async fn plan_shares_and_reduce_count_alike() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_running": 2, "plan": true, "reduce": true})).await;
    q.enqueue("a").await;
    q.run("insert into divvy.task (task_type, split_count) values ('a', 4), ('a', 0)").await;
    let claimed = q.claim_up_to("a", 9).await;
    let phases: Vec<&str> = claimed.iter().map(|s| s.phase.as_str()).collect();
    assert_eq!(phases, ["plan", "reduce"]);
    q.complete(&claimed[1]).await;
    assert_eq!(q.claim_up_to("a", 9).await.len(), 1, "beside the plan one share");
}

async fn what_a_full_type_holds_back_is_delayed_by_a_limit_and_no_lag(db: Arc<TestDb>) {
    let mut q = Queue::on(db).await.and_types(&["b"]).await;
    q.put("a", json!({"max_running": 2})).await;
    enqueue_many(&mut q, "a", 2).await;
    q.enqueue_splits("a", 3).await;
    let stats = "select ready, delayed, running, held, oldest_ready is not null from divvy.type_stats where task_type = 'a'";
    assert_eq!(q.rows::<(i64, i64, i64, i64, bool)>(stats).await, [(2, 3, 0, 3, true)], "two may start");
    let claimed = q.claim_up_to("a", 9).await;
    assert_eq!(q.rows::<(i64, i64, i64, i64, bool)>(stats).await, [(0, 3, 2, 3, false)]);
    assert_eq!(
        seen(&mut q, "a").await,
        [("delayed".into(), Some("limit".into()), 3), ("running".into(), None, 2)]
    );
    let shown: Vec<String> =
        q.all("select distinct status from divvy.split_overview where reason = 'limit'").await;
    assert_eq!(shown, ["delayed"]);
    // A worker sleeps, and does not ask again and again.
    let wait = "select extract(epoch from divvy.next_wait('{a}'))::float8";
    assert!(q.one::<f64>(wait).await > 0.0);
    q.complete(&claimed[0]).await;
    assert_eq!(q.one::<f64>(wait).await, 0.0);
    assert_eq!(q.rows::<(i64, i64, i64, i64, bool)>(stats).await, [(1, 2, 1, 2, true)]);
}

#[tokio::test]
async fn what_a_limit_held_back_for_an_hour_is_no_lag_in_the_moment_in_which_a_slot_is_free() {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    let mut hand = Hand::new(&db).await;
    hand.declare("x", r#"{"max_running": 2, "lease": "1 day"}"#).await;
    hand.declare("free", "{}").await;
    hand.run("insert into divvy.task (task_type) select 'x' from generate_series(1, 9)").await;
    let claimed = hand.claim("x", 2).await;
    clock.advance(Duration::from_secs(3_590)).await;
    // A worker has nothing to do: nine minus two wait, and none may start.
    hand.run("select divvy.next_wait('{x,free}')").await;
    clock.advance(Duration::from_secs(10)).await;
    assert_eq!(hand.complete(&claimed[0]).await, "ok");
    hand.run("insert into divvy.task (task_type) values ('free')").await;
    let seen =
        "select format('%s %s %s', ready, held, oldest_ready) from divvy.type_stats where task_type = 'x'";
    assert_eq!(hand.get::<String>(seen).await, "1 6 00:00:10");
    let lag = "select object from divvy.alert_overview where name = 'lag' order by 1";
    hand.run("update divvy.worker set task_types = '{x,free}', seen_at = divvy.clock(); select divvy.tick()")
        .await;
    assert_eq!(hand.all::<String>(lag).await, Vec::<String>::new());
    // Nobody takes it: that is lag.
    clock.advance(Duration::from_secs(600)).await;
    hand.run("update divvy.worker set task_types = '{x,free}', seen_at = divvy.clock(); select divvy.tick()")
        .await;
    assert_eq!(hand.get::<String>(seen).await, "1 6 00:10:10");
    assert_eq!(hand.all::<String>(lag).await, ["free", "x"]);
}

#[tokio::test]
async fn a_killed_worker_s_slots_come_back_with_its_leases_and_once() {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    let (mut dead, mut alive) = (Hand::new(&db).await, Hand::new(&db).await);
    alive.declare("x", r#"{"max_running": 3, "lease": "30 s"}"#).await;
    alive.run("insert into divvy.task (task_type) select 'x' from generate_series(1, 9)").await;
    let lost = dead.claim("x", 2).await;
    // Its transaction never ends well: what it took in it was never taken.
    dead.run("begin").await;
    assert_eq!(dead.claim("x", 9).await.len(), 1);
    dead.close().await;
    assert_eq!(alive.claim("x", 9).await.len(), 1);
    assert!(alive.claim("x", 9).await.is_empty());
    for _ in 0..9 {
        clock.advance(Duration::from_secs(5)).await;
        alive.run("select divvy.tick()").await;
        alive.run("select * from divvy.lease l, divvy.heartbeat(l.worker, l.split_ids, array_fill(l.token, array[cardinality(l.split_ids)]))
            where l.worker = (select worker from divvy.lease order by token desc limit 1)").await;
    }
    assert_eq!(alive.count("divvy.split where status = 'running'").await, 1, "the living one's");
    assert_eq!(alive.claim("x", 9).await.len(), 2);
    assert!(alive.claim("x", 9).await.is_empty());
    assert_eq!(alive.complete(&lost[0]).await, "DV001");
    assert!(alive.claim("x", 9).await.is_empty(), "a lost token frees nothing");
}

#[tokio::test]
async fn only_claims_of_types_with_limits_take_a_lock() {
    let mut q = Queue::with_types(&["free"]).await;
    q.put("a", json!({"max_running": 2})).await;
    q.enqueue("a").await;
    q.enqueue("free").await;
    let locks = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()";
    q.run("begin").await;
    q.claim("free").await;
    assert_eq!(q.one::<i64>(locks).await, 0);
    q.claim("a").await;
    assert_eq!(q.one::<i64>(locks).await, 1);
    q.run("rollback").await;
    let leases: Vec<bool> = q.all("select limited from divvy.lease").await;
    assert!(leases.is_empty());
}

#[tokio::test]
async fn a_type_that_is_named_twice_gets_its_slots_once() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_running": 2})).await;
    enqueue_many(&mut q, "a", 9).await;
    let claimed: i64 = q.one(format!("select count(*) from divvy.claim('{WORKER}', '{{a,a}}', 9)")).await;
    assert_eq!(claimed, 2);
}
