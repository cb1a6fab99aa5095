//! Many schedules: a tick touches what is due, and what is due at once is made at once.

use crate::support::clock::Clock;
use crate::support::queue::Queue;
use std::time::{Duration, Instant};

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
    eprintln!("{DUE} of {} schedules fired in {took:?}", IDLE + DUE);
    assert!(took < Duration::from_secs(20), "{took:?}");
    // The next minute, with the first runs of half of them open: those of the others are skipped.
    clock.advance(Duration::from_secs(60)).await;
    while q.one::<i32>("select divvy.fire_due(500)").await > 0 {}
    for _ in 0..6 {
        q.run("select divvy.fire_due(500)").await;
    }
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
