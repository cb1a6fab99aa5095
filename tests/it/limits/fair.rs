//! Groups take turns whatever lies between them: a tenant is not delayed by what another has put in front of it.

use crate::support::db::TestDb;
use crate::support::hand::{Claimed, Hand};
use crate::support::race::DEADLINE;
use std::collections::BTreeMap;
use std::time::Instant;

const FAIR: &str = r#"{"fair_by_group": true}"#;
/// How far a session looks in each claim, at least.
const LOOK: usize = 2000;

async fn bench(options: &str) -> (TestDb, Hand) {
    let db = TestDb::new().await;
    let mut hand = Hand::new(&db).await;
    hand.declare("x", options).await;
    (db, hand)
}

/// So many plain tasks of a group, each after those that were there.
async fn plain(hand: &mut Hand, group: &str, count: usize) {
    hand.run(&format!(
        "insert into divvy.task (task_type, group_key) select 'x', '{group}' from generate_series(1, {count})"
    ))
    .await;
}

/// So many divided tasks of a group, with a row for each split.
async fn divided(hand: &mut Hand, group: &str, tasks: usize, splits: usize) {
    hand.run(&format!(
        "with made as (insert into divvy.task (task_type, group_key, split_count)
            select 'x', '{group}', {splits} from generate_series(1, {tasks}) returning id)
         select count(*) from made"
    ))
    .await;
    hand.run(&format!("select divvy.write_out_unbegun(id) from divvy.task where group_key = '{group}'"))
        .await;
}

