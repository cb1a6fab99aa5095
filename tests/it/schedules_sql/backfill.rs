//! Past moments are made again, a few at a time.

use super::{fired, pass};
use crate::support::clock::Clock;
use crate::support::queue::Queue;
use std::time::Duration;

async fn daily() -> (Queue, Clock) {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run("insert into divvy.schedule (name, task_type, every) values ('s', 'a', '1 day')").await;
    (q, clock)
}

const WEEK: &str = "select divvy.backfill_schedule('s', array(select created_at - i * every from generate_series(1, 7) i), 2, 'new data') from divvy.schedule";

#[tokio::test]
async fn no_more_of_them_are_open_than_asked_for_and_each_sees_its_moment() {
    let (mut q, clock) = daily().await;
    assert_eq!(q.one::<i32>(WEEK).await, 7);
    assert_eq!(q.last_event("schedule", "s").await.reason.as_deref(), Some("new data"));
    let mut seen = vec![];
    for _ in 0..7 {
        let open: i64 = q.one("select count(*) from divvy.task where finished_at is null").await;
        assert!((1..=2).contains(&open), "{open}");
        let split = q.work("a").await;
        seen.push(
            q.one::<i32>(format!(
                "select extract(day from s.created_at - k.scheduled_for)::int from divvy.task k join divvy.schedule s on s.id = k.schedule_id where k.id = {}",
                split.task_id
            ))
            .await,
        );
        clock.advance(Duration::from_secs(1)).await;
        q.tick().await;
    }
    assert_eq!(seen, [7, 6, 5, 4, 3, 2, 1], "oldest first");
    assert_eq!(q.one::<i32>(WEEK).await, 0, "a moment is backfilled once");
    assert_eq!(
        q.one::<i64>(
            "select count(*) from divvy.schedule_fire where kind = 'backfill' and outcome = 'fired'"
        )
        .await,
        7
    );
    assert_eq!(q.one::<i32>("select runs from divvy.schedule").await, 0, "they are beside the rule");
}

#[tokio::test]
async fn a_backfill_neither_keeps_the_rule_from_firing_nor_is_kept() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run("insert into divvy.schedule (name, task_type, every) values ('s', 'a', '10 s')").await;
    q.run(WEEK).await;
    clock.advance(Duration::from_secs(10)).await;
    q.tick().await;
    assert_eq!(fired(&mut q, "s").await, [10]);
    pass(&mut q, &clock, 9).await;
    assert_eq!(
        q.one::<i64>(
            "select count(*) from divvy.schedule_fire where kind = 'backfill' and outcome = 'waiting'"
        )
        .await,
        0
    );
}

#[tokio::test]
async fn a_paused_schedule_holds_its_backfill_and_a_cancelled_one_drops_it() {
    let (mut q, clock) = daily().await;
    q.run("select divvy.pause_schedule('s')").await;
    q.run(WEEK).await;
    clock.advance(Duration::from_secs(90)).await;
    q.tick().await;
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 0);
    q.run("select divvy.resume_schedule('s')").await;
    q.tick().await;
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 2);
    q.run("select divvy.cancel_schedule('s', 'over')").await;
    let left: Vec<(String, String)> =
        q.rows("select distinct outcome, reason from divvy.schedule_fire where outcome <> 'fired'").await;
    assert_eq!(left, [("skipped".to_owned(), "over".to_owned())]);
}

#[tokio::test]
async fn moments_that_cannot_be_backfilled_are_refused() {
    let (mut q, _clock) = daily().await;
    for (moments, more, code, names) in [
        (
            "array[divvy.clock() + interval '1 s']",
            "",
            "DV010",
            vec!["schedule s: backfill", "does not lie between"],
        ),
        ("array[null]::timestamptz[]", "", "DV010", vec!["moment null"]),
        ("array['-infinity']::timestamptz[]", "", "DV010", vec!["-infinity"]),
        ("array[divvy.clock()]", ", 0", "DV010", vec!["max_running is 0"]),
        (
            "array(select divvy.clock() - i * interval '1 s' from generate_series(1, 10001) i)",
            "",
            "DV003",
            vec!["10001", "10000"],
        ),
    ] {
        q.refused(format!("select divvy.backfill_schedule('s', {moments}{more})")).await.says(code, &names);
    }
    q.refused("select divvy.backfill_schedule('t', '{}')").await.says("DV011", &["open schedule", "t"]);
}
