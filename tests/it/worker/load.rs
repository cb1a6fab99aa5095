//! Workers under full load, while something else goes on beside it: late commits, slow splits, a worker that goes.

use super::enqueue;
use crate::support::act::{Act, Answer, act};
use crate::support::db::TestDb;
use crate::support::race::until;
use crate::support::running::Running;
use divvy::client::NewTask;
use divvy::handler::{Context, Handler, Outcome};
use divvy::worker::Worker;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor, PgConnection, PgPool};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Splits of one insert.
const CHUNK: i64 = 500;
/// As many wait for workers at least.
const DEPTH: i64 = 2_000;

/// What was called how often, by the task's id.
#[derive(Default)]
struct Calls {
    all: AtomicI64,
    of: Mutex<HashMap<i64, usize>>,
}

impl Calls {
    fn handler(self: &Arc<Self>) -> impl Handler + use<> {
        let calls = self.clone();
        act(move |context, _| {
            *calls.of.lock().unwrap().entry(context.task_id().0).or_default() += 1;
            calls.all.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(Outcome::Complete(Value::Null)) })
        })
    }

    fn all(&self) -> i64 {
        self.all.load(Ordering::Relaxed)
    }

    fn of(&self, task: i64) -> usize {
        self.of.lock().unwrap().get(&task).copied().unwrap_or(0)
    }
}

/// A producer that keeps workers busy until it is told to stop.
struct Producer {
    inserted: Arc<AtomicI64>,
    stop: CancellationToken,
    _guard: DropGuard,
    task: tokio::task::JoinHandle<()>,
}

impl Producer {
    async fn start(db: &TestDb, calls: &Arc<Calls>) -> Self {
        let (inserted, stop) = (Arc::new(AtomicI64::new(0)), CancellationToken::new());
        let (so_far, over, calls, mut session) =
            (inserted.clone(), stop.clone(), calls.clone(), db.connect().await);
        let task = tokio::spawn(async move {
            while !over.is_cancelled() {
                if so_far.load(Ordering::Relaxed) - calls.all() >= DEPTH + CHUNK {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    continue;
                }
                sqlx::query("insert into divvy.task (task_type) select 'act' from generate_series(1, $1)")
                    .bind(CHUNK)
                    .execute(&mut session)
                    .await
                    .unwrap();
                so_far.fetch_add(CHUNK, Ordering::Relaxed);
            }
        });
        Self { inserted, _guard: stop.clone().drop_guard(), stop, task }
    }

    /// Stops it; how many it has inserted.
    async fn stop(self) -> i64 {
        self.stop.cancel();
        self.task.await.unwrap();
        self.inserted.load(Ordering::Relaxed)
    }
}

async fn number(pool: &PgPool, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(pool).await.unwrap()
}

/// Workers of 50 slots, as most have.
fn worker(db: &TestDb, handler: impl Handler) -> Worker {
    Worker::builder(db.pool().clone()).handler(handler).slots(50).build().unwrap()
}