/// How many of each group are among these.
async fn groups(hand: &mut Hand, splits: &[Claimed]) -> BTreeMap<String, usize> {
    let tasks: Vec<String> = splits.iter().map(|split| split.task_id.to_string()).collect();
    let names: Vec<String> = hand
        .all(&format!(
            "select k.group_key from unnest('{{{}}}'::bigint[]) i join divvy.task k on k.id = i",
            tasks.join(",")
        ))
        .await;
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// Claims so often, and says how many of each group it got.
async fn claim(hand: &mut Hand, times: usize, max: usize) -> BTreeMap<String, usize> {
    let mut splits = Vec::new();
    for _ in 0..times {
        splits.extend(hand.claim("x", max).await);
    }
    groups(hand, &splits).await
}

fn of(counts: &BTreeMap<String, usize>, group: &str) -> usize {
    counts.get(group).copied().unwrap_or_default()
}

#[tokio::test]
async fn a_tenant_that_comes_later_waits_at_most_two_claim_rounds_behind_a_flood() {
    let (_db, mut hand) = bench(FAIR).await;
    plain(&mut hand, "a", 100_000).await;
    hand.run("select divvy.tick()").await;
    assert_eq!(of(&claim(&mut hand, 100_000 / LOOK + 1, 10).await, "a"), 510);
    for max in [1, 10, 100] {
        plain(&mut hand, "b", 3 * max).await;
        let got = claim(&mut hand, 2, max).await;
        assert!(of(&got, "b") >= max.div_ceil(2), "{got:?}");
        // And has its part from there on.
        let more = claim(&mut hand, 6, max).await;
        assert_eq!(of(&got, "b") + of(&more, "b"), 3 * max, "{more:?}");
        assert_eq!(of(&claim(&mut hand, 1, max).await, "a"), max);
    }
}

#[tokio::test]
async fn a_tenant_that_comes_again_before_all_of_it_was_served_is_not_forgotten() {
    let (_db, mut hand) = bench(FAIR).await;
    plain(&mut hand, "a", 10_000).await;
    hand.run("select divvy.tick()").await;
    claim(&mut hand, 10_000 / LOOK + 1, 10).await;
    plain(&mut hand, "b", 20).await;
    let mut of_b = of(&claim(&mut hand, 1, 10).await, "b");
    plain(&mut hand, "a", 5_000).await;
    plain(&mut hand, "b", 20).await;
    // What it had waits still when its more is seen, and is served when that is looked for.
    for _ in 0..40 {
        of_b += of(&claim(&mut hand, 1, 10).await, "b");
    }
    assert_eq!(of_b, 40);
}

#[tokio::test]
async fn tenants_between_two_floods_are_found_by_a_session_that_has_just_begun() {
    let (db, mut hand) = bench(FAIR).await;
    let names = ["a", "b", "c", "d", "e"];
    for (group, count) in names.iter().zip([20_000, 200, 200, 200, 20_000]) {
        plain(&mut hand, group, count).await;
    }
    hand.run("select divvy.tick()").await;
    let mut fresh = Hand::new(&db).await;
    // A claim for each window that lies before the last of them.
    claim(&mut fresh, 40_600 / LOOK + 1, 10).await;
    let got = claim(&mut fresh, 10, 10).await;
    for group in names {
        assert_eq!(of(&got, group), 20, "{got:?}");
    }
}

#[tokio::test]
async fn more_tenants_than_a_session_remembers_are_all_served() {
    let (_db, mut hand) = bench(FAIR).await;
    plain(&mut hand, "a", 20_000).await;
    hand.run("insert into divvy.task (task_type, group_key) select 'x', 't' || i % 60 from generate_series(1, 600) i")
        .await;
    hand.run("select divvy.tick()").await;
    let mut got = BTreeMap::new();
    for _ in 0..200 {
        for (group, count) in claim(&mut hand, 1, 10).await {
            *got.entry(group).or_insert(0) += count;
        }
        if got.len() == 61 {
            return;
        }
    }
    panic!("{got:?}");
}

#[tokio::test]
async fn tenants_with_small_divided_tasks_take_turns_too() {
    let (_db, mut hand) = bench(FAIR).await;
    divided(&mut hand, "a", 1_000, 5).await;
    hand.run("select divvy.tick()").await;
    claim(&mut hand, 5_000 / LOOK + 1, 10).await;
    divided(&mut hand, "b", 4, 5).await;
    let got = claim(&mut hand, 2, 10).await;
    assert!(of(&got, "b") >= 5, "{got:?}");
    assert_eq!(of(&got, "b") + of(&claim(&mut hand, 3, 10).await, "b"), 20);
}

#[tokio::test]
async fn tenants_behind_a_flood_have_their_turns_in_claims_of_one_split() {
    let (_db, mut hand) = bench(FAIR).await;
    let names = ["a", "b", "c", "d"];
    for (group, count) in names.iter().zip([500, 50, 50, 50]) {
        plain(&mut hand, group, count).await;
    }
    hand.run("select divvy.tick()").await;
    let got = claim(&mut hand, 60, 1).await;
    for group in names {
        assert!(of(&got, group) >= 8, "{got:?}");
    }
}

#[tokio::test]
async fn who_is_served_of_divided_tasks_decides_nothing_about_plain_ones() {
    let (_db, mut hand) = bench(FAIR).await;
    for _ in 0..10 {
        plain(&mut hand, "a", 5).await;
        plain(&mut hand, "b", 5).await;
    }
    divided(&mut hand, "c", 10, 5).await;
    divided(&mut hand, "d", 10, 5).await;
    hand.run("select divvy.tick()").await;
    let got = claim(&mut hand, 40, 2).await;
    for group in ["a", "b", "c", "d"] {
        assert!(of(&got, group) >= 15, "{got:?}");
    }
}

#[tokio::test]
async fn what_a_tenant_put_in_first_comes_first() {
    let (_db, mut hand) = bench(FAIR).await;
    for _ in 0..20 {
        plain(&mut hand, "a", 500).await;
        plain(&mut hand, "b", 10).await;
        plain(&mut hand, "c", 10).await;
    }
    hand.run("select divvy.tick()").await;
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    for _ in 0..120 {
        for split in hand.claim("x", 10).await {
            let (group, _) = groups(&mut hand, std::slice::from_ref(&split)).await.pop_first().unwrap();
            let before = last.insert(group.clone(), split.task_id);
            assert!(before < Some(split.task_id), "{group}: {before:?}, then {}", split.task_id);
        }
    }
}

#[tokio::test]
async fn each_split_is_claimed_once_by_sessions_that_look_beyond() {
    let (db, mut hand) = bench(FAIR).await;
    for (group, count) in [("a", 1_000), ("b", 100), ("a", 1_000), ("c", 200), ("b", 50)] {
        plain(&mut hand, group, count).await;
    }
    divided(&mut hand, "d", 50, 5).await;
    hand.run("select divvy.tick()").await;
    // As a type whose options have been the same for long.
    hand.run("update divvy.task_type set updated_at = updated_at - interval '1 hour'").await;
    let mut other = Hand::new(&db).await;
    let mut got = Vec::new();
    for turn in 0.. {
        let who = if turn % 2 == 0 { &mut hand } else { &mut other };
        if turn % 7 == 6 {
            who.run("begin").await;
            who.claim("x", 20).await;
            who.run("rollback").await;
        }
        let splits = who.claim("x", 40).await;
        if splits.is_empty() {
            break;
        }
        who.complete_many(&splits[..splits.len() / 2]).await;
        got.extend(splits.iter().map(|split| split.split_id));
    }
    assert_eq!(got.len(), 2_600);
    got.sort_unstable();
    got.dedup();
    assert_eq!(got.len(), 2_600);
}

#[tokio::test]
async fn nobody_exceeds_its_limit_where_claims_look_beyond() {
    let (_db, mut hand) = bench(r#"{"fair_by_group": true, "max_running_per_group": 3}"#).await;
    plain(&mut hand, "a", 5_000).await;
    for group in ["b", "c"] {
        plain(&mut hand, group, 10).await;
    }
    hand.run("select divvy.tick()").await;
    let mut running: Vec<Claimed> = Vec::new();
    let mut of_b = 0;
    for _ in 0..20 {
        let splits = hand.claim("x", 10).await;
        of_b += of(&groups(&mut hand, &splits).await, "b");
        running.extend(splits);
        let counts = groups(&mut hand, &running).await;
        assert!(counts.values().all(|&n| n <= 3), "{counts:?}");
        let ended = running.split_off(running.len() / 2);
        hand.complete_many(&ended).await;
    }
    assert_eq!(of_b, 10);
}

#[tokio::test]
async fn a_tenant_whose_tasks_come_to_light_late_is_found_behind_a_flood() {
    let (db, mut hand) = bench(FAIR).await;
    plain(&mut hand, "a", 5_000).await;
    let mut late = Hand::new(&db).await;
    late.run("begin").await;
    plain(&mut late, "b", 10).await;
    plain(&mut hand, "a", 5_000).await;
    hand.run("select divvy.tick()").await;
    claim(&mut hand, 10_000 / LOOK + 1, 10).await;
    late.run("commit").await;
    let until = Instant::now() + DEADLINE;
    let mut claims = 0;
    while of(&claim(&mut hand, 1, 1).await, "b") == 0 {
        claims += 1;
        assert!(Instant::now() < until && claims < 9_000, "not found in {claims} claims");
    }
}

#[tokio::test]
async fn a_claim_that_saw_no_limit_and_stayed_open_for_long_keeps_its_splits_and_is_in_nobodys_way() {
    for options in [FAIR, r#"{"max_running_per_group": 100}"#] {
        let (db, mut hand) = bench("{}").await;
        plain(&mut hand, "a", 40).await;
        let mut open = Hand::new(&db).await;
        open.run("begin").await;
        let held = open.claim("x", 20).await;
        hand.declare("x", options).await;
        hand.run("update divvy.task_type set updated_at = updated_at - interval '1 day'").await;
        // Knows the leases of the type from here on.
        let mut other = Hand::new(&db).await;
        let mut taken = other.claim("x", 5).await;
        assert_eq!(taken.len(), 5, "{options}: the first ones are locked");
        open.run("commit").await;
        for _ in 0..10 {
            taken.extend(other.claim("x", 5).await);
        }
        let twice =
            taken.iter().filter(|split| held.iter().any(|mine| mine.split_id == split.split_id)).count();
        assert_eq!((held.len(), taken.len(), twice), (20, 20, 0), "{options}");
    }
}

#[tokio::test]
async fn tenants_one_behind_the_other_that_a_session_could_not_remember_all_are_all_served() {
    let (_db, mut hand) = bench(FAIR).await;
    plain(&mut hand, "a", 20_000).await;
    hand.run("insert into divvy.task (task_type, group_key) select 'x', 't' || i / 40 from generate_series(0, 1599) i")
        .await;
    hand.run("select divvy.tick()").await;
    let mut got = BTreeMap::new();
    // Long before those in front have all been served.
    for _ in 0..1_500 {
        for (group, count) in claim(&mut hand, 1, 10).await {
            *got.entry(group).or_insert(0) += count;
        }
        if got.len() == 41 {
            return;
        }
    }
    panic!("{got:?}");
}
