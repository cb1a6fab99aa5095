//! apalis-postgres (Rust): woken by notifications, batches of a thousand.

use apalis::prelude::*;
use apalis_postgres::{Config, PgTask, PostgresStorage, queries};
use protocol::{CLIENTS, InFlight, Job, Peer, Result, Standing, Tally, background};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use std::process::ExitCode;
use std::time::Duration;

const QUEUE: &str = "noop";
const BATCH: usize = 1_000;
const CONCURRENCY: usize = 500;
const POLL: Duration = Duration::from_millis(50);

struct Apalis {
    pool: PgPool,
    in_flight: InFlight,
}

fn task(job: &Job) -> PgTask {
    TaskBuilder::new(job.text().into_bytes()).build()
}

impl Apalis {
    fn sizes(&self) -> (usize, usize) {
        match self.in_flight {
            InFlight::Best => (BATCH, CONCURRENCY),
            InFlight::AtMost(n) => (n, n),
        }
    }

    async fn push(&self, tasks: Vec<PgTask>) -> Result<()> {
        let mut connection = self.pool.acquire().await?;
        queries::push_tasks(&mut *connection, QUEUE, tasks).await?;
        Ok(())
    }
}

impl Peer for Apalis {
    async fn connect(url: &str, in_flight: InFlight) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(CLIENTS as u32).connect(url).await?;
        Ok(Self { pool, in_flight })
    }

    fn settings(&self) -> String {
        let (batch, concurrency) = self.sizes();
        format!(
            "batch {batch}, concurrency {concurrency}, notified and polling each 50 ms, no lock per task; push_tasks"
        )
    }

    async fn setup(&self) -> Result<()> {
        // Trusted since Postgres 13: it takes the right to create in the database, not a superuser.
        sqlx::query("create extension if not exists hstore").execute(&self.pool).await?;
        PostgresStorage::setup(&self.pool).await?;
        Ok(())
    }

    async fn add(&self, jobs: &[Job]) -> Result<()> {
        self.push(jobs.iter().map(task).collect()).await
    }

    async fn add_one(&self, job: Job) -> Result<()> {
        self.push(vec![task(&job)]).await
    }

    async fn start(&self, tally: Tally) -> Result<()> {
        let (batch, concurrency) = self.sizes();
        let config = Config::default().queue(QUEUE).batch_size(batch).lock_tasks(false);
        let backend = PostgresStorage::<Job>::new(&self.pool)
            .with_config(config)
            .with_pubsub()
            .poll_with_strategy(Strategy::new().interval(POLL));
        let worker =
            WorkerBuilder::new("peers").backend(backend).concurrency(concurrency).build(move |job: Job| {
                tally.call(&job);
                async { Ok::<(), BoxDynError>(()) }
            });
        background(worker.run());
        Ok(())
    }

    async fn settled(&self) -> Result<bool> {
        let sql = "select not exists (select from apalis.jobs where status <> 'Done')";
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }

    async fn standing(&self) -> Result<Standing> {
        let sql = "select count(*) filter (where status <> 'Done'), count(*) filter (where status = 'Done') from apalis.jobs";
        let (open, kept) = sqlx::query_as(sql).fetch_one(&self.pool).await?;
        Ok(Standing { open, kept: Some(kept) })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    protocol::run::<Apalis>().await
}
