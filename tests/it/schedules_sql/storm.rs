//! Leaders are killed, stopped and cut off while schedules fire: the ledger is the computed set, each moment once.
//!
//! `DIVVY_STORM_SECONDS` makes it longer than the few seconds of a usual run, and prints how late the fires were.

use crate::support::db::TestDb;
use crate::support::program::divvy_on;
use crate::support::race::until;
use divvy::leader::Leader;
use rand::RngExt;
use sqlx::PgPool;
use std::process::{Child, Stdio};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a usual run lasts.
const SECONDS: u64 = 12;

fn seconds() -> u64 {
    std::env::var("DIVVY_STORM_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS)
}

/// 200 schedules: 20 every second and 20 by cron every second, the others slower, of all kinds.
const SCHEDULES: &str = "
    select divvy.put_task_type('note');
    insert into divvy.schedule (name, task_type, overlap, catch_up, catch_up_pace, every)
        select 'rate-' || i, 'note', 'allow', case i % 2 when 0 then 'latest' else 'all' end, '0 s',
            case when i <= 20 then interval '1 s' else i * interval '100 ms' end from generate_series(1, 80) i;
    insert into divvy.schedule (name, task_type, overlap, cron)
        select 'cron-' || i, 'note', case i % 2 when 0 then 'allow' else 'buffer_one' end,
            case when i <= 20 then '* * * * * *' else '*/' || i % 7 + 2 || ' * * * * *' end from generate_series(1, 80) i;
    insert into divvy.schedule (name, task_type, steps)
        select 'steps-' || i, 'note', array(select s * interval '2 s' from generate_series(1, 500) s) from generate_series(1, 20) i;
    insert into divvy.schedule (name, task_type, run_at)
        select 'once-' || i, 'note', divvy.clock() + i * interval '500 ms' from generate_series(1, 20) i;";

fn serve(db: &TestDb) -> Child {
    let mut serve = divvy_on(db.url(), &["serve", "--listen", "127.0.0.1:0"]);
    serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn signal(process: &Child, signal: rustix::process::Signal) {
    let id = rustix::process::Pid::from_raw(process.id().cast_signed()).unwrap();
    rustix::process::kill_process(id, signal).unwrap();
}

/// One blow: a process is stopped for a moment or killed and replaced, or every connection of a leader is cut.
async fn strike(db: &TestDb, processes: &mut [Child]) {
    let victim = rand::rng().random_range(0..processes.len());
    match rand::rng().random_range(0..3) {
        0 => {
            processes[victim].kill().unwrap();
            processes[victim].wait().unwrap();
            processes[victim] = serve(db);
        }
        1 => {
            signal(&processes[victim], rustix::process::Signal::STOP);
            // Longer than the silence after which the server gives the lock to another, where there is time for it.
            let most = if seconds() > 60 { 7_000 } else { 1_500 };
            pause(rand::rng().random_range(500..=most)).await;
            signal(&processes[victim], rustix::process::Signal::CONT);
        }
        _ => {
            let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                where datname = current_database() and application_name like 'divvy %'";
            sqlx::query(cut).execute(db.pool()).await.unwrap();
        }
    }
}

/// The time between two blows is what this test is about: nothing is waited for.
async fn pause(milliseconds: u64) {
    tokio::time::sleep_until(Instant::now() + Duration::from_millis(milliseconds)).await;
}

/// Moments between the creation and `through` that the ledger lacks, and those that it has too much.
const DIFFERENCE: &str = "
    with named as (
        select s.id, m.at from divvy.schedule s, lateral (
            select divvy.beat(s.every, s.anchored_at, k) from generate_series(1, divvy.beat_no(s.every, s.anchored_at, $1)) k
            union all
            select c.at from generate_series(date_trunc('second', s.created_at) + interval '1 s', $1, '1 s') c (at)
            where s.cron is not null and (s.cron = '* * * * * *'
                or extract(second from c.at)::int % substring(s.cron from 3 for position(' ' in s.cron) - 3)::int = 0)
            union all
            select s.anchored_at + o from unnest(s.steps) o where s.anchored_at + o <= $1
            union all
            select s.run_at where s.run_at <= $1) m (at)
    ), told as (
        select f.schedule_id as id, f.fire_at as at from divvy.schedule_fire f where f.kind = 'rule' and f.fire_at <= $1
    )
    select (select count(*) from (table named except table told) x), (select count(*) from (table told except table named) x),
        (select count(*) from named)";

async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_is_the_computed_set_through_a_storm_of_leaders() {
    let db = TestDb::new().await;
    sqlx::raw_sql(SCHEDULES).execute(db.pool()).await.unwrap();
    let mut processes: Vec<Child> = (0..2).map(|_| serve(&db)).collect();
    let stop = CancellationToken::new();
    let inner = tokio::spawn(Leader::new(db.options().clone(), "inner").run(stop.clone()));
    let over = Instant::now() + Duration::from_secs(seconds());
    while Instant::now() < over {
        pause(1_000).await;
        strike(&db, &mut processes).await;
    }
    let through: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("select clock_timestamp()").fetch_one(db.pool()).await.unwrap();
    until("every moment of the storm is decided", async || {
        let (lacking, _, _): (i64, i64, i64) =
            sqlx::query_as(DIFFERENCE).bind(through).fetch_one(db.pool()).await.unwrap();
        lacking == 0
    })
    .await;
    stop.cancel();
    inner.await.unwrap();
    for process in &mut processes {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let difference: (i64, i64, i64) =
        sqlx::query_as(DIFFERENCE).bind(through).fetch_one(db.pool()).await.unwrap();
    assert_eq!((difference.0, difference.1), (0, 0), "lacking and too much, of {}", difference.2);
    let pool = db.pool();
    assert_eq!(
        count(
            pool,
            "select count(*) - count(distinct task_id) from divvy.schedule_fire where outcome = 'fired'"
        )
        .await,
        0
    );
    let orphans = "select count(*) from divvy.task k where not exists (select from divvy.schedule_fire f
        where f.task_id = k.id and f.schedule_id = k.schedule_id and f.fire_at = k.scheduled_for)";
    assert_eq!(count(pool, orphans).await, 0, "no task without its row");
    assert_eq!(
        count(pool, "select count(*) from divvy.event where verb = 'fire'").await,
        0,
        "nothing went wrong"
    );
    let late: (f64, f64) = sqlx::query_as(
        "select percentile_cont(0.5) within group (order by s)::float8, percentile_cont(0.99) within group (order by s)::float8
         from (select extract(epoch from late) as s from divvy.schedule_fire where outcome = 'fired') x",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    let (terms, fired) = (
        count(pool, "select count(*) from divvy.leader").await,
        count(pool, "select count(*) from divvy.schedule_fire where outcome = 'fired'").await,
    );
    eprintln!(
        "storm: {} moments in {} s, {fired} fired, {terms} terms; late p50 {:.3} s, p99 {:.3} s",
        difference.2,
        seconds(),
        late.0,
        late.1
    );
    assert!(late.1 < 15.0, "p99 {}", late.1);
}
