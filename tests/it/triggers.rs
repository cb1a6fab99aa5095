//! All four kinds of schedules fire, each moment once, by the database's clock.

use crate::support::clock::Clock;
use crate::support::db::TestDb;
use chrono::{DateTime, Utc};
use divvy::leader::Duty;
use divvy::store::Store;
use sqlx::PgPool;
use std::time::Duration;

/// One pass of the duty, as the leader makes it. Returns how many schedules fired.
async fn fire(db: &TestDb) -> i32 {
    Duty::Fire.run_once(&Store::new(db.pool().clone())).await.unwrap().done
}

/// Sets the clock and makes passes until nothing is due and every cron schedule has its plan.
async fn fire_at(db: &TestDb, clock: &Clock, at: &str) {
    clock.set(utc(at)).await;
    for _ in 0..10 {
        fire(db).await;
        let left: bool = sqlx::query_scalar(
            "select exists (select from divvy.schedule s where s.status = 'active'
                and (s.next_fire_at <= divvy.clock() or (s.cron is not null and s.next_fire_at is null)))",
        )
        .fetch_one(db.pool())
        .await
        .unwrap();
        if !left {
            return;
        }
    }
    panic!("a schedule fires without end at {at}");
}

fn utc(text: &str) -> DateTime<Utc> {
    format!("{}Z", text.replace(' ', "T")).parse().unwrap()
}

async fn schedule(pool: &PgPool, name: &str, column: &str, value: &str) {
    let insert = format!(
        "insert into divvy.schedule (task_type, name, overlap, {column}) values ('note', $1, 'allow', {value})"
    );
    sqlx::query(sqlx::AssertSqlSafe(insert)).bind(name).execute(pool).await.unwrap();
}

/// The schedule's ledger: the time of each moment and what became of it.
async fn ledger(pool: &PgPool, name: &str) -> Vec<String> {
    sqlx::query_scalar(
        "select to_char(f.fire_at at time zone 'UTC', 'DD HH24:MI:SS') || ' ' || f.outcome
           from divvy.schedule_fire f join divvy.schedule s on s.id = f.schedule_id
          where s.name = $1 order by f.fire_at",
    )
    .bind(name)
    .fetch_all(pool)
    .await
    .unwrap()
}

async fn standing(pool: &PgPool, name: &str) -> (String, Option<String>) {
    sqlx::query_as("select status::text, reason from divvy.schedule where name = $1")
        .bind(name)
        .fetch_one(pool)
        .await
        .unwrap()
}

/// A database whose clock stands at noon of 20 November 2026, a Friday.
async fn at_noon() -> (TestDb, Clock) {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    clock.set(utc("2026-11-20 12:00:00")).await;
    (db, clock)
}

#[tokio::test]
async fn a_cron_schedule_fires_once_at_each_of_its_moments() {
    let (db, clock) = at_noon().await;
    schedule(db.pool(), "hourly", "cron", "'0 * * * *'").await;
    assert_eq!(fire(&db).await, 0);
    fire_at(&db, &clock, "2026-11-20 12:59:59").await;
    assert_eq!(ledger(db.pool(), "hourly").await, Vec::<String>::new());
    for at in ["2026-11-20 13:00:00", "2026-11-20 13:00:00", "2026-11-20 14:00:00"] {
        fire_at(&db, &clock, at).await;
    }
    assert_eq!(ledger(db.pool(), "hourly").await, ["20 13:00:00 fired", "20 14:00:00 fired"]);
    let scheduled_for: Vec<DateTime<Utc>> =
        sqlx::query_scalar("select scheduled_for from divvy.task order by id")
            .fetch_all(db.pool())
            .await
            .unwrap();
    assert_eq!(scheduled_for, [utc("2026-11-20 13:00:00"), utc("2026-11-20 14:00:00")]);
}

#[tokio::test]
async fn a_stepped_schedule_fires_at_each_offset_and_is_done() {
    let (db, clock) = at_noon().await;
    schedule(db.pool(), "ladder", "steps", "array['3 s', '5 s', '10 s']::interval[]").await;
    for second in 0..12 {
        fire_at(&db, &clock, &format!("2026-11-20 12:00:{second:02}")).await;
    }
    let expected = ["20 12:00:03 fired", "20 12:00:05 fired", "20 12:00:10 fired"];
    assert_eq!(ledger(db.pool(), "ladder").await, expected);
    assert_eq!(standing(db.pool(), "ladder").await.0, "done");
}

