//! Large tasks: splits that are no rows until something befalls them, and nobody notices.

mod added;
mod dropped;
mod lookup;
mod overview;
mod runs;

use crate::lease::let_time_pass;
use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::{Claimed, Hand};
use crate::support::race::until_waiting_for_lock;

/// More than a stretch needs at least.
const SPLITS: i32 = 40;

async fn bench() -> (TestDb, Hand) {
    let db = TestDb::new().await;
    let mut hand = Hand::new(&db).await;
    hand.declare("x", r#"{"lease": "5 s", "reduce": true, "max_failed": 1000}"#).await;
    (db, hand)
}

fn numbers(splits: &[Claimed]) -> Vec<i32> {
    splits.iter().map(|split| split.split_no).collect()
}

async fn statuses(hand: &mut Hand, task: i64) -> Vec<String> {
    hand.all(&format!(
        "select count(*) || ' ' || status from divvy.split where task_id = {task} and phase = 'execute' group by status order by 1"
    ))
    .await
}

#[tokio::test]
async fn a_million_splits_come_in_as_a_few_rows_and_look_like_a_million() {
    let (_db, mut hand) = bench().await;
    let task = hand.divided("x", 1_000_000).await;
    assert_eq!(hand.count("divvy.share").await, 0);
    assert!(hand.count("divvy.stretch").await <= 4);
    let shown: Vec<i64> =
        hand.get("select array[splits, ready, running, succeeded] from divvy.task_progress").await;
    assert_eq!(shown, [1_000_000, 1_000_000, 0, 0]);
    assert_eq!(hand.get::<i64>("select ready from divvy.type_stats").await, 1_000_000);
    let splits = hand.claim("x", 100).await;
    let verdicts = hand.complete_many(&splits[..60]).await;
    assert!(verdicts.iter().all(|verdict| verdict == "ok"));
    let shown: Vec<i64> =
        hand.get("select array[splits, ready, running, succeeded] from divvy.task_progress").await;
    assert_eq!(shown, [1_000_000, 999_900, 40, 60]);
    assert_eq!(hand.get::<i64>("select leased from divvy.worker_overview").await, 40);
    assert_eq!(hand.count("divvy.share").await, 0, "none of them needed a row");
    assert_eq!(hand.count(&format!("divvy.split where task_id = {task} and split_no <= 200")).await, 200);
}

#[tokio::test]
async fn a_small_task_waits_at_most_two_claim_rounds_for_a_million_splits_that_came_first() {
    for (small, round) in [(10, 10), (SPLITS, SPLITS), (SPLITS, 2 * SPLITS)] {
        let (_db, mut hand) = bench().await;
        let large = hand.divided("x", 1_000_000).await;
        hand.claim("x", 500).await;
        let later = hand.divided("x", small).await;
        let mut of_later = 0;
        for _ in 0..2 {
            // As if its last look behind its position were long ago: there it meets the large one alone, if anybody.
            hand.run("select set_config('divvy.position_' || no, '', false) from divvy.task_type").await;
            let got = hand.claim("x", round as usize).await;
            assert_eq!(got.len(), round as usize);
            of_later += got.iter().filter(|split| split.task_id == later).count();
        }
        assert_eq!(of_later, small as usize, "{small} splits, in rounds of {round}");
        assert!(hand.claim("x", 10).await.iter().all(|split| split.task_id == large));
    }
}

#[tokio::test]
async fn a_small_task_waits_at_most_two_claim_rounds_for_splits_of_a_large_one_that_wait_again() {
    for options in ["{}", r#"{"max_running": 10000}"#, r#"{"fair_by_group": true}"#] {
        for again in ["redrive", "retry"] {
            let db = TestDb::new().await;
            let mut hand = Hand::new(&db).await;
            hand.declare("x", options).await;
            let large = hand.divided("x", 500).await;
            hand.run(&format!(
                "select divvy.fail(split_id, token, '{{}}', {}) from divvy.claim('{}', '{{x}}', 500)",
                if again == "retry" { "retry_in => '0 s'" } else { "false" },
                hand.worker
            ))
            .await;
            hand.run(if again == "retry" {
                "select divvy.promote()"
            } else {
                "select divvy.redrive(max(id)) from divvy.task"
            })
            .await;
            assert_eq!(
                hand.count("divvy.share where state = 'ready' and key > 0").await,
                500,
                "{again} {options}"
            );
            for _ in 0..2 {
                let later = hand.divided("x", 10).await;
                let got = [hand.claim("x", 20).await, hand.claim("x", 20).await].concat();
                assert_eq!(got.len(), 40);
                assert_eq!(got.iter().filter(|s| s.task_id == later).count(), 10, "{again} {options}");
                assert!(got.iter().any(|s| s.task_id == large), "both have their parts");
            }
        }
    }
}

#[tokio::test]
async fn a_small_task_has_its_turn_behind_more_large_ones_than_a_claim_looks_at() {
    let (_db, mut hand) = bench().await;
    for _ in 0..8 {
        hand.divided("x", 100_000).await;
    }
    let small = hand.divided("x", SPLITS).await;
    let mut of_small = 0;
    for _ in 0..30 {
        of_small += hand.claim("x", 80).await.iter().filter(|split| split.task_id == small).count();
    }
    assert_eq!(of_small, SPLITS as usize);
}

#[tokio::test]
async fn tasks_of_any_size_have_equal_parts_of_a_claim() {
    let (_db, mut hand) = bench().await;
    let tasks = [hand.divided("x", 5_000).await, hand.divided("x", 60).await, hand.divided("x", 1_500).await];
    let got = hand.claim("x", 90).await;
    for task in tasks {
        assert_eq!(got.iter().filter(|split| split.task_id == task).count(), 30);
    }
    // What one does not need is the others'.
    hand.claim("x", 90).await;
    assert_eq!(hand.claim("x", 90).await.len(), 90);
}

#[tokio::test]
async fn payloads_are_those_that_were_given_or_follow_from_the_rule() {
    let (_db, mut hand) = bench().await;
    let given = hand
        .insert("(task_type, splits) select 'x', jsonb_agg(jsonb_build_object('n', i, 'text', repeat('y', i % 7 * 300))) from generate_series(1, 250) i")
        .await;
    let ranged = hand.insert("(task_type, split_range, split_size) values ('x', '[100,10000)', 100)").await;
    let payloads: Vec<String> = hand
        .all("select task_id || ' ' || split_no || ' ' || split_payload from divvy.claim((select id from divvy.worker), '{x}', 500)")
        .await;
    assert_eq!(payloads.len(), 250 + 99);
    for n in 1..=250 {
        let text = "y".repeat(n % 7 * 300);
        let wanted = format!(r#"{given} {n} {{"n": {n}, "text": "{text}"}}"#);
        assert!(payloads.contains(&wanted), "{wanted}");
    }
    for n in 1..=99 {
        let wanted = format!(r#"{ranged} {n} {{"hi": {}, "lo": {}}}"#, (100 + n * 100).min(10_000), n * 100);
        assert!(payloads.contains(&wanted), "{wanted}");
    }
}

#[tokio::test]
async fn a_lease_that_ends_gives_back_what_has_not_ended_and_nothing_else() {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    let (mut hand, mut duty) = (Hand::new(&db).await, Hand::new(&db).await);
    hand.declare("x", r#"{"lease": "5 s", "backoff": {"kind": "fixed", "base": 0, "jitter": 0}}"#).await;
    let task = hand.divided("x", SPLITS).await;
    let splits = hand.claim("x", SPLITS as usize).await;
    let (ended, left): (Vec<_>, Vec<_>) = splits.iter().cloned().partition(|split| split.split_no % 3 == 0);
    assert!(hand.complete_many(&ended).await.iter().all(|verdict| verdict == "ok"));
    let_time_pass(&clock, &mut duty, 20).await;
    assert_eq!(statuses(&mut hand, task).await, ["13 succeeded", "27 ready"]);
    assert!(hand.complete_many(&left).await.iter().all(|verdict| verdict == "lost"));
    assert!(hand.complete_many(&ended).await.iter().all(|verdict| verdict != "ok"), "they have ended");
    let again = hand.claim("x", 100).await;
    assert_eq!(again.len(), left.len());
    assert!(again.iter().all(|split| split.attempt == 2));
    assert!(hand.complete_many(&again).await.iter().all(|verdict| verdict == "ok"));
    assert_eq!(hand.status(task).await, "succeeded");
    assert_eq!(hand.count("divvy.lease").await, 0);
}

#[tokio::test]
async fn a_lease_of_which_a_split_ends_in_an_open_transaction_is_left_alone_until_that_commits() {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    let (mut hand, mut first, mut duty) = (Hand::new(&db).await, Hand::new(&db).await, Hand::new(&db).await);
    hand.declare("x", r#"{"lease": "5 s", "backoff": {"kind": "fixed", "base": 0, "jitter": 0}}"#).await;
    let task = hand.divided("x", SPLITS).await;
    let splits = hand.claim("x", SPLITS as usize).await;
    // The first to end one has the lease's row; the second does not get it, and is still open when it is free again.
    first.run("begin").await;
    assert_eq!(first.complete(&splits[5]).await, "ok");
    hand.run("begin").await;
    assert_eq!(hand.complete(&splits[6]).await, "ok");
    first.run("commit").await;
    let_time_pass(&clock, &mut duty, 20).await;
    assert_eq!(statuses(&mut duty, task).await, ["1 succeeded", "39 running"]);
    hand.run("commit").await;
    let_time_pass(&clock, &mut duty, 5).await;
    assert_eq!(statuses(&mut duty, task).await, ["2 succeeded", "38 ready"]);
}

#[tokio::test]
async fn splits_of_one_lease_that_end_in_open_transactions_wait_for_nobody() {
    let (db, mut hand) = bench().await;
    let (mut a, mut b) = (Hand::new(&db).await, Hand::new(&db).await);
    let task = hand.divided("x", SPLITS).await;
    let splits = hand.claim("x", SPLITS as usize).await;
    a.run("begin").await;
    b.run("begin").await;
    assert_eq!(a.complete(&splits[3]).await, "ok");
    assert_eq!(b.complete(&splits[4]).await, "ok");
    assert_eq!(hand.complete(&splits[5]).await, "ok");
    b.run("rollback").await;
    a.run("commit").await;
    let mut rest: Vec<Claimed> = splits.clone();
    rest.retain(|split| split.split_no != 4 && split.split_no != 6);
    assert!(hand.complete_many(&rest).await.iter().all(|verdict| verdict == "ok"));
    assert_eq!(statuses(&mut hand, task).await, ["40 succeeded"]);
    assert_eq!(hand.claim_one("x").await.phase, "reduce");
}

#[tokio::test]
async fn the_same_splits_ended_twice_at_once_end_once() {
    let (db, mut hand) = bench().await;
    let mut other = Hand::new(&db).await;
    hand.divided("x", SPLITS).await;
    let splits = hand.claim("x", SPLITS as usize).await;
    hand.run("begin").await;
    assert!(hand.complete_many(&splits[..20]).await.iter().all(|verdict| verdict == "ok"));
    let (pid, same) = (other.pid, splits[10..30].to_vec());
    let completing = tokio::spawn(async move { other.complete_many(&same).await });
    until_waiting_for_lock(db.pool(), pid).await;
    hand.run("commit").await;
    let verdicts = completing.await.unwrap();
    assert_eq!(verdicts.iter().filter(|verdict| *verdict == "ok").count(), 10, "{verdicts:?}");
    assert_eq!(hand.count("divvy.split where status = 'succeeded'").await, 30);
}

#[tokio::test]
async fn a_pause_a_priority_a_skip_and_a_cancel_reach_what_nobody_has_begun() {
    let (_db, mut hand) = bench().await;
    let task = hand.divided("x", 2_000).await;
    let first = hand.claim("x", 5).await;
    hand.run(&format!("select divvy.pause_task({task})")).await;
    assert_eq!(statuses(&mut hand, task).await, ["1995 delayed", "5 running"]);
    assert!(hand.claim("x", 5).await.is_empty());
    hand.run(&format!("select divvy.resume_task({task})")).await;
    hand.run(&format!(r#"select divvy.update_task({task}, '{{"priority": 1}}')"#)).await;
    let urgent = hand.divided("x", 2_000).await;
    assert!(hand.claim("x", 10).await.iter().all(|split| split.task_id == task), "not {urgent}");
    let skipped: i64 =
        hand.get(&format!("select id from divvy.split where task_id = {task} and split_no = 900")).await;
    hand.run(&format!("select divvy.skip_split({skipped})")).await;
    assert_eq!(hand.code(&format!("select divvy.skip_split({})", skipped + 1_000_000)).await, "DV011");
    hand.run(&format!("select divvy.cancel({task})")).await;
    let left: Vec<String> = statuses(&mut hand, task).await;
    assert_eq!(left, ["1 skipped", "15 running", "1984 cancelled"]);
    assert_eq!(hand.complete(&first[0]).await, "ok", "what runs may still end");
    assert_eq!(
        hand.count(
            "divvy.stretch where first_no <= last_no and share_of <> (select max(id) from divvy.task)"
        )
        .await,
        0
    );
}

#[tokio::test]
async fn limits_that_come_later_count_what_runs_without_a_row() {
    let (_db, mut hand) = bench().await;
    hand.divided("x", 2_000).await;
    let running = hand.claim("x", 8).await;
    hand.declare("x", r#"{"max_running": 10}"#).await;
    assert_eq!(hand.claim("x", 100).await.len(), 2);
    assert!(hand.claim("x", 100).await.is_empty());
    assert!(hand.complete_many(&running).await.iter().all(|verdict| verdict == "ok"));
    assert_eq!(hand.claim("x", 100).await.len(), 8);
}

#[tokio::test]
async fn a_reduce_reads_every_split_in_order_whatever_befell_it() {
    let (_db, mut hand) = bench().await;
    hand.divided("x", 2_500).await;
    let mut seen = 0;
    while seen < 2_500 {
        let splits = hand.claim("x", 300).await;
        seen += splits.len();
        for split in splits.iter().filter(|split| split.split_no % 500 == 0) {
            assert_eq!(hand.call("fail", split, "'{\"class\": \"odd\"}', false").await, "ok");
        }
        let ended: Vec<&Claimed> = splits.iter().filter(|split| split.split_no % 500 != 0).collect();
        let columns = |of: &dyn Fn(&Claimed) -> i64| {
            ended.iter().map(|split| of(split).to_string()).collect::<Vec<_>>().join(",")
        };
        hand.run(&format!(
            "select divvy.complete_many('{{{}}}', '{{{}}}', '[{}]')",
            columns(&|split| split.split_id),
            columns(&|split| split.token),
            columns(&|split| i64::from(split.split_no) * 2)
        ))
        .await;
    }
    let reduce = hand.claim_one("x").await;
    assert_eq!(reduce.phase, "reduce");
    let mut after = 0;
    let mut all = Vec::new();
    loop {
        let page: Vec<String> = hand
            .all(&format!(
                "select concat_ws(' ', split_no, status, result, error ->> 'class') from divvy.reduce_inputs({}, {}, {after}, 700)",
                reduce.split_id, reduce.token
            ))
            .await;
        if page.is_empty() {
            break;
        }
        after += page.len();
        all.extend(page);
    }
    let wanted: Vec<String> = (1..=2_500)
        .map(|n| if n % 500 == 0 { format!("{n} failed odd") } else { format!("{n} succeeded {}", n * 2) })
        .collect();
    assert_eq!(all, wanted);
}

#[tokio::test]
async fn a_restored_database_without_its_sequences_gives_no_id_twice() {
    let (_db, mut hand) = bench().await;
    hand.divided("x", SPLITS).await;
    hand.divided("x", 3_000).await;
    let ended = hand.claim("x", 10).await;
    hand.complete_many(&ended).await;
    let ids = "select max(id) from divvy.split where task_id = (select max(id) from divvy.task)";
    for sequence in ["id_256", "id_4096", "id_65536", "id_1048576"] {
        hand.run(&format!("alter sequence divvy.{sequence} restart")).await;
    }
    hand.run("select divvy.repair_ids()").await;
    for splits in [SPLITS, 3_000] {
        hand.divided("x", splits).await;
        let newest: i64 = hand.get(ids).await;
        let same =
            format!("(select id from divvy.split group by id having count(*) > 1) x where id <= {newest}");
        assert_eq!(hand.count(&same).await, 0);
    }
}

#[tokio::test]
async fn what_was_forgotten_or_is_past_its_retention_leaves_nothing() {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    let mut hand = Hand::new(&db).await;
    hand.declare("x", r#"{"retention": {"succeeded": "1 hour"}}"#).await;
    let task = hand
        .insert("(task_type, splits) select 'x', jsonb_agg('secret'::text) from generate_series(1, 40)")
        .await;
    let splits = hand.claim("x", SPLITS as usize).await;
    assert!(hand.complete_many(&splits).await.iter().all(|verdict| verdict == "ok"));
    assert_eq!(hand.status(task).await, "succeeded");
    hand.run(&format!("select divvy.forget({task})")).await;
    assert_eq!(hand.count("divvy.split where payload is not null or result is not null").await, 0);
    clock.advance(std::time::Duration::from_secs(7_200)).await;
    for _ in 0..3 {
        hand.run("select divvy.prune()").await;
    }
    for table in ["task", "share", "stretch", "given", "ended", "dropped", "lease"] {
        assert_eq!(hand.count(&format!("divvy.{table}")).await, 0, "{table}");
    }
}
