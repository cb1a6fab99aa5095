//! Everybody at once: claims, ends, releases, failures, claims that roll back, leases that end, duties.

use crate::support::both::over_both;
use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::Hand;
use crate::support::race::DEADLINE;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

over_both! {
    workers_and_duties_that_take_splits_from_each_other_lose_none_and_end_none_twice,
}

const WORKERS: usize = 5;

/// Works until nothing is left; what becomes of a split depends on the round.
async fn work(mut hand: Hand, clock: Arc<Clock>, open: &str) {
    let started = Instant::now();
    for round in 0.. {
        // A lease of 5 s lives through some 25 rounds: none of a split ends five times in a row.
        clock.advance(Duration::from_millis(200)).await;
        hand.run("begin").await;
        let mut splits = hand.claim("x", 23).await;
        let gives_back = round % 7 == 3;
        hand.run(if gives_back { "rollback" } else { "commit" }).await;
        if splits.is_empty() && hand.count(open).await == 0 {
            return;
        }
        assert!(started.elapsed() < DEADLINE, "{} are left after {DEADLINE:?}", hand.count(open).await);
        if gives_back {
            continue;
        }
        // One each is given back, retried, and forgotten until its lease ends.
        for (function, more) in [("release", ""), ("fail", "'{}', true, '0 s'"), ("checkpoint", "'1'")] {
            if let Some(split) = splits.pop_if(|_| round % 2 == 0) {
                let said = hand.call(function, &split, more).await;
                assert!(["ok", "DV001"].contains(&said.as_str()), "{function}: {said}");
            }
        }
        for batch in splits.chunks(5) {
            hand.run("begin").await;
            let verdicts = hand.complete_many(batch).await;
            for (split, verdict) in batch.iter().zip(verdicts) {
                assert!(verdict == "ok" || verdict == "lost", "{verdict}");
                if verdict == "ok" {
                    hand.run(&format!("insert into public.effect values ({})", split.split_id)).await;
                }
            }
            hand.run("commit").await;
        }
    }
}

async fn workers_and_duties_that_take_splits_from_each_other_lose_none_and_end_none_twice(db: Arc<TestDb>) {
    let clock = Arc::new(Clock::stop(&db).await);
    let mut hand = Hand::new(&db).await;
    hand.declare("x", r#"{"max_attempts": 1000, "lease": "5 s"}"#).await;
    hand.run("create table public.effect (split bigint primary key)").await;
    hand.run(
        "insert into divvy.task (task_type, priority) select 'x', 1 + i % 4 from generate_series(1, 700) i",
    )
    .await;
    hand.run("insert into divvy.task (task_type, split_count, priority) select 'x', 100, 1 + i % 4 from generate_series(1, 7) i")
        .await;
    let open = "divvy.split where status in ('ready', 'running', 'delayed')";
    assert_eq!(hand.count(open).await, 1400);
    let over = Arc::new(AtomicBool::new(false));
    let mut duties = Vec::new();
    for _ in 0..2 {
        let (mut duty, over) = (Hand::new(&db).await, over.clone());
        duties.push(tokio::spawn(async move {
            while !over.load(Relaxed) {
                duty.run("select divvy.tick()").await;
                duty.run("select divvy.raise_marks('x')").await;
            }
        }));
    }
    let mut working = Vec::new();
    for _ in 0..WORKERS {
        working.push(tokio::spawn(work(Hand::new(&db).await, clock.clone(), open)));
    }
    for worker in working {
        worker.await.unwrap();
    }
    over.store(true, Relaxed);
    for duty in duties {
        duty.await.unwrap();
    }
    assert_eq!(hand.count("public.effect").await, 1400, "each ended once");
    assert_ne!(hand.count("divvy.attempt where outcome = 'expired'").await, 0, "leases ended, too");
    assert_eq!(hand.count("divvy.task where status = 'succeeded'").await, 707);
    hand.run("update divvy_test.clock set at = at + interval '1 hour'; select divvy.write_down_old(10000)")
        .await;
    assert_eq!(hand.count("divvy.lease").await, 0);
}