async fn run(session: &mut PgConnection, sql: impl Into<String>) {
    let sql = sql.into();
    session.execute(AssertSqlSafe(sql.clone())).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_late_under_full_load_is_claimed_within_seconds_prepared_or_not() {
    // A second until the duty notices, a second until a worker looks behind, and a loaded machine.
    const USUALLY_WITHIN: Duration = Duration::from_secs(3);
    const WITHIN: Duration = Duration::from_secs(10);
    const LOOKED_FOR: &str =
        "select (select count(*) from divvy.sweep) + (select count(*) from divvy.behind)";
    let db = TestDb::new().await;
    let calls = Arc::new(Calls::default());
    let workers = [(); 2].map(|()| Running::start(worker(&db, calls.handler())));
    let producer = Producer::start(&db, &calls).await;
    until("the load is under way", async || calls.all() > 1_000).await;

    let prepared = format!("late {}", db.name());
    let mut late = Vec::new();
    for no in 0..3 {
        let mut session = db.connect().await;
        run(&mut session, "set divvy.notify = off").await;
        run(&mut session, "begin").await;
        let (task, transaction, key): (i64, String, i64) = sqlx::query_as(
            "insert into divvy.task (task_type) values ('act') returning id, pg_current_xact_id()::text, key",
        )
        .fetch_one(&mut session)
        .await
        .unwrap();
        if no == 2 {
            run(&mut session, format!("prepare transaction '{prepared}'")).await;
        }
        // What says that marks go on over it: only what is swept after its end is found then.
        let is_late = format!(
            "select count(*) from divvy.late_writer l, divvy.low_water w
             where l.transactionid = '{transaction}' and l.from_key < {key} and w.seen_key > {key}"
        );
        late.push((no, task, is_late, session));
    }
    // Workers leave them behind.
    let behind = calls.all() + 6_000;
    until("workers are far ahead", async || calls.all() > behind).await;
    let tasks: Vec<i64> = late.iter().map(|(_, task, ..)| *task).collect();
    let mut waited = Vec::new();
    for (no, task, is_late, mut session) in late {
        until("it is a late writer", async || number(db.pool(), &is_late).await == 1).await;
        if no == 2 {
            // For the others, that have just ended, they would look in its place already.
            until("nobody looks behind", async || number(db.pool(), LOOKED_FOR).await == 0).await;
        }
        assert_eq!(calls.of(task), 0, "it is not committed");
        let before = calls.all();
        let commit = if no == 2 { format!("commit prepared '{prepared}'") } else { "commit".to_owned() };
        run(&mut session, commit).await;
        let committed = Instant::now();
        until("the late split is called", async || calls.of(task) > 0).await;
        waited.push(committed.elapsed());
        until("workers go on", async || calls.all() > before + 1_000).await;
    }
    eprintln!("claimed after {waited:?}, the last was prepared");
    assert!(waited.iter().all(|time| *time < WITHIN), "claimed after {waited:?}");
    // A loaded machine may hold one of them up.
    waited.sort_unstable();
    assert!(waited[1] < USUALLY_WITHIN, "claimed after {waited:?}");
    let all = producer.stop().await + 3;
    until("all is done", async || {
        number(db.pool(), "select count(*) from divvy.task where status = 'succeeded'").await == all
    })
    .await;
    for running in workers {
        running.stop().await;
    }
    assert_eq!(calls.all(), all, "each was called once");
    assert!(tasks.iter().all(|task| calls.of(*task) == 1));
}

/// A handler whose splits are slow where `is_slow` says so: they wait until they may go on.
fn mixed(
    go_on: &Arc<Semaphore>,
) -> Act<impl for<'a, 'c> Fn(&'a mut Context<'c>, Value) -> Answer<'a> + Send + Sync + use<>> {
    let go_on = go_on.clone();
    act(move |context, _| {
        let (slow, go_on) = (context.split_id().0 % SLOW_OF == 0, go_on.clone());
        Box::pin(async move {
            if slow {
                go_on.acquire().await?.forget();
            }
            Ok(Outcome::Complete(Value::Null))
        })
    })
}

/// Each so-many-th split is slow.
const SLOW_OF: i64 = 50;

