//! The database's clock in the test's hand: the body of `divvy.clock()` is replaced in this database alone,
//! and every session follows at once.

use super::db::TestDb;
use chrono::{DateTime, Utc};
use sqlx::{Executor, PgPool};
use std::time::Duration;

/// A clock that only moves when told to.
pub struct Clock {
    pool: PgPool,
}

impl Clock {
    /// Stops the database's clock at this moment.
    pub async fn stop(db: &TestDb) -> Self {
        let pool = db.pool().clone();
        pool.execute(
            "create schema divvy_test;
             create table divvy_test.clock (at timestamptz not null);
             insert into divvy_test.clock (at) values (now());
             grant usage on schema divvy_test to public;
             grant select on divvy_test.clock to public;
             create or replace function divvy.clock() returns timestamptz
             language sql stable as 'select at from divvy_test.clock';",
        )
        .await
        .expect("replacing divvy.clock()");
        Self { pool }
    }

    /// Sets it.
    pub async fn set(&self, at: DateTime<Utc>) {
        sqlx::query("update divvy_test.clock set at = $1")
            .bind(at)
            .execute(&self.pool)
            .await
            .expect("setting the clock");
    }

    /// Moves it forward.
    pub async fn advance(&self, by: Duration) {
        sqlx::query("update divvy_test.clock set at = at + make_interval(secs => $1)")
            .bind(by.as_secs_f64())
            .execute(&self.pool)
            .await
            .expect("advancing the clock");
    }

    /// What it shows.
    pub async fn now(&self) -> DateTime<Utc> {
        sqlx::query_scalar("select divvy.clock()").fetch_one(&self.pool).await.expect("reading the clock")
    }
}

#[tokio::test]
async fn every_session_follows_the_test_clock_at_once() {
    let db = TestDb::new().await;
    let mut other = db.connect().await;
    let ask = "select divvy.clock()";
    let before: DateTime<Utc> = sqlx::query_scalar(ask).fetch_one(&mut other).await.unwrap();
    let clock = Clock::stop(&db).await;
    let stopped = clock.now().await;
    assert!(stopped >= before);
    clock.advance(Duration::from_secs(3600)).await;
    let after: DateTime<Utc> = sqlx::query_scalar(ask).fetch_one(&mut other).await.unwrap();
    assert_eq!(after, stopped + Duration::from_secs(3600));
    clock.set(before).await;
    assert_eq!(clock.now().await, before);
}
