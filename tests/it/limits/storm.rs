//! Eight claimers that complete, fail, snooze, release, roll back and die as chance has it: at no moment runs more than the
//! limit, and in the end all have succeeded.

use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::{Claimed, Hand};
use crate::support::race::DEADLINE;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const CLAIMERS: u64 = 8;

/// Numbers that are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Does with a claimed split what chance says; nothing, as a worker does that dies.
async fn end(hand: &mut Hand, chance: &mut Chance, split: &Claimed) {
    let said = match chance.below(20) {
        0 => return,
        1 | 2 => hand.call("fail", split, "'{}', retry_in => '0 s'").await,
        3 => hand.call("fail", split, "'{}', retry_in => '1 s'").await,
        4 => hand.call("snooze", split, "'0 s'").await,
        5 => hand.call("snooze", split, "'1 s'").await,
        6 => hand.call("release", split, "").await,
        7 => hand.call("checkpoint", split, "'{}'").await,
        _ => hand.complete(split).await,
    };
    assert!(said == "ok" || said == "DV001", "{said}");
}

/// Claims, and ends what it claimed, one by one, in batches and with the next claim, until it is over.
async fn claimer(mut hand: Hand, mut chance: Chance, over: Arc<AtomicBool>) {
    while !over.load(Relaxed) {
        let max = chance.below(4) as usize + 1;
        if chance.below(10) == 0 {
            hand.run("begin").await;
            hand.claim("x", max).await;
            hand.run("rollback").await;
        }
        let splits = hand.claim("x", max).await;
        match chance.below(3) {
            0 => drop(hand.complete_many(&splits).await),
            1 => {
                let (ids, tokens): (Vec<i64>, Vec<i64>) =
                    splits.iter().map(|s| (s.split_id, s.token)).unzip();
                // What it takes with it is left to its fate.
                hand.run(&format!(
                    "select divvy.complete_and_claim('{}', '{{{}}}', '{{{}}}', null, '{{x}}', {})",
                    hand.worker,
                    list(&ids),
                    list(&tokens),
                    chance.below(20) / 19
                ))
                .await;
            }
            _ => {
                for split in &splits {
                    end(&mut hand, &mut chance, split).await;
                }
            }
        }
        if splits.is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

fn list(numbers: &[i64]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Changes the type's limits as chance has it, and pauses, moves and resumes its tasks, until it is over.
async fn meddler(
    mut hand: Hand,
    mut chance: Chance,
    changes: &'static [&'static str],
    over: Arc<AtomicBool>,
) {
    while !over.load(Relaxed) {
        let said = match chance.below(8) {
            0 => {
                let change = changes[chance.below(changes.len() as u64) as usize];
                hand.code(&format!("select divvy.put_task_type('x', '{change}')")).await
            }
            1 => hand.code("select divvy.pause('x', divvy.clock() + interval '1 s')").await,
            2 => hand.code("select divvy.resume('x')").await,
            what => {
                let open =
                    hand.all::<i64>("select id from divvy.task where finished_at is null order by id").await;
                let Some(task) = open.get(chance.below(open.len().max(1) as u64) as usize) else { continue };
                let call = match what {
                    3 => format!("pause_task({task}, divvy.clock() + interval '2 s')"),
                    4 => format!("resume_task({task})"),
                    5 => format!("update_task({task}, '{{\"priority\": {}}}')", chance.below(4) + 1),
                    6 => format!("reschedule({task}, null, {})", chance.below(4) + 1),
                    _ => format!("reschedule({task}, divvy.clock() + interval '1 s')"),
                };
                hand.code(&format!("select divvy.{call}")).await
            }
        };
        // The task may have ended meanwhile, or nothing of it waits.
        assert!(said == "ok" || said == "DV004", "{said}");
    }
}

/// `counted`: how many run at most at this moment, of whatever is limited.
async fn storm(options: &str, tasks: &str, counted: &str, limit: i64) {
    storm_with(options, tasks, counted, limit, &[]).await;
}

/// `changes`: limits that somebody sets meanwhile, none of them higher.
async fn storm_with(options: &str, tasks: &str, counted: &str, limit: i64, changes: &'static [&'static str]) {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    let mut hand = Hand::new(&db).await;
    hand.declare("x", &format!(r#"{{"lease": "5 s", "max_attempts": 1000, {options}}}"#)).await;
    hand.run(tasks).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut working = Vec::new();
    for client in 0..CLAIMERS {
        working.push(tokio::spawn(claimer(Hand::new(&db).await, Chance(client + 1), over.clone())));
    }
    if !changes.is_empty() {
        let hand = Hand::new(&db).await;
        working.push(tokio::spawn(meddler(hand, Chance(CLAIMERS + 1), changes, over.clone())));
    }
    let until = Instant::now() + 4 * DEADLINE;
    let mut most = 0;
    while hand.count("divvy.task where finished_at is null").await > 0 {
        for _ in 0..10 {
            let running: i64 = hand.get(counted).await;
            assert!(running <= limit, "{running} run, the limit is {limit}");
            most = most.max(running);
        }
        if Instant::now() > until {
            let left: Vec<String> = hand.all("select format('%s %s %s %s %s', id, status, reason, due_at, group_key) from divvy.split where finished_at is null and status <> 'succeeded' limit 10").await;
            panic!("some never end: {left:#?}");
        }
        clock.advance(Duration::from_secs(1)).await;
        hand.run("select divvy.tick()").await;
        hand.run("update divvy.worker set seen_at = divvy.clock()").await;
    }
    over.store(true, Relaxed);
    for worker in working {
        worker.await.unwrap();
    }
    assert_eq!(
        hand.count("divvy.task where status <> 'succeeded' and reason is distinct from 'crashes'").await,
        0
    );
    assert!(most > 0, "something was seen to run");
    // Every slot is there again, and not one more.
    hand.declare("x", &format!("{{{options}}}")).await;
    hand.run("select divvy.resume('x')").await;
    hand.run(tasks).await;
    hand.run("update divvy.worker set seen_at = divvy.clock()").await;
    let started = hand.claim("x", 1000).await.len();
    assert!(started > 0);
    assert_eq!(hand.get::<i64>(counted).await, limit);
    assert!(hand.claim("x", 1000).await.is_empty());
}

const RUNNING: &str = "select count(*) from divvy.split where status = 'running'";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn max_running_holds_in_a_storm() {
    storm(
        r#""max_running": 5"#,
        "insert into divvy.task (task_type, split_count) select 'x', case when i % 20 = 0 then 40 end from generate_series(1, 200) i",
        RUNNING,
        5,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn max_running_per_group_holds_in_a_storm() {
    storm(
        r#""max_running_per_group": 2"#,
        "insert into divvy.task (task_type, group_key, split_count)
         select 'x', 'g' || i % 7, case when i % 20 = 0 then 40 end from generate_series(1, 200) i",
        "select coalesce(max(n), 0) from (select count(*) as n from divvy.split where status = 'running' group by group_key) g",
        2,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn max_running_per_task_holds_in_a_storm() {
    storm(
        r#""max_running_per_task": 1, "fair_by_group": true"#,
        "insert into divvy.task (task_type, group_key, split_count) select 'x', 'g' || i % 3, case when i % 2 = 0 then 10 else 40 end from generate_series(1, 10) i",
        "select coalesce(max(n), 0) from (select count(*) as n from divvy.split where status = 'running' group by task_id) g",
        1,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_limits_together_hold_in_a_storm() {
    storm(
        r#""max_running": 6, "max_running_per_group": 3, "max_running_per_task": 2, "fair_by_group": true"#,
        "insert into divvy.task (task_type, group_key, split_count) select 'x', 'g' || i % 4, case when i % 10 = 0 then 40 else 5 end from generate_series(1, 40) i",
        "with running as materialized (select task_id, group_key from divvy.split where status = 'running')
         select greatest((select count(*) from running), 2 * (select coalesce(max(n), 0) from
            (select count(*) as n from running group by group_key) g), 3 * (select coalesce(max(n), 0) from
            (select count(*) as n from running group by task_id) g))",
        6,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn limits_of_large_tasks_hold_while_people_meddle() {
    storm_with(
        r#""max_running_per_task": 3, "max_running_per_group": 3, "max_running": null, "fair_by_group": false"#,
        "insert into divvy.task (task_type, group_key, split_count) select 'x', 'g' || i % 2, 40 from generate_series(1, 4) i",
        "select coalesce(max(n), 0) from (select count(*) as n from divvy.split where status = 'running' group by group_key) g",
        3,
        &[
            r#"{"max_running_per_task": 1}"#,
            r#"{"max_running_per_task": 3}"#,
            r#"{"max_running_per_task": null}"#,
            r#"{"max_running_per_group": 1}"#,
            r#"{"max_running_per_group": 3, "fair_by_group": true}"#,
            r#"{"max_running": 4}"#,
            r#"{"max_running": null, "fair_by_group": false}"#,
        ],
    )
    .await;
}
