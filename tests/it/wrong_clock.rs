//! Clocks that are wrong: those of processes, which nobody asks, and the database's, which is set forwards and back.
//!
//! A library before the C library's shifts what a process takes for the time, so this tests the program itself.

use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::program::{divvy, divvy_on, ok};
use crate::support::race::until;
use chrono::{DateTime, TimeDelta, Utc};
use divvy::leader::Duty;
use divvy::store::Store;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The clocks of the wall are wrong by `WRONG_BY` seconds; those that measure durations are right.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long wrong_by(void) { const char *text = getenv("WRONG_BY"); return text ? atol(text) : 0; }

int clock_gettime(clockid_t clock, struct timespec *at) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, at);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += wrong_by();
    return failed;
}
int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
    int failed = real(at, zone);
    if (!failed) at->tv_sec += wrong_by();
    return failed;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"#;

/// How far, in seconds.
const HOUR: i64 = 3_600;

/// A machine whose clock is wrong.
struct Machine {
    _folder: tempfile::TempDir,
    shim: PathBuf,
    wrong_by: i64,
}

impl Machine {
    /// None where programs can't be given another clock this way, or nobody can compile what does.
    fn wrong_by(seconds: i64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let (source, shim) = (folder.path().join("shim.c"), folder.path().join("shim.so"));
        std::fs::write(&source, SHIM).unwrap();
        let compiled =
            Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&shim, &source]).arg("-ldl").output();
        if !cfg!(target_os = "linux") || !compiled.is_ok_and(|output| output.status.success()) {
            eprintln!("not tested: this takes Linux and a C compiler");
            return None;
        }
        Some(Self { _folder: folder, shim, wrong_by: seconds })
    }

    fn run<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("LD_PRELOAD", &self.shim).env("WRONG_BY", self.wrong_by.to_string())
    }

    /// What this machine takes for the time, as far as divvy ever shows it.
    fn now(&self) -> DateTime<Utc> {
        let mut preview = divvy(&["schedule", "preview", "--every", "1s", "-n", "1", "--json"]);
        let told: Value = serde_json::from_str(&ok(self.run(&mut preview))).unwrap();
        told["moments"][0]["at"].as_str().unwrap().parse().unwrap()
    }
}

/// Ended with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn get<T>(pool: &PgPool, sql: &'static str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
}

