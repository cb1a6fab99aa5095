//! Moments that came while nobody looked, and how far a fire may lie from its moment.

use super::{fired, ledger, pass, state};
use crate::support::clock::Clock;
use crate::support::queue::Queue;
use std::collections::BTreeSet;
use std::time::Duration;

async fn with(columns: &str, values: &str) -> (Queue, Clock) {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run(format!("insert into divvy.schedule (name, task_type, {columns}) values ('s', 'a', {values})"))
        .await;
    (q, clock)
}

/// How many moments have which outcome.
async fn counts(q: &mut Queue) -> Vec<(String, i64)> {
    assert_eq!(
        q.one::<i64>("select count(*) from divvy.event where verb = 'fire'").await,
        0,
        "nothing went wrong"
    );
    q.rows("select outcome, sum(count)::bigint from divvy.schedule_fire group by 1 order by 1").await
}

fn are(counts: Vec<(String, i64)>, expected: &[(&str, i64)]) {
    let expected: Vec<(String, i64)> = expected.iter().map(|(word, n)| ((*word).to_owned(), *n)).collect();
    assert_eq!(counts, expected);
}

#[tokio::test]
async fn none_fires_what_is_in_time_and_nothing_after_a_downtime() {
    let (mut q, clock) = with("every, catch_up", "'1 min', 'none'").await;
    pass(&mut q, &clock, 60).await;
    assert_eq!(fired(&mut q, "s").await, [60]);
    clock.advance(Duration::from_secs(3 * 60 + 16)).await;
    q.tick().await;
    are(counts(&mut q).await, &[("fired", 1), ("missed", 3)]);
    clock.advance(Duration::from_secs(44 + 14)).await;
    q.tick().await;
    are(counts(&mut q).await, &[("fired", 2), ("missed", 3)]);
    assert_eq!(
        ledger(&mut q, "s").await.last(),
        Some(&(300, "fired".into())),
        "a fail-over's lateness is no downtime"
    );
}

#[tokio::test]
async fn all_makes_up_for_the_latest_moments_of_its_window_one_pace_apart() {
    let (mut q, clock) = with(
        "every, catch_up, catch_up_max, catch_up_window, catch_up_pace",
        "'10 s', 'all', 4, '1 min', '3 s'",
    )
    .await;
    clock.advance(Duration::from_secs(105)).await;
    q.tick().await;
    are(counts(&mut q).await, &[("fired", 1), ("missed", 6), ("waiting", 3)]);
    let reasons: Vec<String> =
        q.all("select distinct reason from divvy.schedule_fire where outcome = 'missed' order by 1").await;
    assert!(reasons[0].contains("4 later ones are made up for"), "{reasons:?}");
    assert!(reasons[1].contains("older than catch_up_window 00:01:00"), "{reasons:?}");
    // One after another: no faster than the pace, and the next only when the one before has ended.
    let mut made = vec![];
    for _ in 0..14 {
        clock.advance(Duration::from_secs(1)).await;
        q.tick().await;
        made.push(q.one::<i64>("select count(*) from divvy.task where scheduled_for < (select created_at from divvy.schedule) + interval '101 s'").await);
        for split in q.claim_up_to("a", 9).await {
            q.complete(&split).await;
        }
    }
    assert_eq!(made[..12], [1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4]);
    let nominal: Vec<i32> = q
        .all("select extract(epoch from k.scheduled_for - s.created_at)::int from divvy.task k join divvy.schedule s on s.id = k.schedule_id order by k.id")
        .await;
    assert_eq!(nominal[..5], [70, 80, 90, 100, 110], "in order, and what comes meanwhile goes behind");
}

#[tokio::test]
async fn what_is_made_up_for_is_not_skipped_for_an_open_run() {
    let (mut q, clock) = with("every, catch_up, catch_up_pace", "'10 min', 'all', '0 s'").await;
    clock.advance(Duration::from_secs(31 * 60)).await;
    q.tick().await;
    are(counts(&mut q).await, &[("fired", 1), ("waiting", 2)]);
    for _ in 0..3 {
        assert!(q.claim_up_to("a", 1).await.len() == 1);
        let open: i64 = q.one("select count(*) from divvy.task where finished_at is null").await;
        assert_eq!(open, 1, "skip means never two at once");
        q.run("select divvy.complete(l.split_ids[1], l.token) from divvy.lease l").await;
        q.tick().await;
    }
    are(counts(&mut q).await, &[("fired", 3)]);
}