#[tokio::test]
async fn a_timed_schedule_fires_once_and_is_done() {
    let (db, clock) = at_noon().await;
    schedule(db.pool(), "once", "run_at", "'2026-11-20 12:00:30+00'").await;
    for at in ["2026-11-20 12:00:29", "2026-11-20 12:00:30", "2026-11-21 12:00:30"] {
        fire_at(&db, &clock, at).await;
    }
    assert_eq!(ledger(db.pool(), "once").await, ["20 12:00:30 fired"]);
    assert_eq!(standing(db.pool(), "once").await.0, "done");
}

#[tokio::test]
async fn an_interval_fires_on_its_beat_however_late_it_is_looked_at() {
    let (db, clock) = at_noon().await;
    schedule(db.pool(), "beat", "every", "'90 s'").await;
    schedule(db.pool(), "same", "cron", "'@every 90s'").await;
    for at in ["2026-11-20 12:01:31", "2026-11-20 12:03:29", "2026-11-20 12:04:30"] {
        fire_at(&db, &clock, at).await;
    }
    let expected = ["20 12:01:30 fired", "20 12:03:00 fired", "20 12:04:30 fired"];
    assert_eq!(ledger(db.pool(), "beat").await, expected);
    assert_eq!(ledger(db.pool(), "same").await, expected);
}

#[tokio::test]
async fn after_a_downtime_the_latest_moment_fires_and_the_earlier_are_missed() {
    let (db, clock) = at_noon().await;
    schedule(db.pool(), "cron", "cron", "'0 * * * *'").await;
    schedule(db.pool(), "beat", "every", "'1 hour'").await;
    fire_at(&db, &clock, "2026-11-20 15:30:00").await;
    let expected = ["20 13:00:00 missed", "20 14:00:00 missed", "20 15:00:00 fired"];
    assert_eq!(ledger(db.pool(), "cron").await, expected);
    assert_eq!(ledger(db.pool(), "beat").await, expected);
}

#[tokio::test]
async fn a_moment_planned_before_a_downtime_is_missed_when_a_later_one_is_due() {
    let (db, clock) = at_noon().await;
    schedule(db.pool(), "cron", "cron", "'0 * * * *'").await;
    // Planned at noon for 13:00; then nobody looks until the evening.
    for at in ["2026-11-20 12:00:01", "2026-11-20 15:30:00", "2026-11-20 16:00:30"] {
        fire_at(&db, &clock, at).await;
    }
    let expected = ["20 13:00:00 missed", "20 14:00:00 missed", "20 15:00:00 fired", "20 16:00:00 fired"];
    assert_eq!(ledger(db.pool(), "cron").await, expected);
}

#[tokio::test]
async fn moments_count_from_the_insert_not_from_the_first_look() {
    let (db, clock) = at_noon().await;
    clock.set(utc("2026-11-20 12:59:50")).await;
    schedule(db.pool(), "hourly", "cron", "'0 * * * *'").await;
    fire_at(&db, &clock, "2026-11-20 13:00:05").await;
    assert_eq!(ledger(db.pool(), "hourly").await, ["20 13:00:00 fired"]);
}

#[tokio::test]
async fn a_cron_schedule_reads_the_clock_of_its_zone_through_both_changes() {
    let (db, clock) = at_noon().await;
    clock.set(utc("2027-03-27 12:00:00")).await;
    sqlx::query(
        "insert into divvy.schedule (task_type, name, overlap, cron, timezone, dst_gap, dst_fold)
         values ('note', 'default', 'allow', '30 2 * * *', 'Europe/Berlin', 'shift', 'first'),
                ('note', 'other', 'allow', '30 2 * * *', 'Europe/Berlin', 'skip', 'both')",
    )
    .execute(db.pool())
    .await
    .unwrap();
    // 28 March: 02:30 does not exist, and 01:00 UTC is 03:00 in Berlin.
    for at in ["2027-03-28 01:00:00", "2027-03-29 00:30:00"] {
        fire_at(&db, &clock, at).await;
    }
    assert_eq!(ledger(db.pool(), "default").await, ["28 01:00:00 fired", "29 00:30:00 fired"]);
    assert_eq!(ledger(db.pool(), "other").await, ["29 00:30:00 fired"]);

    sqlx::query("delete from divvy.schedule_fire").execute(db.pool()).await.unwrap();
    for at in ["2027-10-29 12:00:00", "2027-10-30 00:30:00", "2027-10-31 00:30:00", "2027-10-31 01:30:00"] {
        fire_at(&db, &clock, at).await;
    }
    let fired =
        |ledger: Vec<String>| ledger.into_iter().filter(|row| row.ends_with("fired")).collect::<Vec<_>>();
    let first = ["29 00:30:00 fired", "30 00:30:00 fired", "31 00:30:00 fired"];
    assert_eq!(fired(ledger(db.pool(), "default").await), first);
    let both = ["29 00:30:00 fired", "30 00:30:00 fired", "31 00:30:00 fired", "31 01:30:00 fired"];
    assert_eq!(fired(ledger(db.pool(), "other").await), both);
}

