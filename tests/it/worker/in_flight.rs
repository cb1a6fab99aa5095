//! A bound over all types of a worker.

use crate::support::act::act;
use crate::support::db::TestDb;
use crate::support::race::until;
use crate::support::running::Running;
use divvy::handler::{Handler, Outcome};
use divvy::worker::{Builder, Worker};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// What runs at once, and what was begun of each type.
struct Crowd {
    running: AtomicUsize,
    most: AtomicUsize,
    begun: Mutex<HashMap<&'static str, usize>>,
    all: AtomicUsize,
    go_on: Semaphore,
}

impl Crowd {
    fn new(go_on: usize) -> Arc<Self> {
        Arc::new(Self {
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            begun: Mutex::default(),
            all: AtomicUsize::new(0),
            go_on: Semaphore::new(go_on),
        })
    }

    fn handler(self: &Arc<Self>, task_type: &'static str) -> impl Handler + use<> {
        let crowd = self.clone();
        act(move |_, _| {
            let crowd = crowd.clone();
            Box::pin(async move {
                *crowd.begun.lock().unwrap().entry(task_type).or_default() += 1;
                crowd.all.fetch_add(1, Ordering::Relaxed);
                let now = crowd.running.fetch_add(1, Ordering::Relaxed) + 1;
                crowd.most.fetch_max(now, Ordering::Relaxed);
                crowd.go_on.acquire().await?.forget();
                crowd.running.fetch_sub(1, Ordering::Relaxed);
                Ok(Outcome::Complete(Value::Null))
            })
        })
    }

