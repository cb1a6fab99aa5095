//! READ FIRST: one task's way from enqueue to reduce, in the words of the contract.
//!
//! A shop settles its day: the task is split by region, workers execute the splits side by side, and when
//! the last one has ended, reduce runs once and writes the total.

use crate::support::db::TestDb;
use divvy::client::{Client, NewTask, TaskStatus};
use divvy::handler::{Context, Handler, HandlerError, Inputs, Outcome};
use divvy::worker::Worker;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::Executor;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[derive(Serialize, Deserialize)]
struct Day {
    day: String,
}

#[derive(Serialize, Deserialize)]
struct Region {
    region: String,
}

struct Settle;

impl Handler for Settle {
    const TASK_TYPE: &'static str = "settle";
    const PLAN: bool = true;
    const REDUCE: bool = true;
    type Payload = Day;
    type Share = Region;
    type Output = i64;

    /// Split: one share for each region that sold something. They appear all at once, when this returns.
    async fn split(&self, context: &mut Context<'_>, day: &Day) -> Result<(), HandlerError> {
        let regions: Vec<String> =
            sqlx::query_scalar("select distinct region from shop.sale where day = $1::date order by region")
                .bind(&day.day)
                .fetch_all(context.transaction().await?)
                .await?;
        context.add_splits(regions.into_iter().map(|region| Region { region })).await?;
        Ok(())
    }

    /// Execute: the user's own writes and the completion commit together, or not at all.
    async fn execute(
        &self,
        context: &mut Context<'_>,
        day: &Day,
        share: Region,
    ) -> Result<Outcome<i64>, HandlerError> {
        let total: i64 = sqlx::query_scalar(
            "insert into shop.region_total (day, region, cents)
             select day, region, sum(cents) from shop.sale where day = $1::date and region = $2 group by day, region
             returning cents",
        )
        .bind(&day.day)
        .bind(&share.region)
        .fetch_one(context.transaction().await?)
        .await?;
        Ok(Outcome::Complete(total))
    }

    /// Reduce: once, after the last split, over all results.
    async fn reduce(
        &self,
        context: &mut Context<'_>,
        day: &Day,
        mut inputs: Inputs<i64>,
    ) -> Result<Outcome<Value>, HandlerError> {
        let mut cents = 0;
        while let Some(input) = inputs.next(context).await? {
            cents += input.output.unwrap_or_default();
        }
        sqlx::query("insert into shop.day_total (day, cents) values ($1::date, $2)")
            .bind(&day.day)
            .bind(cents)
            .execute(context.transaction().await?)
            .await?;
        Ok(Outcome::Complete(json!({ "cents": cents })))
    }
}

const SHOP: &str = "
create schema shop;
create table shop.sale (day date not null, region text not null, cents bigint not null);
create table shop.region_total (day date, region text, cents bigint, primary key (day, region));
create table shop.day_total (day date primary key, cents bigint);
insert into shop.sale select '2026-11-20', 'region ' || n % 7, n from generate_series(1, 700) n;";

#[tokio::test]
async fn a_task_is_split_executed_and_reduced_once() {
    let db = TestDb::new().await;
    db.pool().execute(SHOP).await.unwrap();
    let client = Client::new(db.pool().clone());

    // Enqueue joins the caller's transaction: nothing is visible before its commit.
    let mut transaction = db.pool().begin().await.unwrap();
    let day = Day { day: "2026-11-20".into() };
    let task = NewTask::new("settle", &day).enqueue_with(&mut *transaction).await.unwrap().task_id;
    assert!(client.result(task).await.unwrap_err().is_not_found());
    transaction.commit().await.unwrap();

    // Two workers meet only in the database. Registering declares the type, and what waited for it starts.
    let stop = CancellationToken::new();
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let worker = Worker::builder(db.pool().clone()).handler(Settle).slots(2).build().unwrap();
            let stop = stop.clone();
            tokio::spawn(async move { worker.run(stop).await.unwrap() })
        })
        .collect();

    let ended = client.wait(task, Duration::from_secs(30)).await.unwrap();
    assert_eq!(ended.status, TaskStatus::Succeeded);
    assert_eq!(ended.result, Some(json!({ "cents": 700 * 701 / 2 })));

    // A stop loses nothing: what was claimed is done or given back.
    stop.cancel();
    let mut succeeded = 0;
    for worker in workers {
        succeeded += worker.await.unwrap().succeeded;
    }
    assert_eq!(succeeded, 1 + 7 + 1, "one plan, seven executes, one reduce");

    // People report by querying the tables.
    let (regions, cents): (i64, i64) = sqlx::query_as(
        "select (select count(*) from shop.region_total), (select cents from shop.day_total where day = '2026-11-20')",
    )
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert_eq!((regions, cents), (7, 700 * 701 / 2));
    let progress: (i32, i64, sqlx::types::JsonValue) = sqlx::query_as(
        "select p.splits, p.succeeded, to_jsonb(p.progress) from divvy.task_progress p where p.task_id = $1",
    )
    .bind(task.0)
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert_eq!(progress, (7, 7, json!(1.0)));
}