#[tokio::test]
async fn slow_splits_hold_up_no_end_of_fast_ones_that_were_claimed_with_them() {
    let db = TestDb::new().await;
    let go_on = Arc::new(Semaphore::new(0));
    super::client(&db).put_task_type("act", &json!({ "lease": "2 s" })).await.unwrap();
    // Half of them plain tasks, half shares; there before the worker is, so that they are claimed together.
    sqlx::query("insert into divvy.task (task_type) select 'act' from generate_series(1, 300)")
        .execute(db.pool())
        .await
        .unwrap();
    let task = enqueue(&db, NewTask::new("act", json!({})).split_count(300)).await;
    let slow = number(
        db.pool(),
        &format!("select count(*) from divvy.split where status = 'ready' and id % {SLOW_OF} = 0"),
    )
    .await;
    assert!((12..=13).contains(&slow), "{slow} are slow");
    let running = Running::start(worker(&db, mixed(&go_on)));
    until("all fast ones have ended", async || {
        number(db.pool(), "select count(*) from divvy.split where status = 'succeeded'").await == 600 - slow
    })
    .await;
    // Nor do they later: one that comes now is done while they run.
    let lone = enqueue(&db, NewTask::new("act", json!({}))).await;
    if lone.0 % SLOW_OF != 0 {
        super::end_of(&db, lone).await;
    }
    // Their leases name them alone, are renewed, and in the end each has been called once.
    until("they are held beyond a lease", async || {
        number(
            db.pool(),
            "select coalesce(sum(cardinality(split_ids)), 0)::bigint from divvy.lease
              where lease_until > claimed_at + 1.5 * length and written",
        )
        .await
            >= slow
    })
    .await;
    assert_eq!(number(db.pool(), "select count(*) from divvy.split where status = 'running'").await, slow);
    go_on.add_permits(100);
    super::end_of(&db, task).await;
    until("all have ended", async || {
        number(db.pool(), "select count(*) from divvy.task where status <> 'succeeded'").await == 0
    })
    .await;
    running.stop().await;
    let tried = "select count(*) from divvy.attempt";
    let twice = "select count(*) from divvy.unit where attempt > 1";
    assert_eq!((number(db.pool(), tried).await, number(db.pool(), twice).await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_go_in_the_middle_lose_nothing_and_others_take_over() {
    let db = TestDb::new().await;
    super::client(&db).put_task_type("act", &json!({ "lease": "1 s" })).await.unwrap();
    let calls = Arc::new(Calls::default());
    let producer = Producer::start(&db, &calls).await;
    let stopped = Running::start(worker(&db, calls.handler()));
    let dying = worker(&db, calls.handler());
    let dying = tokio::spawn(async move { dying.run(CancellationToken::new()).await });
    until("both work", async || calls.all() > 2_000).await;
    // One is told to stop, one is gone between two of its steps; each has a successor that begins at the marks.
    let first = stopped.stop().await;
    assert_eq!(first.lost + first.failed, 0, "{first}");
    dying.abort();
    assert!(dying.await.is_err());
    let successors = [(); 2].map(|()| Running::start(worker(&db, calls.handler())));
    let so_far = calls.all();
    until("their successors work", async || calls.all() > so_far + 2_000).await;
    let all = producer.stop().await;
    until("all is done", async || {
        number(db.pool(), "select count(*) from divvy.task where status = 'succeeded'").await == all
    })
    .await;
    for running in successors {
        running.stop().await;
    }
    // Only what the dead one held was tried again, and that was charged.
    let expired = number(db.pool(), "select count(*) from divvy.attempt where outcome = 'expired'").await;
    assert_eq!(number(db.pool(), "select count(*) from divvy.attempt").await, expired);
    assert!(calls.all() <= all + expired, "{} calls, {all} tasks, {expired} taken back", calls.all());
    // What ended side by side with another part of its lease leaves that to the duty.
    until("no lease is left behind", async || {
        sqlx::query("select divvy.tick()").execute(db.pool()).await.unwrap();
        number(db.pool(), "select count(*) from divvy.lease").await == 0
    })
    .await;
}

#[tokio::test]
async fn what_waits_in_a_worker_behind_slow_splits_is_left_to_an_idle_one() {
    let db = TestDb::new().await;
    let go_on = Arc::new(Semaphore::new(0));
    super::client(&db).put_task_type("act", &json!({ "lease": "1 s" })).await.unwrap();
    let few = || Worker::builder(db.pool().clone()).handler(mixed(&go_on)).slots(4).build().unwrap();
    let busy = Running::start(few());
    // Quick ones first, so that it fetches ahead.
    sqlx::query("select setval('divvy.id', 1)").execute(db.pool()).await.unwrap();
    let quick = "insert into divvy.task (id, task_type) select i, 'act' from generate_series($1::bigint, $2) i where i % 50 <> 0";
    sqlx::query(quick).bind(1_001_i64).bind(1_400_i64).execute(db.pool()).await.unwrap();
    until("the quick ones are done", async || {
        number(db.pool(), "select count(*) from divvy.task where status <> 'succeeded'").await == 0
    })
    .await;
    sqlx::query(
        "insert into divvy.task (id, task_type) select i, 'act' from unnest('{2000,2050,2100,2150,2201,2202,2203,2204}'::bigint[]) i",
    )
    .execute(db.pool())
    .await
    .unwrap();
    let with = async |status: &str| {
        number(db.pool(), &format!("select count(*) from divvy.split where status = '{status}'")).await
    };
    until("it has fetched them all", async || with("running").await == 8).await;
    until("it gives back those it has no slot for", async || with("ready").await == 4).await;
    let idle = Running::start(few());
    until("the fast ones have ended", async || {
        number(db.pool(), "select count(*) from divvy.task where id > 2200 and status = 'succeeded'").await
            == 4
    })
    .await;
    go_on.add_permits(10);
    let (helped, gave) = (idle.stop().await, busy.stop().await);
    assert_eq!((helped.released, gave.released), (0, 4), "{helped}; {gave}");
    assert_eq!(number(db.pool(), "select count(*) from divvy.task where attempt > 1").await, 0);
}
