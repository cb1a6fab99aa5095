//! A claim writes one lease and no split; a good end writes its split once. Who holds what shows all the same.

use super::{bench, bench_in};
use crate::support::both::over_both;
use crate::support::db::TestDb;
use crate::support::hand::{Claimed, Hand};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

over_both! { a_leased_split_shows_as_running_wherever_somebody_looks }

/// Where a task's row lies, and who wrote it.
const VERSIONS: &str = "select id || ' ' || ctid || ' ' || xmin from divvy.task
    union all select id || ' ' || ctid || ' ' || xmin from divvy.share order by 1";

/// What this session has updated in divvy.task and divvy.share, and how much of that without a new entry in any index: as
/// far as it has not reported it yet, so take the difference within a transaction.
async fn updates(hand: &mut Hand) -> (i64, i64) {
    let sums: Vec<i64> = hand
        .get(
            "select array[sum(n_tup_upd)::bigint, sum(n_tup_hot_upd)::bigint] from pg_stat_xact_user_tables
              where schemaname = 'divvy' and relname in ('task', 'share')",
        )
        .await;
    (sums[0], sums[1])
}

/// What completing these splits, which must end well, updates.
async fn updates_of_their_ends(hand: &mut Hand, splits: &[Claimed]) -> (i64, i64) {
    hand.run("begin").await;
    let before = updates(hand).await;
    assert!(hand.complete_many(splits).await.iter().all(|v| v == "ok"));
    let after = updates(hand).await;
    hand.run("commit").await;
    (after.0 - before.0, after.1 - before.1)
}

fn ids(splits: &[Claimed]) -> HashSet<i64> {
    splits.iter().map(|s| s.split_id).collect()
}

#[tokio::test]
async fn a_claim_writes_no_split_row() {
    let mut b = bench("{}").await;
    b.hand.run("insert into divvy.task (task_type) select 'x' from generate_series(1, 50)").await;
    b.hand.divided("x", 50).await;
    let before = b.hand.all::<String>(VERSIONS).await;
    b.hand.run("begin").await;
    let written = updates(&mut b.hand).await;
    assert_eq!(b.hand.claim("x", 100).await.len(), 100);
    assert_eq!(updates(&mut b.hand).await, written);
    b.hand.run("commit").await;
    assert_eq!(b.hand.all::<String>(VERSIONS).await, before);
    assert_eq!(b.hand.count("divvy.lease").await, 2, "one for plain tasks, one for shares");
}

#[tokio::test]
async fn a_good_end_is_one_update_that_no_index_notices() {
    let mut b = bench("{}").await;
    b.hand.run("insert into divvy.task (task_type, payload) select 'x', '{\"n\": 1}' from generate_series(1, 200)").await;
    let splits = b.hand.claim("x", 200).await;
    assert_eq!(updates_of_their_ends(&mut b.hand, &splits).await, (200, 200), "plain tasks");
    assert_eq!(b.hand.count("divvy.lease").await, 0);

    // Not the last of its task, which sets off more.
    b.hand.divided_into_rows("x", 201).await;
    let splits = b.hand.claim("x", 200).await;
    assert_eq!(updates_of_their_ends(&mut b.hand, &splits).await, (200, 200), "shares");
    assert_eq!(b.hand.count("divvy.lease").await, 0);
}

#[tokio::test]
async fn what_its_end_says_of_a_split_is_what_its_lease_said() {
    let mut b = bench("{}").await;
    b.hand.insert("(task_type) values ('x')").await;
    b.hand.divided("x", 1).await;
    let row = "select id || ' ' || token || ' ' || worker || ' ' || started_at || ' ' || attempt from divvy.split order by id";
    let splits = b.hand.claim("x", 2).await;
    let running = b.hand.all::<String>(row).await;
    assert_eq!(running.len(), 2);
    b.clock.advance(Duration::from_secs(1)).await;
    assert_eq!(b.hand.complete_many(&splits).await, ["ok", "ok"]);
    assert_eq!(b.hand.all::<String>(row).await, running);
    let attempts =
        b.hand.count("divvy.split_attempt where outcome = 'succeeded' and finished_at > started_at").await;
    assert_eq!(attempts, 2);
}