#[tokio::test]
async fn a_start_after_a_long_time_never_floods() {
    let (mut q, clock) = with("every, catch_up, overlap", "'1 s', 'all', 'allow'").await;
    clock.advance(Duration::from_secs(40 * 86_400)).await;
    q.tick().await;
    are(counts(&mut q).await, &[("fired", 1), ("missed", 40 * 86_400 - 100), ("waiting", 99)]);
    assert_eq!(
        q.one::<i64>("select count(*) from divvy.schedule_fire where outcome = 'missed'").await,
        2,
        "a row for each reason"
    );
    clock.advance(Duration::from_millis(500)).await;
    q.tick().await;
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 1);
    clock.advance(Duration::from_secs(10)).await;
    q.tick().await;
    // Ten of the old ones, and of the new ones as many as there are.
    assert_eq!(q.one::<i64>("select count(*) from divvy.task where scheduled_for <= (select created_at from divvy.schedule) + interval '40 days'").await, 11);
}

#[tokio::test]
async fn jitter_is_the_same_for_the_same_moment_and_within_its_bounds() {
    let (mut q, clock) = with("every, jitter, overlap", "'10 s', '8 s', 'allow'").await;
    let told: Vec<f64> = q
        .all("select extract(epoch from divvy.jitter_of(s, s.created_at + i * s.every))::float8 from divvy.schedule s, generate_series(1, 20) i")
        .await;
    assert!(told.iter().all(|jitter| (0.0..8.0).contains(jitter)), "{told:?}");
    assert!(told.iter().map(|jitter| (jitter * 1e6) as i64).collect::<BTreeSet<_>>().len() > 15, "{told:?}");
    pass(&mut q, &clock, 20 * 10 + 9).await;
    let made: Vec<(i32, f64, f64)> = q
        .rows(
            "select extract(epoch from f.fire_at - s.created_at)::int, extract(epoch from f.at - f.fire_at)::float8,
                extract(epoch from f.late)::float8
             from divvy.schedule_fire f join divvy.schedule s on s.id = f.schedule_id where f.outcome = 'fired' order by f.fire_at",
        )
        .await;
    assert_eq!(made.len(), 20);
    for ((at, after, late), (i, jitter)) in made.iter().zip(told.iter().enumerate()) {
        assert_eq!(*at, 10 * (i as i32 + 1), "the ledger and the handler keep the nominal moment");
        assert!((jitter..&(jitter + 1.0)).contains(&after), "{after} for {jitter}");
        assert!((0.0..1.0).contains(late), "it is late only against its own time: {late}");
    }
}

#[tokio::test]
async fn max_runs_counts_tasks_and_ends_the_schedule() {
    let (mut q, clock) =
        with("every, max_runs, catch_up, catch_up_pace, overlap", "'10 s', 3, 'all', '0 s', 'allow'").await;
    clock.advance(Duration::from_secs(65)).await;
    q.tick().await;
    q.tick().await;
    are(counts(&mut q).await, &[("fired", 3), ("skipped", 3)]);
    assert_eq!(state(&mut q, "s").await, "done");
    let reason: String =
        q.one("select distinct reason from divvy.schedule_fire where outcome = 'skipped'").await;
    assert_eq!(reason, "max_runs is 3");
}

#[tokio::test]
async fn what_was_due_during_a_pause_says_so() {
    let (mut q, clock) = with("every", "'10 s'").await;
    clock.advance(Duration::from_secs(5)).await;
    q.run("select divvy.pause_schedule('s', reason => 'migration')").await;
    clock.advance(Duration::from_secs(20)).await;
    q.run("select divvy.resume_schedule('s')").await;
    clock.advance(Duration::from_secs(20)).await;
    q.tick().await;
    let rows: Vec<(String, Option<String>)> =
        q.rows("select outcome, reason from divvy.schedule_fire order by fire_at").await;
    let paused = ("missed".to_owned(), Some("it was paused: migration".to_owned()));
    assert_eq!(rows[..2], [paused.clone(), paused]);
    assert_eq!(rows[2], ("missed".to_owned(), Some("nobody was there to fire it".to_owned())));
    assert_eq!(rows[3].0, "fired");
}