const WORK: &str = r#"
    select divvy.put_task_type('note', '{"handler": {"sql": {"execute": "select 1"}}}');
    select divvy.put_task_type('long', '{"lease": "1 s", "handler": {"sql": {"execute": "select pg_sleep(3)"}}}');
    select divvy.put_task_type('flaky', '{"max_attempts": 3, "backoff": {"kind": "fixed", "base": 1, "jitter": 0}, "handler": {"sql": {"execute": "select 1 / 0"}}}');
    insert into divvy.task (task_type) values ('long'), ('flaky');
    insert into divvy.schedule (name, task_type, overlap, cron) values ('cron', 'note', 'allow', '* * * * * *');
    insert into divvy.schedule (name, task_type, overlap, every) values ('every', 'note', 'allow', '1 s');
    insert into divvy.schedule (name, task_type, overlap, steps) values ('steps', 'note', 'allow', '{1 s,2 s,4 s}');
    insert into divvy.schedule (name, task_type, overlap, run_at) values ('once', 'note', 'allow', now() + interval '3 s');
    insert into divvy.schedule (name, task_type, overlap, run_at) values ('later', 'note', 'allow', now() + interval '30 min');"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_and_a_worker_whose_clocks_are_wrong_by_an_hour_change_nothing() {
    for wrong_by in [HOUR, -HOUR] {
        let Some(machine) = Machine::wrong_by(wrong_by) else { return };
        let db = TestDb::new().await;
        let pool = db.pool();
        let right: DateTime<Utc> = get(pool, "select now()").await;
        let off = machine.now() - right - TimeDelta::seconds(wrong_by);
        assert!(off.abs() < TimeDelta::minutes(5), "its clock is wrong by {wrong_by} s, and {off} beside");
        sqlx::raw_sql(WORK).execute(pool).await.unwrap();
        let mut worker = divvy_on(db.url(), &["worker"]);
        let _worker =
            Process(machine.run(&mut worker).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        until("all that is due has ended", async || {
            get(
                pool,
                "select (select count(*) from divvy.schedule_fire) >= 16 and (select count(*) = 2 from divvy.schedule where status = 'done')
                    and not exists (select from divvy.task where task_type <> 'note' and finished_at is null)",
            )
            .await
        })
        .await;
        // An hour off, nothing would be due, or all of an hour.
        let fires: (i64, i64, i64) = sqlx::query_as(
            "select count(*) filter (where outcome not in ('fired', 'missed') or fire_at > at), count(*) filter (where late > interval '10 min'),
                count(*) filter (where schedule_id = (select id from divvy.schedule where name = 'later')) from divvy.schedule_fire",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        assert_eq!(fires, (0, 0, 0), "neither fired nor missed, or too early; too late; of a moment to come");
        let ended: Vec<(String, String, i32)> = sqlx::query_as(
            "select k.task_type, k.status::text, s.attempt from divvy.task k join divvy.split_overview s on s.task_id = k.id
             where k.task_type <> 'note' order by 1",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        let expected =
            [("flaky", "failed", 3), ("long", "succeeded", 1)].map(|(a, b, n)| (a.into(), b.into(), n));
        assert_eq!(ended, expected, "leases hold, retries come after a second each");
        let retried: bool = get(
            pool,
            "select finished_at - created_at between interval '2 s' and interval '10 min' from divvy.task where task_type = 'flaky'",
        )
        .await;
        assert!(retried);
    }
}

#[tokio::test]
async fn a_command_on_a_machine_whose_clock_is_wrong_asks_the_database_for_the_time() {
    let Some(machine) = Machine::wrong_by(HOUR) else { return };
    let db = TestDb::new().await;
    let now: DateTime<Utc> = get(db.pool(), "select now()").await;
    let soon = (now + TimeDelta::minutes(10)).to_rfc3339();
    let tell = |args: &[&str]| -> Value {
        let mut command = divvy_on(db.url(), &[args, &["--json"]].concat());
        serde_json::from_str(&ok(machine.run(&mut command))).unwrap()
    };
    // For this machine it has passed already.
    let put = tell(&["schedule", "put", "soon", "--type", "note", "--run-at", &soon]);
    assert_eq!(put["outcome"], json!("created"));
    let at = tell(&["schedule", "preview", "soon"])["moments"][0]["at"].clone();
    assert_eq!(
        at.as_str().unwrap().parse::<DateTime<Utc>>().unwrap(),
        soon.parse::<DateTime<Utc>>().unwrap()
    );
    tell(&["schedule", "put", "beat", "--type", "note", "--every", "1m"]);
    let next = tell(&["schedule", "preview", "beat", "-n", "1"])["moments"][0]["at"].clone();
    let ahead = next.as_str().unwrap().parse::<DateTime<Utc>>().unwrap() - now;
    assert!(ahead < TimeDelta::minutes(5), "{ahead}");
}

/// Moments at which the database's clock is looked at, in seconds after the start: forwards, back, far ahead, far back.
const SETTINGS: [i64; 14] =
    [5, 65, 3_665, 40, 100, 3_670, 3_600, 90_000, -90_000, 0, 89_990, 90_010, 86_400, 90_070];

#[tokio::test]
async fn the_database_s_clock_set_forwards_and_back_loses_no_moment_and_doubles_none() {
    let db = TestDb::new().await;
    let pool = db.pool();
    let clock = Clock::stop(&db).await;
    let start: DateTime<Utc> = "2026-11-20T12:00:00Z".parse().unwrap();
    clock.set(start).await;
    sqlx::raw_sql(
        "select divvy.put_task_type('note');
         insert into divvy.schedule (name, task_type, overlap, every) values ('every', 'note', 'allow', '10 s');
         insert into divvy.schedule (name, task_type, overlap, catch_up, cron) values ('cron', 'note', 'allow', 'all', '*/10 * * * * *');
         insert into divvy.schedule (name, task_type, overlap, steps) values ('steps', 'note', 'allow', '{10 s,1 h,25 h}');
         insert into divvy.schedule (name, task_type, overlap, run_at) values ('once', 'note', 'allow', now() + interval '100 years');
         update divvy.schedule set run_at = divvy.clock() + interval '1 h', moment_at = divvy.clock() + interval '1 h',
            next_fire_at = divvy.clock() + interval '1 h' where name = 'once';",
    )
    .execute(pool)
    .await
    .unwrap();
    let mut latest = 0;
    for seconds in SETTINGS {
        clock.set(start + TimeDelta::seconds(seconds)).await;
        latest = latest.max(seconds);
        for _ in 0..4 {
            Duty::Fire.run_once(&Store::new(pool.clone())).await.unwrap();
        }
        let decided: Vec<(String, i64)> = sqlx::query_as(
            "select s.name, coalesce(sum(f.count), 0)::bigint from divvy.schedule s left join divvy.schedule_fire f on f.schedule_id = s.id
             group by 1 order by 1",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        let steps = [10, 3_600, 90_000].iter().filter(|at| **at <= latest).count() as i64;
        let beats = latest / 10;
        let expected =
            [("cron", beats), ("every", beats), ("once", i64::from(latest >= 3_600)), ("steps", steps)];
        assert_eq!(decided, expected.map(|(name, count)| (name.to_owned(), count)), "at {seconds} s");
    }
    let twice: i64 =
        get(pool, "select count(*) - count(distinct (schedule_id, scheduled_for)) from divvy.task").await;
    assert_eq!(twice, 0);
}