async fn a_leased_split_shows_as_running_wherever_somebody_looks(db: Arc<TestDb>) {
    let mut b = bench_in(db, "{}").await;
    let plain = b.hand.insert("(task_type) values ('x')").await;
    let divided = b.hand.divided("x", 3).await;
    let splits = b.hand.claim("x", 2).await;
    assert_eq!(splits.len(), 2);
    let worker = b.hand.worker;
    let waiting = 4 - 2;
    for split in &splits {
        let says_otherwise = format!("divvy.unit where id = {} and state <> 'ready'", split.split_id);
        assert_eq!(b.duty.count(&says_otherwise).await, 0, "no row knows of it");
        for view in [
            format!("divvy.split where id = {}", split.split_id),
            format!("divvy.split_overview where split_id = {}", split.split_id),
        ] {
            let says = format!(
                "{view} and status = 'running' and token = {} and worker = '{worker}' and started_at = divvy.clock() and attempt = 1",
                split.token
            );
            assert_eq!(b.duty.count(&says).await, 1, "{says}");
        }
        assert_eq!(b.duty.count(&format!("divvy.split_overview where split_id = {} and lease_until > divvy.clock() and worker_name = 'hand'", split.split_id)).await, 1);
        assert_eq!(
            b.duty
                .count(&format!(
                    "divvy.split_attempt where split_id = {} and outcome = 'running' and token = {}",
                    split.split_id, split.token
                ))
                .await,
            1
        );
    }
    assert_eq!(b.duty.count("divvy.split where status = 'running'").await, 2);
    let counts: String = b
        .duty
        .get("select ready || ' ' || running || ' ' || delayed from divvy.type_stats where task_type = 'x'")
        .await;
    assert_eq!(counts, format!("{waiting} 2 0"));
    assert_eq!(
        b.duty
            .get::<i64>(&format!("select leased from divvy.worker_overview where worker = '{worker}'"))
            .await,
        2
    );
    let mut seen = 0;
    for (task, of) in [(plain, 1), (divided, 3)] {
        let mine = splits.iter().filter(|s| s.task_id == task).count();
        let progress: String = b
            .duty
            .get(&format!("select ready || ' ' || running from divvy.task_progress where task_id = {task}"))
            .await;
        assert_eq!(progress, format!("{} {mine}", of - mine));
        seen += mine;
    }
    assert_eq!(seen, 2);
}

#[tokio::test]
async fn a_new_session_finds_at_once_what_a_rolled_back_claim_left_behind_others() {
    let mut b = bench("{}").await;
    b.hand.run("insert into divvy.task (task_type) select 'x' from generate_series(1, 30)").await;
    let mut further = Hand::new(&b.db).await;
    b.hand.run("begin").await;
    let given_back = b.hand.claim("x", 10).await;
    let held = further.claim("x", 10).await;
    assert!(ids(&given_back).is_disjoint(&ids(&held)));
    b.hand.run("rollback").await;
    let got = Hand::new(&b.db).await.claim("x", 30).await;
    assert_eq!(got.len(), 20);
    assert!(ids(&given_back).is_subset(&ids(&got)) && ids(&held).is_disjoint(&ids(&got)));
}

#[tokio::test]
async fn two_workers_at_different_positions_share_what_comes_and_what_is_given_back() {
    let mut b = bench("{}").await;
    let mut behind = Hand::new(&b.db).await;
    b.hand.run("insert into divvy.task (task_type) select 'x' from generate_series(1, 200)").await;
    let first = behind.claim("x", 10).await;
    let ahead = b.hand.claim("x", 150).await;
    let rest = behind.claim("x", 100).await;
    assert_eq!((first.len(), ahead.len(), rest.len()), (10, 150, 40));
    let all: HashSet<i64> = [&first, &ahead, &rest].into_iter().flat_map(|s| ids(s)).collect();
    assert_eq!(all.len(), 200);
    // What one gives back the other finds, wherever it is, and nobody finds what is still held.
    for split in &ahead[..50] {
        assert_eq!(b.hand.call("release", split, "").await, "ok");
    }
    assert_eq!(ids(&behind.claim("x", 100).await), ids(&ahead[..50]));
    for split in &first {
        assert_eq!(behind.call("release", split, "").await, "ok");
    }
    assert_eq!(ids(&b.hand.claim("x", 100).await), ids(&first));
    assert!(b.hand.claim("x", 100).await.is_empty() && behind.claim("x", 100).await.is_empty());
}

