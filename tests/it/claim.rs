//! What a claim takes, in which order, and how much of it.

mod beside;
mod bounded;
mod measured;
mod plan;
mod turns;

use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::{Claimed, Hand};
use std::collections::HashMap;
use std::time::Duration;

async fn bench(types: &[&str]) -> (TestDb, Hand) {
    let db = TestDb::new().await;
    let mut hand = Hand::new(&db).await;
    for task_type in types {
        hand.declare(task_type, "{}").await;
    }
    (db, hand)
}

/// How many of each type.
fn by_type(splits: &[Claimed]) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for split in splits {
        *counts.entry(split.task_type.as_str()).or_default() += 1;
    }
    counts
}

async fn fill(hand: &mut Hand, task_type: &str, count: i32) {
    hand.run(&format!(
        "insert into divvy.task (task_type) select '{task_type}' from generate_series(1, {count})"
    ))
    .await;
}

#[tokio::test]
async fn types_take_turns_at_being_first() {
    let (_db, mut hand) = bench(&["a", "b", "c"]).await;
    for task_type in ["a", "b", "c"] {
        fill(&mut hand, task_type, 200).await;
    }
    let mut first: HashMap<String, usize> = HashMap::new();
    for _ in 0..150 {
        let split = hand.claim("a,b,c", 1).await.remove(0);
        *first.entry(split.task_type).or_default() += 1;
    }
    assert!(first.len() == 3 && first.values().all(|n| *n == 50), "{first:?}");
}

#[tokio::test]
async fn a_full_type_leaves_room_to_no_other_but_an_empty_one_does() {
    let (_db, mut hand) = bench(&["a", "b"]).await;
    fill(&mut hand, "a", 3).await;
    fill(&mut hand, "b", 100).await;
    let got = hand.claim("a,b", 200).await;
    assert_eq!(by_type(&got), HashMap::from([("a", 3), ("b", 100)]));
}

#[tokio::test]
async fn per_type_bounds_each_type_in_the_order_of_the_types() {
    let (_db, mut hand) = bench(&["a", "b", "c"]).await;
    for task_type in ["a", "b", "c"] {
        fill(&mut hand, task_type, 50).await;
    }
    for _ in 0..5 {
        let types: Vec<String> = hand
            .all(&format!(
                "select task_type from divvy.claim('{}', '{{a,b,c}}', 20, null, '{{2,0,5}}')",
                hand.worker
            ))
            .await;
        let count = |name: &str| types.iter().filter(|t| *t == name).count();
        assert_eq!((count("a"), count("b"), count("c")), (2, 0, 5));
    }
}

#[tokio::test]
async fn max_bounds_the_whole_claim_and_nought_claims_nothing() {
    let (_db, mut hand) = bench(&["a", "b"]).await;
    fill(&mut hand, "a", 50).await;
    fill(&mut hand, "b", 50).await;
    assert!(hand.claim("a,b", 0).await.is_empty());
    assert_eq!(hand.claim("a,b", 70).await.len(), 70);
    assert_eq!(hand.count("divvy.split where status = 'running'").await, 70);
    assert_eq!(hand.claim("a,b", 70).await.len(), 30);
}

#[tokio::test]
async fn a_claim_says_what_it_was_asked_wrongly() {
    let (_db, mut hand) = bench(&["a"]).await;
    let claim = |rest: &str| format!("select divvy.claim('{}', {rest})", hand.worker);
    let wrong = [
        claim("'{a}', -1"),
        claim("'{a}', null"),
        claim("null"),
        claim("'{a}', 1, '0.5 s'"),
        claim("'{a}', 1, null, '{1,2}'"),
    ];
    for sql in &wrong {
        assert_eq!(hand.code(sql).await, "DV010", "{sql}");
    }
    let sql = claim_of_nobody();
    assert_eq!(hand.code(&sql).await, "DV011", "{sql}");
    let sql = format!("select divvy.claim('{}', '{{a}}', 10001)", hand.worker);
    assert_eq!(hand.code(&sql).await, "DV003", "{sql}");
    assert!(hand.claim("unheard.of", 5).await.is_empty(), "a type nobody declared has nothing");
}

fn claim_of_nobody() -> String {
    "select divvy.claim('00000000-0000-0000-0000-000000000000', '{a}')".to_owned()
}