    fn serve(self: &Arc<Self>, db: &TestDb, types: &[&'static str]) -> Builder {
        types.iter().fold(Worker::builder(db.pool().clone()), |builder, task_type| {
            builder.handler_as(*task_type, self.handler(task_type))
        })
    }

    fn begun(&self, task_type: &str) -> usize {
        self.begun.lock().unwrap().get(task_type).copied().unwrap_or(0)
    }

    fn all(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }
}

async fn fill(db: &TestDb, task_type: &str, count: i64) {
    sqlx::query("insert into divvy.task (task_type) select $1 from generate_series(1, $2)")
        .bind(task_type)
        .bind(count)
        .execute(db.pool())
        .await
        .unwrap();
}

async fn number(db: &TestDb, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(db.pool()).await.unwrap()
}

const OPEN: &str = "select count(*) from divvy.task where status <> 'succeeded'";

#[tokio::test]
async fn no_more_than_the_bound_run_at_once_over_all_types_and_one_alone_may_have_all_of_it() {
    let db = TestDb::new().await;
    let crowd = Crowd::new(0);
    let worker = crowd.serve(&db, &["a", "b", "c"]).in_flight(4).build().unwrap();
    let id = worker.id();
    let running = Running::start(worker);
    until("it is known", async || {
        number(&db, &format!("select count(*) from divvy.worker where id = '{id}' and slots = 4")).await == 1
    })
    .await;
    fill(&db, "b", 10).await;
    until("one type has all of it", async || crowd.begun("b") == 4).await;
    fill(&db, "a", 10).await;
    fill(&db, "c", 10).await;
    // One by one, then at full speed, when it fetches ahead.
    for done in 1..=10 {
        crowd.go_on.add_permits(1);
        until("the next one begins", async || crowd.all() == 4 + done).await;
    }
    fill(&db, "a", 500).await;
    fill(&db, "c", 500).await;
    crowd.go_on.add_permits(10_000);
    until("all have ended", async || number(&db, OPEN).await == 0).await;
    assert_eq!((crowd.most(), crowd.all()), (4, 1_030));
    assert_eq!(running.stop().await.succeeded, 1_030);
}

#[tokio::test]
async fn a_types_own_slots_hold_within_the_bound_and_what_it_leaves_is_for_others() {
    let db = TestDb::new().await;
    let crowd = Crowd::new(0);
    let worker = Worker::builder(db.pool().clone())
        .handler_as("few", crowd.handler("few"))
        .slots(2)
        .handler_as("many", crowd.handler("many"))
        .in_flight(5)
        .build()
        .unwrap();
    fill(&db, "few", 10).await;
    fill(&db, "many", 10).await;
    let running = Running::start(worker);
    until("all five are taken", async || crowd.all() == 5).await;
    assert!(crowd.begun("few") <= 2, "{} of a type with two slots", crowd.begun("few"));
    crowd.go_on.add_permits(1_000);
    until("all have ended", async || number(&db, OPEN).await == 0).await;
    assert_eq!(crowd.most(), 5);
    running.stop().await;
}

#[tokio::test]
async fn a_few_splits_that_come_later_begin_soon_beside_types_that_have_plenty() {
    let db = TestDb::new().await;
    for types in [&["a", "b", "c"][..], &["a", "b", "c", "d", "e", "f"][..]] {
        let crowd = Crowd::new(100_000);
        let running = Running::start(crowd.serve(&db, types).in_flight(20).build().unwrap());
        fill(&db, "a", 10_000).await;
        fill(&db, "b", 10_000).await;
        until("it has its hands full", async || crowd.all() > 1_000).await;
        fill(&db, "c", 3).await;
        let before = crowd.all();
        until("all three have begun", async || crowd.begun("c") == 3).await;
        // A round is at most 40: 20, and as many ahead. What begins while this looks is counted too.
        let meanwhile = crowd.all() - before;
        assert!(meanwhile < 1_000, "{meanwhile} others began meanwhile, of {} types", types.len());
        until("all have ended", async || number(&db, OPEN).await == 0).await;
        assert!(crowd.most() <= 20);
        running.stop().await;
    }
}

#[tokio::test]
async fn what_waits_in_a_bounded_worker_behind_slow_splits_of_another_type_goes_back() {
    let db = TestDb::new().await;
    let (slow, quick) = (Crowd::new(0), Crowd::new(100_000));
    let running = Running::start(
        Worker::builder(db.pool().clone())
            .handler_as("slow", slow.handler("slow"))
            .handler_as("quick", quick.handler("quick"))
            .in_flight(4)
            .build()
            .unwrap(),
    );
    fill(&db, "quick", 400).await;
    until("quick ones have taught it to fetch ahead", async || number(&db, OPEN).await == 0).await;
    sqlx::query(
        "insert into divvy.task (task_type) select case when n <= 4 then 'slow' else 'quick' end from generate_series(1, 8) n",
    )
    .execute(db.pool())
    .await
    .unwrap();
    until("slow ones have all slots", async || slow.all() == 4 || quick.all() == 404).await;
    until("quick ones are done or wait for somebody else", async || {
        number(&db, "select count(*) from divvy.split where task_type = 'quick' and status = 'running'").await
            == 0
    })
    .await;
    slow.go_on.add_permits(100);
    until("all have ended", async || number(&db, OPEN).await == 0).await;
    assert_eq!(number(&db, "select count(*) from divvy.task where attempt > 1").await, 0);
    running.stop().await;
}

#[tokio::test]
async fn what_is_fetched_ahead_begins_when_a_slot_of_all_is_free_and_not_when_one_of_its_type_is() {
    let db = TestDb::new().await;
    let crowd = Crowd::new(400);
    let running = Running::start(crowd.serve(&db, &["a", "b"]).in_flight(4).build().unwrap());
    fill(&db, "a", 200).await;
    fill(&db, "b", 200).await;
    until("quick ones have taught it to fetch ahead", async || number(&db, OPEN).await == 0).await;
    // From now on none ends; four of each are as many as it fetches.
    sqlx::query("insert into divvy.task (task_type) select case when n % 2 = 0 then 'a' else 'b' end from generate_series(1, 8) n")
        .execute(db.pool())
        .await
        .unwrap();
    until("four have begun, and the others have gone back", async || {
        let held = number(&db, "select count(*) from divvy.split where status = 'running'").await;
        crowd.all() >= 404 && held == 4
    })
    .await;
    crowd.go_on.add_permits(1_000);
    until("all have ended", async || number(&db, OPEN).await == 0).await;
    assert_eq!(crowd.most(), 4);
    running.stop().await;
}

#[tokio::test]
async fn a_bound_that_is_none_is_refused() {
    let db = TestDb::new().await;
    for splits in [0, 10_001] {
        let refused = Crowd::new(0).serve(&db, &["a"]).in_flight(splits).build().unwrap_err().to_string();
        assert!(
            refused.contains(&format!("in_flight is {splits}, not 1 to 10000")),
            "{splits} is refused so: {refused}"
        );
    }
}