#[tokio::test]
async fn a_claim_in_a_transaction_with_an_old_snapshot_is_refused() {
    let mut b = bench("{}").await;
    b.hand.insert("(task_type) values ('x')").await;
    for level in ["repeatable read", "serializable"] {
        let mut old = Hand::new(&b.db).await;
        old.run(&format!("begin isolation level {level}; select count(*) from divvy.task")).await;
        // It would not see this lease.
        let split = b.hand.claim_one("x").await;
        let claim = format!("select divvy.claim('{}', '{{x}}')", old.worker);
        assert_eq!(old.code(&claim).await, "DV010");
        old.run("rollback").await;
        assert_eq!(b.hand.call("release", &split, "").await, "ok");
    }
}

#[tokio::test]
async fn a_session_with_an_old_snapshot_raises_no_mark() {
    let mut b = bench("{}").await;
    let mark = "select mark from divvy.lane where task_type = 'x' and lane = 2";
    let mut old = Hand::new(&b.db).await;
    b.hand.insert("(task_type) values ('x')").await;
    let split = b.hand.claim_one("x").await;
    assert_eq!(b.hand.complete(&split).await, "ok");
    b.duty.run("select divvy.advance_low_water()").await;
    let before = b.duty.get::<i64>(mark).await;
    old.run("begin isolation level repeatable read; select count(*) from divvy.task").await;
    old.run("select divvy.raise_marks('x', null, 0)").await;
    old.run("commit").await;
    assert_eq!(b.duty.get::<i64>(mark).await, before);
    b.duty.run("select divvy.raise_marks('x', null, 0)").await;
    assert!(b.duty.get::<i64>(mark).await > before);
}

#[tokio::test]
async fn max_waiting_does_not_count_what_is_leased() {
    let mut b = bench(r#"{"max_waiting": 3}"#).await;
    let insert = "insert into divvy.task (task_type) values ('x')";
    for _ in 0..3 {
        b.hand.run(insert).await;
    }
    assert_eq!(b.hand.code(insert).await, "DV003");
    assert_eq!(b.hand.claim("x", 2).await.len(), 2);
    for _ in 0..2 {
        assert_eq!(b.hand.code(insert).await, "ok");
    }
    assert_eq!(b.hand.code(insert).await, "DV003", "three wait again");
    // What is written down, or has ended, is counted once, though its lease may name it still.
    let more = b.hand.claim("x", 2).await;
    assert_eq!(b.hand.call("checkpoint", &more[0], "'1'").await, "ok");
    b.duty.run("begin; select from divvy.lease for update").await;
    assert_eq!(b.hand.complete(&more[1]).await, "ok");
    b.duty.run("commit").await;
    for _ in 0..2 {
        assert_eq!(b.hand.code(insert).await, "ok");
    }
    assert_eq!(b.hand.code(insert).await, "DV003");
}

#[tokio::test]
async fn a_split_that_runs_long_is_written_down_and_the_mark_passes_it() {
    let mut b = bench("{}").await;
    let marks = "select divvy.advance_low_water(), divvy.raise_marks('x', null, 0)";
    let mark = "select mark from divvy.lane where task_type = 'x' and lane = 2";
    b.hand.insert("(task_type) values ('x')").await;
    let long = b.hand.claim_one("x").await;
    b.hand.run("insert into divvy.task (task_type) select 'x' from generate_series(1, 10)").await;
    let short = b.hand.claim("x", 10).await;
    assert!(b.hand.complete_many(&short).await.iter().all(|v| v == "ok"));
    let key: i64 = b.hand.get(&format!("select key from divvy.task where id = {}", long.split_id)).await;
    b.duty.run("select divvy.write_down_old()").await;
    b.duty.run(marks).await;
    assert_eq!(b.duty.get::<i64>(mark).await, key - 1, "young leases are left alone");
    b.clock.advance(Duration::from_secs(3)).await;
    assert_eq!(b.duty.get::<i32>("select divvy.write_down_old()").await, 1);
    b.duty.run(marks).await;
    assert!(b.duty.get::<i64>(mark).await > key);
    assert_eq!(b.duty.get::<i32>("select divvy.write_down_old()").await, 0, "once");
    // It is held as before, and lost as before.
    assert_eq!(
        b.duty
            .count(&format!(
                "divvy.split where status = 'running' and token = {} and worker = '{}'",
                long.token, b.hand.worker
            ))
            .await,
        1
    );
    assert_eq!(b.beat(long.split_id, long.token).await[0].as_deref(), Some("ok"));
    b.pass(35).await;
    let again = Hand::new(&b.db).await.claim_one("x").await;
    assert_eq!((again.split_id, again.attempt), (long.split_id, 2), "behind the mark nothing is lost");
    assert_eq!(b.hand.complete(&long).await, "DV001");
}
