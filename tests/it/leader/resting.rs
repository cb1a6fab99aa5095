//! A leader sees to what is due, and asks little else.

use super::{candidate, terms};
use crate::support::db::TestDb;
use crate::support::race::until;
use divvy::leader::Duty;
use sqlx::{AssertSqlSafe, Executor};
use std::time::{Duration, Instant};

/// What a leader has asked, how often.
async fn asked(db: &TestDb) -> Vec<(String, i64)> {
    let calls = "select funcname::text, calls from pg_stat_user_functions
        where schemaname = 'divvy' and funcname in ('rests', 'fire_due', 'promote', 'settle', 'reclaim', 'advance_low_water', 'prune',
            'take_sample', 'look_for_alerts') order by 1";
    sqlx::query_as(calls).fetch_all(db.pool()).await.unwrap()
}

#[tokio::test]
async fn a_leader_asks_about_once_a_second_while_nothing_is_to_come() {
    const WATCHED: Duration = Duration::from_secs(6);
    let db = TestDb::new().await;
    let count = format!("alter database {} set track_functions = 'pl'", db.name());
    db.connect().await.execute(AssertSqlSafe(count)).await.unwrap();
    let mut only = candidate(db.options(), "only");
    only.leads(0).await;
    let began = Instant::now();
    until("time has passed", async || began.elapsed() > WATCHED).await;
    only.ends().await;
    // Its sessions report when they end.
    let mut seen = Vec::new();
    until("its sessions have reported", async || {
        seen = asked(&db).await;
        seen.len() == 1 + Duty::ALL.len()
    })
    .await;
    // It begins with a pass of each duty, or two; it looks once a second, and reclaims at least each five.
    let times: i64 = seen.iter().map(|(_, calls)| calls).sum();
    let most = 2 * Duty::ALL.len() as i64 + 2 * WATCHED.as_secs() as i64;
    assert!(times <= most, "{times} calls in {WATCHED:?}: {seen:?}");
}

#[tokio::test]
async fn a_leader_that_cannot_tell_how_long_to_rest_leads_on_and_does_its_duties() {
    let db = TestDb::new().await;
    db.pool().execute("drop function divvy.rests()").await.unwrap();
    let mut only = candidate(db.options(), "only");
    let term = only.leads(0).await;
    until("its connection answers", async || {
        sqlx::query_scalar(
            "select exists (select from pg_stat_activity
               where datname = current_database() and application_name = 'divvy leader' and query = 'select 1')",
        )
        .fetch_one(db.pool())
        .await
        .unwrap()
    })
    .await;
    db.pool()
        .execute(
            "select divvy.put_task_type('a');
             insert into divvy.task (task_type, run_at) values ('a', divvy.clock() + interval '0.5 s')",
        )
        .await
        .unwrap();
    until("the task has started", async || {
        sqlx::query_scalar("select status = 'running' from divvy.task").fetch_one(db.pool()).await.unwrap()
    })
    .await;
    assert_eq!(terms(db.pool()).await.len(), 1);
    assert!(term > 0);
    only.ends().await;
}
