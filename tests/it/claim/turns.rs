//! Many types in one claim: whose turn it is, and that none is overlooked.

use super::{bench, by_type, fill};
use crate::support::hand::{Claimed, Hand};
use crate::support::race::until;
use std::collections::HashMap;

/// Names of so many types, declared.
async fn many(count: usize) -> (crate::support::db::TestDb, Hand, String) {
    let names: Vec<String> = (1..=count).map(|no| format!("t{no}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (db, hand) = bench(&names).await;
    (db, hand, names.join(","))
}

/// A claim that finds something. One that comes soon after looks in vain need not look at all types again.
async fn found(hand: &mut Hand, types: &str, most: usize) -> Vec<Claimed> {
    let mut got = Vec::new();
    until("a claim finds something", async || {
        got = hand.claim(types, most).await;
        !got.is_empty()
    })
    .await;
    got
}

/// How many claims of 100 until all three splits of `late` are taken, beside two types that have plenty.
async fn claims_until_taken(types: usize, late: &str) -> usize {
    let (_db, mut hand, all) = many(types).await;
    fill(&mut hand, "t1", 5_000).await;
    fill(&mut hand, "t2", 5_000).await;
    for _ in 0..5 {
        assert_eq!(hand.claim(&all, 100).await.len(), 100);
    }
    fill(&mut hand, late, 3).await;
    let mut taken = 0;
    for claim in 1..=80 {
        let got = hand.claim(&all, 100).await;
        assert_eq!(got.len(), 100);
        taken += by_type(&got).get(late).copied().unwrap_or(0);
        if taken == 3 {
            return claim;
        }
    }
    panic!("{taken} of 3 splits of {late} were taken by 80 claims of {types} types");
}

#[tokio::test]
async fn what_comes_later_waits_for_few_claims_beside_types_that_have_plenty() {
    // Of three, each is first in every third; of more, ten are looked at in each claim beside those that have work.
    for (types, late, most) in [(3, "t3", 3), (8, "t5", 2), (40, "t33", 5)] {
        let claims = claims_until_taken(types, late).await;
        assert!(claims <= most, "of {types} types {late} was served by claim {claims}, not by {most}");
    }
}

#[tokio::test]
async fn of_many_types_each_split_is_taken_once_whatever_the_size_of_a_claim() {
    let (_db, mut hand, all) = many(150).await;
    // 1 to 7 of each.
    hand.run("insert into divvy.task (task_type) select 't' || n from generate_series(1, 150) n, generate_series(0, n % 7)")
        .await;
    let there: i64 = hand.get("select count(*) from divvy.task").await;
    let mut seen = HashMap::new();
    for most in [1, 50, 3, 200].into_iter().chain(std::iter::repeat(10_000)) {
        for split in found(&mut hand, &all, most).await {
            *seen.entry(split.split_id).or_insert(0) += 1;
        }
        if seen.len() >= there as usize {
            break;
        }
    }
    assert!(seen.values().all(|times| *times == 1));
    assert!(hand.claim(&all, 10).await.is_empty());
}

#[tokio::test]
async fn of_many_types_what_commits_late_or_is_rolled_back_is_found_below_what_was_taken() {
    let (db, mut hand, all) = many(9).await;
    let mut late = Hand::new(&db).await;
    late.run("begin").await;
    fill(&mut late, "t4", 1).await;
    fill(&mut hand, "t4", 2).await;
    assert_eq!(found(&mut hand, &all, 10).await.len(), 2);
    late.run("commit").await;
    assert_eq!(found(&mut hand, &all, 10).await.len(), 1, "what was committed late");
    fill(&mut hand, "t5", 4).await;
    hand.run("begin").await;
    assert_eq!(found(&mut hand, &all, 2).await.len(), 2);
    hand.run("rollback").await;
    assert_eq!(found(&mut hand, &all, 10).await.len(), 4, "what was rolled back, too");
    // Shares beside plain tasks: two lanes of one type.
    hand.run("insert into divvy.task (task_type, split_count) values ('t6', 5), ('t6', 1), ('t7', 40)").await;
    assert_eq!(found(&mut hand, &all, 100).await.len(), 46, "shares, a plain task, and a stretch");
}

#[tokio::test]
async fn of_many_types_a_paused_one_and_one_without_room_keep_their_splits() {
    let (_db, mut hand, all) = many(6).await;
    for task_type in ["t1", "t2", "t3"] {
        fill(&mut hand, task_type, 20).await;
    }
    hand.run("select divvy.pause('t2')").await;
    for _ in 0..3 {
        let types: Vec<String> = hand
            .all(&format!(
                "select task_type from divvy.claim('{}', '{{{all}}}', 10, null, '{{0,9,5,9,9,9}}')",
                hand.worker
            ))
            .await;
        assert!(types.iter().all(|t| t == "t3") && types.len() == 5, "{types:?}");
    }
    hand.run("select divvy.resume('t2')").await;
    assert_eq!(by_type(&hand.claim(&all, 100).await), HashMap::from([("t1", 20), ("t2", 20), ("t3", 5)]));
}
