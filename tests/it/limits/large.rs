//! Large tasks of types with limits: their splits are no rows before their turn, and are in nobody's way.

use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::{Claimed, Hand};
use crate::support::race::until_waiting_for_lock;
use std::time::Duration;

/// More than a stretch needs at least.
const SPLITS: i32 = 40;
/// Limits of each kind, none of which holds back anything in a claim or two.
const ROOMY: [&str; 6] = [
    r#"{"max_running": 5000}"#,
    r#"{"rate": {"count": 5000, "per": 1}}"#,
    r#"{"max_running_per_task": 5000}"#,
    r#"{"max_running_per_group": 5000}"#,
    r#"{"fair_by_group": true}"#,
    r#"{"max_running": 5000, "max_running_per_group": 5000, "max_running_per_task": 5000, "fair_by_group": true}"#,
];

async fn bench(options: &str) -> (TestDb, Hand) {
    let db = TestDb::new().await;
    let mut hand = Hand::new(&db).await;
    hand.declare("x", options).await;
    (db, hand)
}

async fn divided(hand: &mut Hand, splits: i32, group: &str) -> i64 {
    hand.insert(&format!("(task_type, split_count, group_key) values ('x', {splits}, '{group}')")).await
}

fn of(splits: &[Claimed], task: i64) -> usize {
    splits.iter().filter(|split| split.task_id == task).count()
}

/// Status and reason of the type's splits, with how many there are of it, by divvy.type_stats' own count and by looking at each.
async fn seen(hand: &mut Hand) -> String {
    let counted: String = hand
        .get("select concat_ws(' ', ready, 'ready', held, 'held', running, 'running') from divvy.type_stats")
        .await;
    let looked: String = hand
        .get(
            "select concat_ws(' ', count(*) filter (where status = 'ready'), 'ready',
                count(*) filter (where status = 'delayed' and reason = 'limit'), 'held',
                count(*) filter (where status = 'running'), 'running') from divvy.split",
        )
        .await;
    assert_eq!(counted, looked);
    counted
}

#[tokio::test]
async fn a_small_task_waits_at_most_two_claim_rounds_whatever_limits_its_type_has() {
    for options in ROOMY {
        for (small, round) in [(10, 10), (SPLITS, SPLITS)] {
            let (_db, mut hand) = bench(options).await;
            let large = divided(&mut hand, 1_000_000, "g").await;
            assert_eq!(hand.claim("x", 500).await.len(), 500, "{options}");
            let later = divided(&mut hand, small, "h").await;
            let mut of_later = 0;
            for _ in 0..2 {
                let got = hand.claim("x", round as usize).await;
                assert_eq!(got.len(), round as usize, "{options}");
                of_later += of(&got, later);
            }
            assert_eq!(of_later, small as usize, "{options}: {small} splits, in rounds of {round}");
            assert_eq!(of(&hand.claim("x", 10).await, large), 10, "{options}");
            let rows = hand.count("divvy.share").await;
            assert!(rows <= 500 + 3 * i64::from(round) + 10, "{options}: {rows} rows");
        }
    }
}

#[tokio::test]
async fn large_tasks_of_one_group_take_turns_too() {
    for options in ROOMY {
        let (_db, mut hand) = bench(options).await;
        let tasks = [
            divided(&mut hand, 5_000, "g").await,
            divided(&mut hand, 60, "g").await,
            divided(&mut hand, 900, "g").await,
        ];
        let mut got = Vec::new();
        for _ in 0..9 {
            let more = hand.claim("x", 20).await;
            assert_eq!(more.len(), 20, "{options}");
            got.extend(more);
        }
        for task in tasks {
            assert!((40..=80).contains(&of(&got, task)), "{options}: {}", of(&got, task));
        }
    }
}

