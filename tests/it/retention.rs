//! Retention: what goes when, and that what is kept longer, or locked, keeps nothing else.

use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::Hand;
use crate::support::race::until;
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3_600);

async fn bench() -> (TestDb, Clock, Hand) {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    let mut hand = Hand::new(&db).await;
    hand.declare("day", r#"{"retention": {"succeeded": "1 day", "others": "3 days"}}"#).await;
    hand.declare("week", r#"{"retention": {"succeeded": "7 days"}}"#).await;
    (db, clock, hand)
}

/// Tasks of a type that have succeeded just now.
async fn ended(hand: &mut Hand, task_type: &str, count: i32) {
    hand.run(&format!(
        "insert into divvy.task (task_type) select '{task_type}' from generate_series(1, {count})"
    ))
    .await;
    let mut left = count as usize;
    while left > 0 {
        let splits = hand.claim(task_type, 1_000).await;
        assert!(hand.complete_many(&splits).await.iter().all(|verdict| verdict == "ok"));
        left -= splits.len();
    }
}

async fn kept(hand: &mut Hand) -> Vec<String> {
    hand.all("select count(*) || ' ' || task_type || ' ' || status from divvy.task group by task_type, status order by 1").await
}

/// Prunes until nothing goes and no round is under way; how many calls it took.
async fn prune(hand: &mut Hand, max: i32) -> i32 {
    for calls in 1..1_000 {
        let gone: i32 = hand.get(&format!("select divvy.prune({max})")).await;
        if gone == 0 && hand.count("divvy.walk where round_id is not null").await == 0 {
            return calls;
        }
    }
    panic!("it does not end");
}

#[tokio::test]
async fn each_type_and_status_is_kept_as_long_as_its_type_says() {
    let (db, clock, mut hand) = bench().await;
    ended(&mut hand, "day", 30).await;
    ended(&mut hand, "week", 20).await;
    let failed = hand.insert("(task_type) values ('day')").await;
    let split = hand.claim_one("day").await;
    assert_eq!(hand.call("fail", &split, "'{}', false").await, "ok");
    let divided = hand.divided("day", 3).await;
    hand.run("select divvy.cancel((select max(id) from divvy.task))").await;
    let open = hand.insert("(task_type) values ('day')").await;
    let all = ["1 day cancelled", "1 day failed", "1 day running", "20 week succeeded", "30 day succeeded"];
    for (hours, left) in [
        (23, &all[..]),
        (1, &all[..4]),
        (47, &all[..4]),
        (1, &["1 day running", "20 week succeeded"]),
        (95, &["1 day running", "20 week succeeded"]),
        (1, &["1 day running"]),
    ] {
        clock.advance(HOUR * hours).await;
        prune(&mut hand, 7).await;
        assert_eq!(kept(&mut hand).await, left, "after {hours} hours more");
    }
    // An open task is kept however old it is, and goes when its time has come since its end.
    let mut hand = Hand::new(&db).await; // workers that nobody hears of go, too
    let split = hand.claim_one("day").await;
    assert_eq!((split.task_id, hand.complete(&split).await.as_str()), (open, "ok"));
    clock.advance(HOUR * 23).await;
    prune(&mut hand, 7).await;
    assert_eq!(hand.count(&format!("divvy.task where id in ({failed}, {divided}, {open})")).await, 1);
    clock.advance(HOUR).await;
    prune(&mut hand, 7).await;
    for table in ["task", "share", "attempt"] {
        assert_eq!(hand.count(&format!("divvy.{table}")).await, 0, "{table}");
    }
}

#[tokio::test]
async fn what_is_kept_longer_holds_up_nothing_behind_it() {
    const KEPT: i32 = 3_000;
    let (_db, clock, mut hand) = bench().await;
    ended(&mut hand, "week", KEPT).await;
    ended(&mut hand, "day", 500).await;
    clock.advance(HOUR * 24).await;
    let calls = prune(&mut hand, 100).await;
    assert_eq!(kept(&mut hand).await, ["3000 week succeeded"]);
    // Five hundred looked at a call, and once more by the round.
    assert!(calls <= 2 * (KEPT / 500 + 2) + 5, "{calls} calls");
    // From then on a call looks at nothing of that, but for a round now and then.
    for minutes in [0, 0, 0] {
        clock.advance(Duration::from_secs(minutes)).await;
        assert_eq!(prune(&mut hand, 100).await, 1);
    }
}

#[tokio::test]
async fn a_type_that_is_kept_shortly_does_not_wait_for_the_older_tasks_of_another() {
    let (db, clock, mut hand) = bench().await;
    hand.run("select divvy.drop_task_type('day')").await;
    // One each half an hour, the oldest of which go just now, one after the other.
    for _ in 0..20 {
        ended(&mut hand, "week", 1).await;
        clock.advance(HOUR / 2).await;
    }
    clock.advance(HOUR * (7 * 24 - 9)).await;
    prune(&mut hand, 100).await;
    assert_eq!(kept(&mut hand).await, ["17 week succeeded"]);
    let mut hand = Hand::new(&db).await;
    hand.declare("hour", r#"{"retention": {"succeeded": "1 hour"}}"#).await;
    ended(&mut hand, "hour", 10).await;
    clock.advance(HOUR).await;
    prune(&mut hand, 100).await;
    assert_eq!(kept(&mut hand).await, ["15 week succeeded"]);
}

#[tokio::test]
async fn a_task_that_somebody_has_locked_stays_and_the_others_go_without_it() {
    let (db, clock, mut hand) = bench().await;
    let mut other = Hand::new(&db).await;
    ended(&mut hand, "day", 50).await;
    clock.advance(HOUR * 48).await;
    let locked: i64 = hand.get("select min(id) + 20 from divvy.task").await;
    other.run(&format!("begin; select from divvy.task where id = {locked} for update")).await;
    let began = Instant::now();
    prune(&mut hand, 100).await;
    assert!(began.elapsed() < Duration::from_secs(5), "it waited {:?}", began.elapsed());
    assert_eq!(kept(&mut hand).await, ["1 day succeeded"]);
    other.run("commit").await;
    clock.advance(HOUR).await;
    prune(&mut hand, 100).await;
    assert_eq!(hand.count("divvy.task").await, 0);
}

#[tokio::test]
async fn a_task_that_is_redriven_just_as_it_goes_stays() {
    let (db, clock, mut hand) = bench().await;
    let mut other = Hand::new(&db).await;
    let task = hand.insert("(task_type) values ('day')").await;
    hand.run(&format!("select divvy.cancel({task})")).await;
    clock.advance(HOUR * 100).await;
    other.run(&format!("begin; select divvy.redrive({task})")).await;
    prune(&mut hand, 100).await;
    other.run("commit").await;
    prune(&mut hand, 100).await;
    assert_eq!(hand.status(task).await, "running");
}

#[tokio::test]
async fn what_a_dropped_type_left_goes_as_by_default() {
    let (_db, clock, mut hand) = bench().await;
    ended(&mut hand, "week", 5).await;
    hand.run("select divvy.drop_task_type('week')").await;
    clock.advance(HOUR * 71).await;
    prune(&mut hand, 100).await;
    assert_eq!(hand.count("divvy.task").await, 5);
    clock.advance(HOUR * 2).await;
    prune(&mut hand, 100).await;
    assert_eq!(hand.count("divvy.task").await, 0);
}

#[tokio::test]
async fn rows_of_splits_go_with_their_tasks_a_few_thousand_at_once() {
    let (_db, clock, mut hand) = bench().await;
    for _ in 0..20 {
        let task = hand.divided_into_rows("day", 60).await;
        hand.run(&format!("select divvy.cancel({task})")).await;
    }
    clock.advance(HOUR * 73).await;
    let gone: i32 = hand.get("select divvy.prune(100)").await;
    assert!((1..12).contains(&gone), "{gone} tasks of 60 rows each in one call for a hundred");
    prune(&mut hand, 100).await;
    assert_eq!((hand.count("divvy.task").await, hand.count("divvy.share").await), (0, 0));
}

#[tokio::test]
async fn two_callers_at_once_delete_each_task_once() {
    let (db, clock, mut hand) = bench().await;
    ended(&mut hand, "day", 900).await;
    clock.advance(HOUR * 48).await;
    let mut callers = Vec::new();
    for _ in 0..3 {
        let mut hand = Hand::new(&db).await;
        callers.push(tokio::spawn(async move {
            let mut gone = 0;
            for _ in 0..40 {
                gone += hand.get::<i32>("select divvy.prune(50)").await;
            }
            gone
        }));
    }
    let mut gone = 0;
    for caller in callers {
        gone += caller.await.unwrap();
    }
    until("all are gone", async || hand.get::<i32>("select divvy.prune(500)").await == 0).await;
    assert!(gone <= 900, "{gone}");
    assert_eq!(hand.count("divvy.task").await, 0);
}
