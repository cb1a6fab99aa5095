//! Calendars: moments on days that are no working days are skipped or moved, and say why.

use super::state;
use crate::support::clock::Clock;
use crate::support::queue::Queue;
use std::time::Duration;

/// Nine in the morning of every day in Berlin, by planned moments from Wednesday 23 December 2026 on.
async fn daily(shift: &str) -> (Queue, Clock) {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    clock.set("2026-12-22T12:00:00Z".parse().unwrap()).await;
    q.run(r#"select divvy.put_calendar('bank', '{"excluded": [{"date": "2026-12-25", "note": "Christmas"}], "included": ["2026-12-27"]}')"#).await;
    q.run(format!(
        "insert into divvy.schedule (name, task_type, cron, timezone, calendar, calendar_shift, overlap)
         values ('s', 'a', '0 9 * * *', 'Europe/Berlin', 'bank', '{shift}', 'allow');
         select divvy.plan_schedule(schedule_id, planned_from, array(select '2026-12-23T08:00Z'::timestamptz + i * interval '1 day'
            from generate_series(0, 9) i), '2027-01-01T08:00Z') from divvy.schedules_to_plan()"
    ))
    .await;
    (q, clock)
}

/// Every day's tick at half past eight and at half past nine; what fired when, and the other rows.
async fn week(q: &mut Queue, clock: &Clock) -> (Vec<(String, String)>, Vec<(String, String, String)>) {
    clock.set("2026-12-23T07:30:00Z".parse().unwrap()).await;
    for _ in 0..8 {
        q.tick().await;
        clock.advance(Duration::from_secs(3600)).await;
        q.tick().await;
        clock.advance(Duration::from_secs(23 * 3600)).await;
    }
    assert_eq!(
        q.one::<i64>("select count(*) from divvy.event where verb = 'fire'").await,
        0,
        "nothing went wrong"
    );
    let fired = q
        .rows(
            "select to_char(fire_at at time zone 'UTC', 'DD'), to_char(at at time zone 'UTC', 'DD') from divvy.schedule_fire
             where outcome = 'fired' order by fire_at",
        )
        .await;
    let others = q
        .rows(
            "select to_char(fire_at at time zone 'UTC', 'DD'), outcome, reason from divvy.schedule_fire
             where outcome <> 'fired' order by fire_at",
        )
        .await;
    (fired, others)
}

fn days(rows: &[(String, String)]) -> Vec<(&str, &str)> {
    rows.iter().map(|(moment, at)| (moment.as_str(), at.as_str())).collect()
}

#[tokio::test]
async fn what_falls_on_another_day_is_skipped_with_the_calendar_s_reason() {
    let (mut q, clock) = daily("skip").await;
    let (fired, others) = week(&mut q, &clock).await;
    // The 26th is a Saturday; the 27th a Sunday, but included.
    assert_eq!(
        days(&fired),
        [("23", "23"), ("24", "24"), ("27", "27"), ("28", "28"), ("29", "29"), ("30", "30")]
    );
    assert_eq!(
        others[0],
        ("25".into(), "skipped".into(), "2026-12-25 is no working day of calendar bank (Christmas)".into())
    );
    assert_eq!(others[1].2, "2026-12-26 is no working day of calendar bank");
    assert_eq!(others.len(), 2);
}

#[tokio::test]
async fn next_moves_a_moment_to_the_next_working_day_where_its_own_moment_takes_it_in() {
    let (mut q, clock) = daily("next").await;
    let (fired, others) = week(&mut q, &clock).await;
    assert_eq!(
        days(&fired),
        [("23", "23"), ("24", "24"), ("27", "27"), ("28", "28"), ("29", "29"), ("30", "30")]
    );
    assert_eq!(others.len(), 2, "{others:?}");
    assert!(others.iter().all(|(_, outcome, _)| outcome == "merged"), "{others:?}");
    assert!(others[0].2.contains("moved to 2026-12-27: 2026-12-25 is no working day"), "{others:?}");
}

#[tokio::test]
async fn previous_fires_before_the_moment_and_never_again() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    clock.set("2026-12-22T12:00:00Z".parse().unwrap()).await;
    q.run(
        r#"select divvy.put_calendar('bank', '{"excluded": ["2026-12-25"]}');
        insert into divvy.schedule (name, task_type, run_at, calendar, calendar_shift)
            values ('s', 'a', '2026-12-26T09:00Z', 'bank', 'previous')"#,
    )
    .await;
    let next = "select to_char(next_fire_at at time zone 'UTC', 'DD HH24') from divvy.schedule";
    assert_eq!(q.one::<String>(next).await, "24 09", "that is when somebody looks");
    q.run(r#"select divvy.put_calendar('bank', '{"excluded": ["2026-12-24", "2026-12-25"]}')"#).await;
    assert_eq!(q.one::<String>(next).await, "23 09", "a calendar that changes moves what is to come");
    clock.set("2026-12-23T09:00:00Z".parse().unwrap()).await;
    q.tick().await;
    let row: (String, String, String) = q
        .rows("select outcome, to_char(fire_at at time zone 'UTC', 'DD'), reason from divvy.schedule_fire")
        .await
        .remove(0);
    assert_eq!((row.0.as_str(), row.1.as_str()), ("fired", "26"), "the moment stays what it is");
    assert!(row.2.starts_with("moved to 2026-12-23: 2026-12-26 is no working day"), "{}", row.2);
    clock.set("2026-12-27T09:00:00Z".parse().unwrap()).await;
    q.tick().await;
    assert_eq!(q.one::<i64>("select count(*) from divvy.task").await, 1);
    assert_eq!(state(&mut q, "s").await, "done");
}

#[tokio::test]
async fn calendars_are_refused_with_what_is_wrong() {
    let mut q = Queue::with_types(&["a"]).await;
    for (options, names) in [
        (r#"{"weekend": [8]}"#, vec!["calendar c", "weekend is [8]"]),
        (r#"{"weekend": [1,2,3,4,5,6,7]}"#, vec!["not all of them"]),
        (r#"{"weekend": ["x"]}"#, vec!["weekend is"]),
        (r#"{"excluded": ["2026-02-30"]}"#, vec!["excluded", "2026-02-30"]),
        (
            r#"{"excluded": ["2026-12-25"], "included": ["2026-12-25"]}"#,
            vec!["included", "a date stands in one list, once"],
        ),
        (r#"{"closed": []}"#, vec!["unknown option 'closed'"]),
    ] {
        q.refused(format!("select divvy.put_calendar('c', '{options}')")).await.says("DV010", &names);
    }
    q.run("select divvy.put_calendar('c')").await;
    q.run("insert into divvy.schedule (name, task_type, every, calendar) values ('s', 'a', '1 day', 'c')")
        .await;
    q.refused("select divvy.drop_calendar('c')").await.says("DV004", &["calendar c is used by schedule s"]);
    q.run("select divvy.cancel_schedule('s'); select divvy.drop_calendar('c')").await;
    q.refused("select divvy.drop_calendar('c')").await.says("DV011", &["calendar c"]);
    assert_eq!(q.last_event("calendar", "c").await.verb, "drop_calendar");
}
