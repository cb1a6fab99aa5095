//! Eight claimers that complete, fail, snooze, release, roll back, die and are killed as chance has it: at no moment runs
//! more than the limit, and in the end all have succeeded.
//!
//! `DIVVY_TEST_SEED` gives them other luck than in a usual run; a run that fails says which it had.

use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::{Claimed, Hand};
use crate::support::race::DEADLINE;
use sqlx::AssertSqlSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::RwLock;

const CLAIMERS: u64 = 8;

/// Numbers that are the same in every run with the same seed.
struct Chance(u64);

impl Chance {
    /// Of one of those who take part.
    fn of(who: u64) -> Self {
        Self(seed().wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(who))
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn seed() -> u64 {
    std::env::var("DIVVY_TEST_SEED").map_or(0, |n| n.parse().expect("DIVVY_TEST_SEED is no number"))
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

/// Its session is killed while it ends these splits and claims others. Who comes instead is another worker.
async fn killed(db: &TestDb, mut hand: Hand, chance: &mut Chance, splits: &[Claimed]) -> Hand {
    let kill = format!("select pg_terminate_backend({}, 10000)", hand.pid);
    let kill = sqlx::query_scalar::<_, bool>(AssertSqlSafe(kill)).fetch_one(db.pool());
    if chance.below(2) == 0 {
        // Nothing of this is ever committed, and it has the lock of the type until then.
        hand.run("begin").await;
        hand.complete_many(splits).await;
        hand.claim("x", 3).await;
        assert!(kill.await.unwrap(), "the session is gone");
    } else {
        // Before, in the middle, or after the commit.
        let call = end_and_claim(&hand, splits, 3);
        let (_, gone) = tokio::join!(hand.attempt(&call), kill);
        assert!(gone.unwrap(), "the session is gone");
    }
    Hand::new(db).await
}

/// The call that ends these splits and claims so many.
fn end_and_claim(hand: &Hand, splits: &[Claimed], max: u64) -> String {
    let (ids, tokens): (Vec<i64>, Vec<i64>) = splits.iter().map(|s| (s.split_id, s.token)).unzip();
    format!(
        "select divvy.complete_and_claim('{}', '{{{}}}', '{{{}}}', null, '{{x}}', {max})",
        hand.worker,
        list(&ids),
        list(&tokens)
    )
}

/// Claims, and ends what it claimed, one by one, in batches and with the next claim, until it is over.
async fn claimer(db: Arc<TestDb>, mut chance: Chance, gate: Arc<RwLock<()>>, over: Arc<AtomicBool>) {
    let mut hand = Hand::new(&db).await;
    while !over.load(Relaxed) {
        let _inside = gate.read().await;
        let max = chance.below(4) as usize + 1;
        if chance.below(10) == 0 {
            hand.run("begin").await;
            hand.claim("x", max).await;
            hand.run("rollback").await;
        }
        let splits = hand.claim("x", max).await;
        if !splits.is_empty() && chance.below(20) == 0 {
            hand = killed(&db, hand, &mut chance, &splits).await;
            continue;
        }
        match chance.below(3) {
            0 => drop(hand.complete_many(&splits).await),
            1 => {
                // What it takes with it is left to its fate.
                let call = end_and_claim(&hand, &splits, chance.below(20) / 19);
                hand.run(&call).await;
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

/// Notes of each claim, when it commits, the moment and how many splits it started; of one of plain tasks also of which
/// groups, and of which it left something.
const NOTES: &str = "
    create table divvy_test.start (token bigint, at timestamptz, n int, took text[], left_of text[]);
    create function divvy_test.note() returns trigger language plpgsql as $$
    begin
        insert into divvy_test.start
        select l.token, divvy.clock(), cardinality(l.split_ids), array(select k.group_key from divvy.task k where k.id = any (l.split_ids)),
            array(select distinct k.group_key from divvy.task k where k.task_type = l.task_type and k.lane = l.lane and k.state = 'ready'
                and k.id not in (select i from divvy.lease x cross join unnest(x.split_ids) i))
        from divvy.lease l where l.token = new.token and l.lane = new.lane;
        return null;
    end $$;
    create constraint trigger note after insert on divvy.lease deferrable initially deferred
        for each row execute function divvy_test.note()";

/// `counted`: how many run at most at this moment, of whatever is limited.
async fn storm(options: &str, tasks: &str, counted: &str, limit: i64) -> (Arc<TestDb>, usize) {
    storm_with(options, tasks, counted, limit, &[]).await
}

/// `changes`: limits that somebody sets meanwhile, none of them higher. Returns how many of the same tasks start at once when
/// nothing runs any more.
async fn storm_with(
    options: &str,
    tasks: &str,
    counted: &str,
    limit: i64,
    changes: &'static [&'static str],
) -> (Arc<TestDb>, usize) {
    eprintln!("DIVVY_TEST_SEED={}", seed());
    let db = Arc::new(TestDb::new().await);
    let clock = Clock::stop(&db).await;
    sqlx::raw_sql(NOTES).execute(db.pool()).await.unwrap();
    let mut hand = Hand::new(&db).await;
    hand.declare("x", &format!(r#"{{"lease": "5 s", "max_attempts": 1000, {options}}}"#)).await;
    hand.run(tasks).await;
    let over = Arc::new(AtomicBool::new(false));
    // A rate counts by the moment at which a claim's transaction began: there the clock stands still while claims are under way.
    let (gate, one_moment) = (Arc::new(RwLock::new(())), options.contains("rate"));
    let mut working = Vec::new();
    for client in 0..CLAIMERS {
        working.push(tokio::spawn(claimer(db.clone(), Chance::of(client + 1), gate.clone(), over.clone())));
    }
    if !changes.is_empty() {
        let hand = Hand::new(&db).await;
        working.push(tokio::spawn(meddler(hand, Chance::of(CLAIMERS + 1), changes, over.clone())));
    }
    let until = Instant::now() + 4 * DEADLINE;
    let mut chance = Chance::of(0);
    let mut most = 0;
    while hand.count("divvy.task where finished_at is null").await > 0 {
        for _ in 0..10 {
            let running: i64 = hand.get(counted).await;
            assert!(running <= limit, "{running}, the limit is {limit}");
            most = most.max(running);
        }
        if Instant::now() > until {
            let left: Vec<String> = hand.all("select format('%s %s %s %s %s', id, status, reason, due_at, group_key) from divvy.split where finished_at is null and status <> 'succeeded' limit 10").await;
            panic!("some never end: {left:#?}");
        }
        let all_wait = if one_moment { Some(gate.write().await) } else { None };
        clock.advance(Duration::from_millis(500 + chance.below(1001))).await;
        drop(all_wait);
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
    clock.advance(Duration::from_secs(10)).await;
    hand.declare("x", &format!("{{{options}}}")).await;
    hand.run("select divvy.resume('x')").await;
    hand.run(tasks).await;
    hand.run("update divvy.worker set seen_at = divvy.clock()").await;
    let started = hand.claim("x", 1000).await.len();
    assert!(started > 0);
    assert_eq!(hand.get::<i64>(counted).await, limit);
    assert!(hand.claim("x", 1000).await.is_empty());
    (db, started)
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

/// How many started at most in any 3 s, or twice as many as in any half of that.
const STARTED: &str = "
    select greatest(coalesce(max(x.n), 0), 2 * coalesce(max(x.burst), 0))::bigint from (
        select sum(s.n) over (order by s.at range between interval '2.999999 s' preceding and current row) as n,
            sum(s.n) over (order by s.at range between interval '1.499999 s' preceding and current row) as burst
        from divvy_test.start s) x";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rate_holds_in_a_storm() {
    let (_, started) = storm(
        r#""rate": {"count": 40, "per": "3 s", "burst": 20}"#,
        "insert into divvy.task (task_type, split_count) select 'x', case when i % 20 = 0 then 40 end from generate_series(1, 100) i",
        STARTED,
        40,
    )
    .await;
    assert_eq!(started, 20, "a burst");
}

/// While something of each group waits, each has at least half of an equal part, and each is served within so many claims.
const SERVED_WITHIN: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn groups_take_turns_in_a_storm() {
    const GROUPS: [&str; 4] = ["a", "b", "c", "d"];
    let (db, _) = storm(
        r#""max_running": 16, "fair_by_group": true"#,
        "insert into divvy.task (task_type, group_key) select 'x', g from unnest('{a,b,c,d}'::text[], '{240,40,40,40}'::int[]) x (g, n), generate_series(1, n) order by g",
        RUNNING,
        16,
    )
    .await;
    // The type's claims come one after another, so tokens tell their order.
    let claims: Vec<(Vec<String>, Vec<String>)> =
        sqlx::query_as("select took, left_of from divvy_test.start order by token")
            .fetch_all(db.pool())
            .await
            .unwrap();
    for group in GROUPS {
        let mut in_vain = 0;
        for (took, left_of) in &claims {
            let served = took.iter().any(|g| g == group) || !left_of.iter().any(|g| g == group);
            in_vain = if served { 0 } else { in_vain + 1 };
            assert!(in_vain < SERVED_WITHIN, "nothing of {group} in {in_vain} claims");
        }
    }
    let started: Vec<&String> = claims
        .iter()
        .filter(|(_, left_of)| left_of.len() == GROUPS.len())
        .flat_map(|(took, _)| took)
        .collect();
    assert!(started.len() >= 60, "{} started while all waited", started.len());
    for group in GROUPS {
        let of_it = started.iter().filter(|g| **g == group).count();
        assert!(2 * GROUPS.len() * of_it >= started.len(), "{of_it} of {}, of {group}", started.len());
    }
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