#[tokio::test]
async fn several_expressions_of_one_schedule_fire_at_the_moments_of_all() {
    let (db, clock) = at_noon().await;
    schedule(db.pool(), "both", "cron", "'15 13 * * *; 45 13 * * FRI'").await;
    for at in ["2026-11-20 13:15:00", "2026-11-20 13:45:00", "2026-11-21 13:15:00", "2026-11-21 13:45:00"] {
        fire_at(&db, &clock, at).await;
    }
    let expected = ["20 13:15:00 fired", "20 13:45:00 fired", "21 13:15:00 fired"];
    assert_eq!(ledger(db.pool(), "both").await, expected);
}

#[tokio::test]
async fn a_cron_expression_that_cannot_be_read_is_refused_with_the_parsers_words() {
    let (db, _clock) = at_noon().await;
    schedule(db.pool(), "bad", "cron", "'0 25 * * *'").await;
    schedule(db.pool(), "never", "cron", "'0 0 30 2 *'").await;
    schedule(db.pool(), "good", "cron", "'0 12 * * *'").await;
    fire(&db).await;
    let (status, reason) = standing(db.pool(), "bad").await;
    assert_eq!(status, "refused");
    assert!(reason.unwrap().starts_with("cron field hour is \"25\" in \"0 25 * * *\": 0 to 23"));
    let (status, reason) = standing(db.pool(), "never").await;
    assert_eq!(status, "refused");
    assert!(reason.unwrap().contains("never fires"));
    assert_eq!(standing(db.pool(), "good").await, ("active".to_owned(), None));
    let events: Vec<String> = sqlx::query_scalar(
        "select object_id from divvy.event where object = 'schedule' and verb like 'refuse%' order by id",
    )
    .fetch_all(db.pool())
    .await
    .unwrap();
    assert_eq!(events.len(), 2, "{events:?}");
    // A pass does not look at them again.
    assert_eq!(fire(&db).await, 0);
}

#[tokio::test]
async fn a_schedule_without_a_moment_left_is_done() {
    let (db, clock) = at_noon().await;
    sqlx::query(
        "insert into divvy.schedule (task_type, name, overlap, cron, ends_at)
         values ('note', 'ends', 'allow', '0 * * * *', '2026-11-20 14:00+00')",
    )
    .execute(db.pool())
    .await
    .unwrap();
    for at in ["2026-11-20 13:00:00", "2026-11-20 14:00:00", "2026-11-20 15:00:00"] {
        fire_at(&db, &clock, at).await;
    }
    assert_eq!(ledger(db.pool(), "ends").await, ["20 13:00:00 fired"]);
    assert_eq!(standing(db.pool(), "ends").await.0, "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_leaders_at_once_fire_each_moment_once() {
    let (db, clock) = at_noon().await;
    sqlx::query(
        "insert into divvy.schedule (task_type, name, overlap, cron)
         select 'note', 'many-' || n, 'allow', '0 * * * *' from generate_series(1, 200) n",
    )
    .execute(db.pool())
    .await
    .unwrap();
    for at in ["2026-11-20 12:00:01", "2026-11-20 13:00:00", "2026-11-20 16:00:00"] {
        clock.set(utc(at)).await;
        let store = Store::new(db.pool().clone());
        let leaders: Vec<_> = (0..6)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    for _ in 0..4 {
                        Duty::Fire.run_once(&store).await.unwrap();
                    }
                })
            })
            .collect();
        for leader in leaders {
            leader.await.unwrap();
        }
        fire_at(&db, &clock, at).await;
    }
    let counts: (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from divvy.task),
                (select count(*) from divvy.schedule_fire where outcome = 'fired'),
                (select count(*) from divvy.schedule_fire where outcome = 'missed')",
    )
    .fetch_one(db.pool())
    .await
    .unwrap();
    // 13:00 and 16:00 fired; 14:00 and 15:00 were missed.
    assert_eq!(counts, (400, 400, 400));
}

#[tokio::test]
async fn the_tick_command_plans_and_fires() {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    schedule(db.pool(), "daily", "cron", "'0 0 * * *'").await;
    let tick =
        || crate::support::program::ok(&mut crate::support::program::divvy_on(db.url(), &["tick", "--json"]));
    let told: serde_json::Value = serde_json::from_str(&tick()).unwrap();
    assert_eq!(told["duties"][0], serde_json::json!({"duty": "plan", "done": 1}));
    clock.advance(Duration::from_secs(86_400)).await;
    let told: serde_json::Value = serde_json::from_str(&tick()).unwrap();
    assert_eq!(told["duties"][1], serde_json::json!({"duty": "fire", "done": 1}));
}
