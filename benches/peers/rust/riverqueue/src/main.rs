//! riverqueue (Rust): one queue, as many workers as drained fastest, the shortest fetch cooldown it allows.

use protocol::{CLIENTS, InFlight, Job, Peer, Result, Standing, Tally, background};
use riverqueue::migrate::PostgresMigrator;
use riverqueue::{Client, JobArgs, QueueConfig, WorkContext, WorkOutcome, Workers};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use std::convert::Infallible;
use std::process::ExitCode;
use std::time::Duration;

const WORKERS: usize = 1_000;
const COOLDOWN: Duration = Duration::from_millis(1);

#[derive(Clone, Deserialize, JobArgs, Serialize)]
#[river(kind = "noop")]
struct Noop {
    job: Job,
}

struct River {
    pool: PgPool,
    producer: Client,
    workers: usize,
}

impl Peer for River {
    async fn connect(url: &str, in_flight: InFlight) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(CLIENTS as u32).connect(url).await?;
        // Its cooldown also limits how often inserts notify.
        let producer =
            Client::builder(pool.clone()).fetch_cooldown(COOLDOWN).allow_unregistered_job_kinds().build()?;
        let workers = match in_flight {
            InFlight::Best => WORKERS,
            InFlight::AtMost(n) => n,
        };
        Ok(Self { pool, producer, workers })
    }

    fn settings(&self) -> String {
        format!("{} workers, fetch cooldown 1 ms, pool of {CLIENTS}; insert_many", self.workers)
    }

    async fn setup(&self) -> Result<()> {
        PostgresMigrator::new(self.pool.clone()).migrate_up().await?;
        Ok(())
    }

    async fn add(&self, jobs: &[Job]) -> Result<()> {
        self.producer.insert_many(jobs.iter().map(|job| Noop { job: job.clone() })).await?;
        Ok(())
    }

    async fn add_one(&self, job: Job) -> Result<()> {
        self.producer.insert(Noop { job }).await?;
        Ok(())
    }

    async fn start(&self, tally: Tally) -> Result<()> {
        let mut workers = Workers::new();
        workers.add_fn(move |_: WorkContext, job: riverqueue::Job<Noop>| {
            tally.call(&job.args.job);
            async { Ok::<_, Infallible>(WorkOutcome::Complete) }
        })?;
        let client = Client::builder(self.pool.clone())
            .workers(workers)
            .fetch_cooldown(COOLDOWN)
            .queue("default", QueueConfig::new(self.workers))
            .build()?;
        let mut run = client.start()?;
        background(async move { run.wait().await });
        Ok(())
    }

    async fn settled(&self) -> Result<bool> {
        let sql = "select not exists (select from river_job where state in ('available', 'running', 'pending', 'retryable', 'scheduled'))";
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }

    async fn standing(&self) -> Result<Standing> {
        let sql = "select count(*) filter (where state <> 'completed'), count(*) filter (where state = 'completed') from river_job";
        let (open, kept) = sqlx::query_as(sql).fetch_one(&self.pool).await?;
        Ok(Standing { open, kept: Some(kept) })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    protocol::run::<River>().await
}
