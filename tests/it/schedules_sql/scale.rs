//! Many schedules: a tick touches what is due, and what is due at once is made at once.

use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::queue::Queue;
use crate::support::race::until;
use divvy::leader::Leader;
use sqlx::{AssertSqlSafe, Executor};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Schedules that are not due.
const IDLE: u32 = 20_000;
/// Schedules that are due in the same second.
const DUE: u32 = 2_000;

async fn many() -> (Queue, Clock) {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run(format!(
        "insert into divvy.schedule (name, task_type, every) select 'idle-' || i, 'a', '1 day' from generate_series(1, {IDLE}) i;
         insert into divvy.schedule (name, task_type, every, overlap)
            select 'due-' || i, 'a', '1 min', case i % 2 when 0 then 'skip' else 'allow' end from generate_series(1, {DUE}) i;
         analyze divvy.schedule"
    ))
    .await;
    (q, clock)
}

#[tokio::test]
async fn all_that_is_due_in_one_second_is_made_by_a_few_passes() {
    let (mut q, clock) = many().await;
    clock.advance(Duration::from_secs(60)).await;
    let begun = Instant::now();
    let mut passes = 0;
    while q.one::<i32>("select divvy.fire_due(500)").await > 0 {
        passes += 1;
    }
    let took = begun.elapsed();
    assert_eq!(q.one::<i64>("select count(distinct schedule_id) from divvy.task").await, i64::from(DUE));
    let fired = "select count(*) from divvy.schedule_fire where outcome = 'fired'";
    assert_eq!(q.one::<i64>(fired).await, i64::from(DUE));
    assert!(passes <= DUE / 500 + 1, "{passes} passes");
    assert!(took < Duration::from_secs(20), "{took:?}");
    // The next minute, with the first runs of all open: half of them are skipped, and that counts as done, too.
    clock.advance(Duration::from_secs(60)).await;
    while q.one::<i32>("select divvy.fire_due(500)").await > 0 {}
    let counts: Vec<(String, i64)> =
        q.rows("select outcome, count(*) from divvy.schedule_fire group by 1 order by 1").await;
    let (due, half) = (i64::from(DUE), i64::from(DUE / 2));
    assert_eq!(counts, [("fired".to_owned(), due + half), ("skipped".to_owned(), half)]);
}

#[tokio::test]
async fn a_tick_with_nothing_due_reads_no_schedule() {
    let (mut q, _clock) = many().await;
    q.run("select divvy.fire_due()").await;
    let reads = "select coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint from pg_stat_xact_user_tables
        where schemaname = 'divvy' and relname in ('schedule', 'schedule_fire', 'task')";
    q.run("begin").await;
    let before: i64 = q.one(reads).await;
    q.run("select divvy.fire_due(); select divvy.schedules_to_plan()").await;
    let after: i64 = q.one(reads).await;
    q.run("commit").await;
    assert!(after - before < 10, "{} rows were read", after - before);
}

/// Kinds of schedules that are due at `$T`: a label, columns and values beside name and type.
const KINDS: [(&str, &str, &str); 14] = [
    ("timed", "run_at", "$T"),
    ("stepped", "steps", "array[$T - now(), $T - now() + interval '1 hour']"),
    ("cron, every minute", "cron", "extract(second from $T)::int || ' * * * * *'"),
    ("cron, every day", "cron", "to_char($T at time zone 'UTC', 'SS MI HH24') || ' * * ?'"),
    (
        "cron with zone",
        "cron, timezone",
        "'0 */5 * * * *; ' || extract(second from $T)::int || ' * * * * *', 'Europe/Berlin'",
    ),
    ("every, fixed rate", "every", "$T - now()"),
    ("every, fixed delay", "every, anchor", "$T - now(), 'previous_end'"),
    ("overlap buffer_all", "every, overlap", "$T - now(), 'buffer_all'"),
    ("overlap recover", "every, overlap", "$T - now(), 'recover'"),
    ("catch_up all", "every, catch_up", "$T - now(), 'all'"),
    ("max_runs", "every, max_runs", "$T - now(), 3"),
    ("dedupe_key", "every, dedupe_key", "$T - now(), 'key-' || i"),
    ("calendar", "cron, calendar", "extract(second from $T)::int || ' * * * * *', 'all'"),
    (
        "calendar, moved",
        "cron, calendar, calendar_shift",
        "to_char($T at time zone 'UTC', 'SS MI HH24') || ' * * ?', 'all', 'previous'",
    ),
];

/// How many there are in all, and how many of them are due at once.
const ALL: i64 = 100_000;
const AT_ONCE: i64 = 5_000;

/// What `docs/scheduling.md` reports: a leader, 100,000 active schedules, 5,000 of them due in one second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of minutes, for a release build on a quiet machine"]
async fn five_thousand_of_each_kind_are_made_within_two_seconds() {
    let db = TestDb::new().await;
    let pool = db.pool();
    let idle = format!(
        "select divvy.put_task_type('note'); select divvy.put_calendar('all', '{{\"weekend\": []}}');
         insert into divvy.schedule (name, task_type, every) select 'idle-' || i, 'note', '1 day' from generate_series(1, {}) i;
         insert into divvy.schedule (name, task_type, cron) select 'cron-' || i, 'note', '0 0 1 1 *' from generate_series(1, {}) i;
         analyze divvy.schedule",
        ALL - AT_ONCE - 10_000,
        10_000
    );
    pool.execute(AssertSqlSafe(idle)).await.unwrap();
    let stop = CancellationToken::new();
    let leader = tokio::spawn(Leader::new(db.options().clone(), "leader").run(stop.clone()));
    let planned = "select not exists (select from divvy.schedule where status = 'active' and next_fire_at is null and anchored_at is not null)";
    let count = "select count(*) from divvy.task";
    let mut late = Vec::new();
    for (kind, columns, values) in KINDS {
        let begin =
            "begin; select set_config('x.t', (date_trunc('second', now()) + interval '12 s')::text, true)";
        let values = values.replace("$T", "current_setting('x.t')::timestamptz");
        let insert = format!(
            "{begin}; insert into divvy.schedule (name, task_type, {columns}) select 'due-' || i, 'note', {values}
                from generate_series(1, {AT_ONCE}) i; commit"
        );
        pool.execute(AssertSqlSafe(insert)).await.unwrap();
        until("all cron schedules are planned", async || {
            sqlx::query_scalar(planned).fetch_one(pool).await.unwrap()
        })
        .await;
        until("all are made", async || {
            // Counting costs what is measured.
            tokio::time::sleep(Duration::from_millis(20)).await;
            sqlx::query_scalar::<_, i64>(count).fetch_one(pool).await.unwrap() >= AT_ONCE
        })
        .await;
        // Seen from outside: when the last of them was there.
        let seen =
            "select extract(epoch from clock_timestamp() - max(scheduled_for))::float8 from divvy.task";
        let took: f64 = sqlx::query_scalar(seen).fetch_one(pool).await.unwrap();
        eprintln!("  {kind}: {AT_ONCE} of {ALL} in {took:.2} s");
        late.push((kind, took));
        let clean = "delete from divvy.schedule where name like 'due-%'; truncate divvy.schedule_fire, divvy.run_ended;
            delete from divvy.task; ";
        pool.execute(clean).await.unwrap();
        pool.execute("vacuum (analyze) divvy.schedule").await.unwrap();
        pool.execute("vacuum (analyze) divvy.task").await.unwrap();
    }
    stop.cancel();
    leader.await.unwrap();
    late.retain(|(_, took)| *took >= 2.0);
    assert!(late.is_empty(), "not within 2 s: {late:?}");
}