#[tokio::test]
async fn groups_have_equal_parts_of_large_tasks_however_many_they_have() {
    let (_db, mut hand) = bench(r#"{"fair_by_group": true}"#).await;
    for _ in 0..20 {
        divided(&mut hand, 1_000, "many").await;
    }
    let lone = divided(&mut hand, 1_000, "one").await;
    for _ in 0..3 {
        assert_eq!(of(&hand.claim("x", 20).await, lone), 10);
    }
}

#[tokio::test]
async fn max_running_counts_splits_that_have_no_row() {
    let (_db, mut hand) = bench(r#"{"max_running": 10, "max_attempts": 3}"#).await;
    divided(&mut hand, 100, "g").await;
    let splits = hand.claim("x", 99).await;
    assert_eq!(splits.len(), 10);
    assert_eq!(hand.count("divvy.share").await, 0);
    assert_eq!(hand.count("divvy.full_type").await, 1);
    assert!(hand.claim("x", 99).await.is_empty());
    assert_eq!(seen(&mut hand).await, "0 ready 90 held 10 running");
    // Some have a row then, and run on; some end; one waits.
    hand.call("checkpoint", &splits[0], "'1'").await;
    assert!(hand.claim("x", 99).await.is_empty());
    hand.complete_many(&splits[2..5]).await;
    assert_eq!(hand.call("fail", &splits[1], "'{}', true, '1 hour'").await, "ok");
    let more = hand.claim("x", 99).await;
    assert_eq!(more.len(), 4);
    assert!(hand.claim("x", 99).await.is_empty());
    assert_eq!(hand.call("release", &more[0], "").await, "ok");
    assert_eq!(hand.claim("x", 99).await.len(), 1);
    hand.run("select divvy.put_task_type('x', '{\"max_running\": 12}')").await;
    assert_eq!(hand.claim("x", 99).await.len(), 2);
    assert!(hand.claim("x", 99).await.is_empty());
}

#[tokio::test]
async fn a_rate_holds_for_splits_that_have_no_row() {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    let mut hand = Hand::new(&db).await;
    hand.declare("x", r#"{"rate": {"count": 7, "per": 10}}"#).await;
    divided(&mut hand, 100, "g").await;
    assert_eq!(hand.claim("x", 99).await.len(), 7);
    assert!(hand.claim("x", 99).await.is_empty());
    clock.advance(Duration::from_millis(10_020)).await;
    assert_eq!(hand.claim("x", 99).await.len(), 7);
}

/// Both limits that tell one task from another.
const NARROW: [&str; 2] = [r#"{"max_running_per_task": 3}"#, r#"{"max_running_per_group": 3}"#];

#[tokio::test]
async fn a_full_task_is_put_aside_and_each_end_takes_up_as_much() {
    for options in NARROW {
        let (db, mut hand) = bench(options).await;
        let large = divided(&mut hand, 100_000, "g").await;
        let first = hand.claim("x", 99).await;
        assert_eq!(first.len(), 3, "{options}");
        assert!(hand.claim("x", 99).await.is_empty());
        assert_eq!(seen(&mut hand).await, "0 ready 99997 held 3 running");
        assert!(hand.get::<f64>("select extract(epoch from divvy.next_wait('{x}'))::float8").await > 0.0);
        // Others are not in its way.
        let other = divided(&mut hand, SPLITS, "h").await;
        assert_eq!(of(&hand.claim("x", 99).await, other), 3);
        hand.complete_many(&first[..2]).await;
        assert_eq!(hand.get::<f64>("select extract(epoch from divvy.next_wait('{x}'))::float8").await, 0.0);
        assert_eq!(of(&hand.claim("x", 99).await, large), 2, "{options}");
        assert!(hand.claim("x", 99).await.is_empty());
        assert!(hand.count("divvy.share").await <= 20, "{options}");
        // A note that was lost is made up for, by a session that has not done so just now.
        assert_eq!(hand.complete(&first[2]).await, "ok");
        hand.run("delete from divvy.freed").await;
        assert!(hand.claim("x", 99).await.is_empty());
        Hand::new(&db).await.run("select divvy.tick()").await;
        assert_eq!(of(&hand.claim("x", 99).await, large), 1, "{options}");
    }
}

#[tokio::test]
async fn what_is_put_aside_obeys_pause_priority_cancel_and_redrive() {
    for options in NARROW {
        let (_db, mut hand) = bench(options).await;
        let task = divided(&mut hand, 1_000, "g").await;
        let first = hand.claim("x", 99).await;
        assert!(hand.claim("x", 99).await.is_empty());
        hand.run(&format!("select divvy.pause_task({task})")).await;
        hand.complete_many(&first).await;
        assert!(hand.claim("x", 99).await.is_empty());
        assert_eq!(
            hand.get::<String>("select distinct reason from divvy.split where status = 'delayed'").await,
            "paused"
        );
        hand.run(&format!("select divvy.resume_task({task})")).await;
        let more = hand.claim("x", 99).await;
        assert_eq!(more.len(), 3, "{options}");
        assert!(hand.claim("x", 99).await.is_empty());
        hand.run(&format!("select divvy.reschedule({task}, null, 1)")).await;
        assert_eq!(
            hand.get::<String>(
                "select string_agg(distinct priority::text, ' ') from divvy.split where status = 'delayed'"
            )
            .await,
            "1"
        );
        hand.complete_many(&more).await;
        let more = hand.claim("x", 99).await;
        assert_eq!(more.len(), 3, "{options}");
        assert!(hand.claim("x", 99).await.is_empty());
        // One that is wanted by its number becomes a row and is held back as any other.
        let late: i64 = hand.get("select id from divvy.split where split_no = 900").await;
        hand.run(&format!("select divvy.skip_split({late})")).await;
        assert_eq!(seen(&mut hand).await, "0 ready 990 held 3 running");
        hand.run(&format!("select divvy.cancel({task})")).await;
        for split in &more {
            hand.call("fail", split, "'{}', false").await;
        }
        assert_eq!(hand.status(task).await, "cancelled", "{options}");
        hand.run(&format!("select divvy.redrive({task})")).await;
        assert_eq!(hand.claim("x", 99).await.len(), 3, "{options}");
        assert!(hand.claim("x", 99).await.is_empty());
    }
}

#[tokio::test]
async fn a_limit_that_goes_lets_what_is_put_aside_go() {
    for options in NARROW {
        for changed in [
            r#"{"max_running_per_task": null, "max_running_per_group": null}"#,
            r#"{"max_running_per_task": 50, "max_running_per_group": 50}"#,
        ] {
            let (_db, mut hand) = bench(options).await;
            divided(&mut hand, 1_000, "g").await;
            assert_eq!(hand.claim("x", 99).await.len(), 3);
            assert!(hand.claim("x", 99).await.is_empty());
            hand.run(&format!("select divvy.put_task_type('x', '{changed}')")).await;
            assert_eq!(hand.claim("x", 47).await.len(), 47, "{options} to {changed}");
        }
    }
}

#[tokio::test]
async fn a_limit_that_comes_later_counts_what_runs_without_a_row() {
    for options in NARROW {
        let (_db, mut hand) = bench("{}").await;
        let task = divided(&mut hand, 1_000, "g").await;
        let first = hand.claim("x", 5).await;
        hand.run(&format!("select divvy.put_task_type('x', '{options}')")).await;
        assert!(hand.claim("x", 99).await.is_empty(), "{options}");
        hand.complete_many(&first[..2]).await;
        assert!(hand.claim("x", 99).await.is_empty(), "{options}");
        hand.complete_many(&first[2..4]).await;
        assert_eq!(of(&hand.claim("x", 99).await, task), 2, "{options}");
        assert!(hand.claim("x", 99).await.is_empty(), "{options}");
    }
}

#[tokio::test]
async fn claims_of_one_split_take_turns_among_large_tasks() {
    for options in ["{}"].iter().chain(&ROOMY) {
        let (_db, mut hand) = bench(options).await;
        let tasks = [
            divided(&mut hand, 900, "a").await,
            divided(&mut hand, 900, "b").await,
            divided(&mut hand, 300, "c").await,
        ];
        let mut got = Vec::new();
        for _ in 0..12 {
            got.push(hand.claim("x", 1).await.pop().unwrap());
        }
        // A task of many splits lies in four stretches, where its type has no limits.
        for task in tasks {
            assert!((1..=6).contains(&of(&got, task)), "{options}: {}", of(&got, task));
        }
    }
}

#[tokio::test]
async fn groups_take_turns_in_claims_of_one_split() {
    let (_db, mut hand) = bench(r#"{"fair_by_group": true}"#).await;
    for _ in 0..5 {
        divided(&mut hand, 100, "many").await;
    }
    let lone = divided(&mut hand, 1_000, "one").await;
    let mut of_lone = 0;
    for _ in 0..10 {
        of_lone += of(&hand.claim("x", 1).await, lone);
    }
    assert!((4..=6).contains(&of_lone), "{of_lone}");
}

#[tokio::test]
async fn a_large_task_of_a_full_group_leaves_their_turn_to_the_small_ones() {
    let (_db, mut hand) = bench(r#"{"max_running_per_group": 2}"#).await;
    let large = divided(&mut hand, 1_000, "g").await;
    divided(&mut hand, 10, "g").await;
    divided(&mut hand, SPLITS, "g").await;
    hand.run("insert into divvy.task (task_type, group_key) select 'x', 'g' from generate_series(1, 5)")
        .await;
    let mut of_large = 0;
    for _ in 0..60 {
        let splits = hand.claim("x", 50).await;
        assert_eq!(splits.len(), 2);
        of_large += of(&splits, large);
        hand.complete_many(&splits).await;
    }
    assert_eq!(hand.count("divvy.task where finished_at is null").await, 1);
    assert!(of_large >= 10, "{of_large}");
}

#[tokio::test]
async fn a_lease_that_comes_while_limits_change_loses_no_split() {
    for options in NARROW {
        let (db, mut hand) = bench("{}").await;
        divided(&mut hand, 100, "g").await;
        let first = hand.claim("x", 2).await;
        // Somebody ends splits of another lease, which shares its lock with this one.
        let mut other = Hand::new(&db).await;
        other.run("begin").await;
        other.run(&format!("select divvy.lock_rowless({}, false)", first[0].token + 256)).await;
        let mut changer = Hand::new(&db).await;
        let (pid, sql) = (changer.pid, format!("select divvy.put_task_type('x', '{options}')"));
        let changing = tokio::spawn(async move { changer.run(&sql).await });
        until_waiting_for_lock(db.pool(), pid).await;
        let second = hand.claim("x", 2).await;
        assert_eq!(second.len(), 2);
        other.run("commit").await;
        changing.await.unwrap();
        assert_eq!(hand.count("divvy.split").await, 100, "{options}");
        hand.run("select divvy.tick()").await;
        assert!(hand.claim("x", 99).await.is_empty(), "{options}");
        assert_eq!(hand.complete_many(&[first, second].concat()).await, vec!["ok"; 4], "{options}");
        assert_eq!(hand.claim("x", 99).await.len(), 3, "{options}");
    }
}

#[tokio::test]
async fn a_claim_that_counts_by_the_old_limits_counts_by_the_new_ones_too() {
    for options in NARROW {
        let (db, mut hand) = bench(r#"{"max_running": 10}"#).await;
        divided(&mut hand, 100, "g").await;
        hand.run("begin").await;
        assert_eq!(hand.claim("x", 5).await.len(), 5);
        let mut changer = Hand::new(&db).await;
        let (pid, sql) = (changer.pid, format!("select divvy.put_task_type('x', '{options}')"));
        let changing = tokio::spawn(async move { changer.run(&sql).await });
        until_waiting_for_lock(db.pool(), pid).await;
        hand.run("commit").await;
        changing.await.unwrap();
        assert!(hand.claim("x", 99).await.is_empty(), "{options}");
    }
}

#[tokio::test]
async fn of_a_full_task_no_more_rows_are_made_than_may_run() {
    for options in NARROW {
        let (_db, mut hand) = bench(options).await;
        divided(&mut hand, 1_000, "g").await;
        let mut running = hand.claim("x", 99).await;
        for _ in 0..4 {
            assert_eq!(running.len(), 3, "{options}");
            let ended = running.remove(0);
            assert_eq!(hand.complete(&ended).await, "ok");
            running.extend(hand.claim("x", 99).await);
            assert_eq!(hand.count("divvy.share where state = 'delayed'").await, 0, "{options}");
        }
    }
}
