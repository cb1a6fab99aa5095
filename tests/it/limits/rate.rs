//! A rate: so many starts in a time, over all workers.

use super::enqueue_many;
use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::Hand;
use crate::support::queue::{Queue, quoted};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn no_more_than_count_start_in_any_period() {
    let mut q = Queue::new().await;
    let clock = Clock::stop(&q.db).await;
    q.put("a", json!({"rate": {"count": 5, "per": "10 s"}})).await;
    enqueue_many(&mut q, "a", 20).await;
    assert_eq!(q.claim_up_to("a", 2).await.len(), 2);
    clock.advance(Duration::from_secs(4)).await;
    let second = q.claim_up_to("a", 9).await;
    assert_eq!(second.len(), 3);
    for split in &second {
        q.complete(split).await;
    }
    assert!(q.claim_up_to("a", 9).await.is_empty(), "what has ended started none the less");
    let stats: (i64, i64, bool) =
        q.rows("select ready, held, oldest_ready is null from divvy.type_stats").await[0];
    assert_eq!(stats, (0, 15, true));
    let wait = "select extract(epoch from divvy.next_wait('{a}'))::float8";
    // With nothing to do beside it: a tick may take more than one call.
    let ticked = "update divvy.pulse set small_tick_at = divvy.clock()";
    q.run(ticked).await;
    assert!(q.one::<f64>(wait).await > 0.5);
    clock.advance(Duration::from_millis(5_900)).await;
    assert!(q.claim_up_to("a", 9).await.is_empty());
    q.run(ticked).await;
    let soon = q.one::<f64>(wait).await;
    assert!((0.09..0.12).contains(&soon), "{soon}");
    clock.advance(Duration::from_millis(120)).await;
    assert_eq!(q.one::<f64>(wait).await, 0.0);
    assert_eq!(q.claim_up_to("a", 9).await.len(), 2);
    clock.advance(Duration::from_secs(4)).await;
    assert_eq!(q.claim_up_to("a", 9).await.len(), 3);
    clock.advance(Duration::from_secs(60)).await;
    q.tick().await;
    assert_eq!(q.one::<i64>("select count(*) from divvy.rate_use").await, 0);
    assert_eq!(q.claim_up_to("a", 99).await.len(), 5);
}

#[tokio::test]
async fn a_burst_is_smaller_than_the_count_at_the_same_pace() {
    let mut q = Queue::new().await;
    let clock = Clock::stop(&q.db).await;
    q.put("a", json!({"rate": {"count": 6, "per": 60, "burst": 2}})).await;
    enqueue_many(&mut q, "a", 20).await;
    let mut started = Vec::new();
    for _ in 0..13 {
        started.push(q.claim_up_to("a", 9).await.len());
        clock.advance(Duration::from_millis(10_100)).await;
    }
    assert_eq!(started, [2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_workers_together_start_no_more_than_count() {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    let mut hand = Hand::new(&db).await;
    hand.declare("x", r#"{"rate": {"count": 20, "per": "1 min"}}"#).await;
    hand.run("insert into divvy.task (task_type) select 'x' from generate_series(1, 60)").await;
    for round in 1..=3 {
        let mut claiming = Vec::new();
        for client in 0..8 {
            let mut hand = Hand::new(&db).await;
            claiming.push(tokio::spawn(async move {
                let mut claimed = 0;
                for max in 1..6 {
                    claimed += hand.claim("x", (max + client) % 5 + 1).await.len();
                }
                claimed
            }));
        }
        let mut started = 0;
        for client in claiming {
            started += client.await.unwrap();
        }
        assert_eq!(started, 20, "in minute {round}");
        clock.advance(Duration::from_millis(60_100)).await;
    }
}

#[tokio::test]
async fn a_rate_that_can_t_be_is_refused_with_its_value() {
    let mut q = Queue::new().await;
    for (rate, names) in [
        (json!(5), &["number"][..]),
        (json!({"per": 1}), &["rate.count", "null"]),
        (json!({"count": 0, "per": 1}), &["rate.count is 0"]),
        (json!({"count": 1.5, "per": 1}), &["rate", "1.5"]),
        (json!({"count": 1}), &["rate.per is null"]),
        (json!({"count": 1, "per": "soon"}), &["rate", "soon"]),
        (json!({"count": 1, "per": "-1 s"}), &["rate.per is -1 s"]),
        (json!({"count": 1, "per": "1 year"}), &["rate.per is 1 year", "31 days"]),
        (json!({"count": 3, "per": 1, "burst": 4}), &["rate.burst is 4", "3"]),
        (json!({"count": 3, "per": 1, "each": 4}), &["rate", "each"]),
    ] {
        q.refused(format!("select divvy.put_task_type('a', {})", quoted(json!({"rate": rate}))))
            .await
            .says("DV010", &[&["type a"], names].concat());
    }
}