#[tokio::test]
async fn the_front_lane_goes_first_plan_and_reduce_alike() {
    let (_db, mut hand) = bench(&[]).await;
    hand.declare("sum", r#"{"reduce": true}"#).await;
    hand.insert("(task_type, split_count, priority) values ('sum', 5, 1)").await;
    hand.divided("sum", 0).await;
    let got = hand.claim_one("sum").await;
    assert_eq!(got.phase, "reduce", "though it came later, and others have priority 1");
    hand.declare("planned", r#"{"plan": true}"#).await;
    hand.insert("(task_type, split_count, priority) values ('planned', 5, 1)").await;
    hand.insert("(task_type, priority) values ('planned', 4)").await;
    assert_eq!(hand.claim_one("planned").await.phase, "plan");
}

#[tokio::test]
async fn lower_numbers_go_first_and_within_a_number_who_came_first() {
    let (_db, mut hand) = bench(&["a"]).await;
    let mut expected = Vec::new();
    for priority in [4, 2, 1, 3, 2, 1] {
        let task = hand.insert(&format!("(task_type, priority) values ('a', {priority})")).await;
        expected.push((priority, task));
    }
    expected.sort_unstable();
    let got: Vec<i64> = hand.claim("a", 10).await.iter().map(|s| s.task_id).collect();
    assert_eq!(got, expected.iter().map(|(_, task)| *task).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_minute_of_waiting_counts_as_one_step_of_priority() {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    let mut hand = Hand::new(&db).await;
    hand.declare("a", "{}").await;
    for (waited, first) in [(59, 2), (61, 3), (119, 3), (121, 3)] {
        let old = hand.insert("(task_type, priority) values ('a', 3)").await;
        clock.advance(Duration::from_secs(waited)).await;
        let new = hand.insert("(task_type, priority) values ('a', 2)").await;
        let got: Vec<i64> = hand.claim("a", 2).await.iter().map(|s| s.task_id).collect();
        let expected = if first == 3 { [old, new] } else { [new, old] };
        assert_eq!(got, expected, "after {waited} s");
    }
    // From last to first: three steps.
    let old = hand.insert("(task_type, priority) values ('a', 4)").await;
    clock.advance(Duration::from_secs(181)).await;
    hand.insert("(task_type, priority) values ('a', 1)").await;
    assert_eq!(hand.claim_one("a").await.task_id, old);
}

#[tokio::test]
async fn a_paused_type_claims_nothing_in_any_phase_and_its_running_splits_finish() {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    let mut hand = Hand::new(&db).await;
    hand.declare("sum", r#"{"reduce": true, "plan": true}"#).await;
    hand.divided("sum", 1).await;
    let split = hand.claim_one("sum").await;
    hand.run("select divvy.pause('sum', divvy.clock() + interval '1 min', 'a while')").await;
    hand.insert("(task_type) values ('sum')").await;
    assert_eq!(hand.complete(&split).await, "ok");
    assert_eq!(hand.count("divvy.unit where state = 'ready' and phase in ('plan', 'reduce')").await, 2);
    assert!(hand.claim("sum", 5).await.is_empty());
    let wait: bool = hand.get("select divvy.next_wait('{sum}') > interval '0'").await;
    assert!(wait, "a worker is not made to spin");
    clock.advance(Duration::from_secs(60)).await;
    assert_eq!(hand.claim("sum", 5).await.len(), 2, "over by itself");
    hand.run("select divvy.pause('sum')").await;
    hand.divided("sum", 1).await;
    clock.advance(Duration::from_secs(3000)).await;
    hand.run("select divvy.tick()").await;
    assert!(hand.claim("sum", 5).await.is_empty(), "until resumed");
    hand.run("select divvy.resume('sum')").await;
    assert_eq!(hand.claim("sum", 5).await.len(), 1);
}

#[tokio::test]
async fn of_a_paused_task_nothing_is_claimed_and_others_go_on() {
    let (_db, mut hand) = bench(&["a"]).await;
    let paused = hand.divided("a", 3).await;
    let running = hand.claim_one("a").await;
    hand.run(&format!("select divvy.pause_task({paused}, null, 'a while')")).await;
    let other = hand.insert("(task_type) values ('a')").await;
    let got = hand.claim("a", 10).await;
    assert_eq!(got.iter().map(|s| s.task_id).collect::<Vec<_>>(), [other]);
    // What comes back meanwhile is held as well.
    assert_eq!(hand.call("release", &running, "").await, "ok");
    assert!(hand.claim("a", 10).await.is_empty());
    hand.run(&format!("select divvy.resume_task({paused})")).await;
    assert_eq!(hand.claim("a", 10).await.len(), 3);
}

#[tokio::test]
async fn a_worker_told_quiet_claims_nothing_until_told_to_run() {
    let (_db, mut hand) = bench(&["a"]).await;
    fill(&mut hand, "a", 1).await;
    for (command, count) in [("quiet", 0), ("terminate", 0), ("run", 1)] {
        hand.run(&format!("select divvy.worker_command('{}', '{command}')", hand.worker)).await;
        assert_eq!(hand.claim("a", 1).await.len(), count, "{command}");
    }
}

/// The bytes that one claim hands out.
async fn answer_bytes(hand: &mut Hand, types: &str) -> (i64, i64) {
    let sql = format!(
        "select array[count(*), coalesce(sum(octet_length(payload::text) + coalesce(octet_length(split_payload::text), 0)
                + coalesce(octet_length(checkpoint::text), 0) + coalesce(octet_length(headers::text), 0)), 0)::bigint]
           from divvy.claim('{}', '{{{types}}}', 10000)",
        hand.worker
    );
    let got: Vec<i64> = hand.get(&sql).await;
    (got[0], got[1])
}

const ANSWER_BYTES_MAX: i64 = 8 << 20;

#[tokio::test]
async fn a_claim_answers_no_more_than_8_mib_over_lanes_and_types() {
    let (_db, mut hand) = bench(&["a", "b"]).await;
    hand.run(
        "insert into divvy.task (task_type, priority, payload)
         select case when i % 2 = 0 then 'a' else 'b' end, 1 + i / 2 % 4, jsonb_build_object('x', repeat('y', 900000))
           from generate_series(1, 40) i",
    )
    .await;
    let mut total = 0;
    while total < 40 {
        let (count, bytes) = answer_bytes(&mut hand, "a,b").await;
        assert!(count > 0 && bytes <= ANSWER_BYTES_MAX, "{count} splits of {bytes} bytes");
        total += count;
    }
}

#[tokio::test]
async fn the_payload_of_a_divided_task_counts_with_every_split() {
    let (_db, mut hand) = bench(&["a"]).await;
    hand.run(
        "insert into divvy.task (task_type, split_count, payload)
         values ('a', 100, jsonb_build_object('x', repeat('y', 1000000)))",
    )
    .await;
    let (count, bytes) = answer_bytes(&mut hand, "a").await;
    assert!((7..=8).contains(&count) && bytes <= ANSWER_BYTES_MAX, "{count} splits of {bytes} bytes");
}

#[tokio::test]
async fn checkpoints_and_headers_count_as_well() {
    let (_db, mut hand) = bench(&["a"]).await;
    hand.run(
        "insert into divvy.task (task_type, headers)
         select 'a', jsonb_build_object('h', repeat('y', 16000)) from generate_series(1, 100)",
    )
    .await;
    hand.run("update divvy.task set checkpoint = jsonb_build_object('x', repeat('y', 200000))").await;
    let (count, bytes) = answer_bytes(&mut hand, "a").await;
    assert!(count >= 30 && bytes <= ANSWER_BYTES_MAX, "{count} splits of {bytes} bytes");
}

#[tokio::test]
async fn what_did_not_fit_is_everybodys() {
    let (db, mut hand) = bench(&["a"]).await;
    hand.run(
        "insert into divvy.task (task_type, payload)
         select 'a', jsonb_build_object('x', repeat('y', 1000000)) from generate_series(1, 12)",
    )
    .await;
    assert_eq!(hand.claim("a", 100).await.len(), 8);
    assert_eq!(Hand::new(&db).await.claim("a", 100).await.len(), 4);
}

#[tokio::test]
async fn a_type_that_is_named_twice_gives_no_split_twice() {
    let (_db, mut hand) = bench(&["a"]).await;
    fill(&mut hand, "a", 30).await;
    let mut got: Vec<i64> = Vec::new();
    for _ in 0..4 {
        got.extend(hand.claim("a,a,a,a,a", 10).await.iter().map(|s| s.split_id));
    }
    let distinct: std::collections::HashSet<_> = got.iter().collect();
    assert_eq!((got.len(), distinct.len()), (30, 30));
}
