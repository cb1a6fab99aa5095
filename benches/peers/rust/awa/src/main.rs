//! awa (Rust): queue storage, which is its default, jobs without a deadline, two claimers of its largest batch.

use awa::model::{insert::params_with, migrations};
use awa::{
    Client, InsertOpts, JobArgs, JobContext, JobError, JobResult, QueueConfig, QueueStorage,
    QueueStorageConfig, Worker,
};
use protocol::{InFlight, Job, Peer, Result, Standing, Tally};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::task::block_in_place;

const QUEUE: &str = "noop";
const CLAIMERS: u16 = 2;
const CLAIM_BATCH: usize = 512;
const WORKERS: u32 = 1_024;
const POLL: Duration = Duration::from_millis(50);
const CONNECTIONS: u32 = 20;

#[derive(Serialize, Deserialize, JobArgs)]
struct Noop {
    job: Job,
}

struct NoopWorker(Tally);

#[async_trait::async_trait]
impl Worker for NoopWorker {
    fn kind(&self) -> &'static str {
        Noop::kind()
    }

    async fn perform(&self, context: &JobContext) -> std::result::Result<JobResult, JobError> {
        let noop: Noop = serde_json::from_value(context.job.args.clone())
            .map_err(|error| JobError::Terminal(error.to_string()))?;
        self.0.call(&noop.job);
        Ok(JobResult::Completed)
    }
}

struct Awa {
    pool: PgPool,
    storage: QueueStorage,
    client: OnceCell<Client>,
    in_flight: InFlight,
}

fn options() -> InsertOpts {
    InsertOpts { queue: QUEUE.into(), ..Default::default() }
}

impl Peer for Awa {
    async fn connect(url: &str, in_flight: InFlight) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(url).await?;
        let storage = QueueStorage::new(QueueStorageConfig::default())?;
        Ok(Self { pool, storage, client: OnceCell::new(), in_flight })
    }

    fn settings(&self) -> String {
        let (claimers, workers, batch) = self.sizes();
        format!(
            "{claimers} claimers of {batch}, {workers} workers, no deadline, pool of {CONNECTIONS}; enqueue_params_copy"
        )
    }

    async fn setup(&self) -> Result<()> {
        // Its future can't be sent between threads.
        block_in_place(|| Handle::current().block_on(migrations::run(&self.pool)))?;
        // The first worker of a fresh database decides for queue storage; inserts before it go elsewhere.
        let client = self.worker(Tally::new(0))?;
        client.start().await?;
        client.shutdown(Duration::from_secs(10)).await;
        Ok(())
    }

    async fn add(&self, jobs: &[Job]) -> Result<()> {
        let params: std::result::Result<Vec<_>, _> =
            jobs.iter().map(|job| params_with(&Noop { job: job.clone() }, options())).collect();
        self.storage.enqueue_params_copy(&self.pool, &params?).await?;
        Ok(())
    }

    async fn add_one(&self, job: Job) -> Result<()> {
        awa::insert_with(&self.pool, &Noop { job }, options()).await?;
        Ok(())
    }

    async fn start(&self, tally: Tally) -> Result<()> {
        let client = self.worker(tally)?;
        client.start().await?;
        self.client.set(client).map_err(|_| "the worker was started twice")?;
        Ok(())
    }

    async fn settled(&self) -> Result<bool> {
        Ok(self.standing().await?.open == 0)
    }

    async fn standing(&self) -> Result<Standing> {
        let counts = self.storage.queue_counts(&self.pool, QUEUE).await?;
        // What is pruned meanwhile is counted, so this is what was done, kept or not.
        Ok(Standing { open: counts.available + counts.running, kept: Some(counts.terminal) })
    }
}

impl Awa {
    fn worker(&self, tally: Tally) -> Result<Client> {
        let (claimers, max_workers, claim_batch_size) = self.sizes();
        let queue = QueueConfig {
            max_workers,
            claimers,
            claim_batch_size,
            poll_interval: POLL,
            // With a deadline every claim is a row of its own; a no-op needs none.
            deadline_duration: Duration::ZERO,
            ..QueueConfig::default()
        };
        Ok(Client::builder(self.pool.clone())
            .queue(QUEUE, queue)
            .register_worker(NoopWorker(tally))
            .build()?)
    }

    /// Claimers, workers, jobs in a claim.
    fn sizes(&self) -> (u16, u32, usize) {
        match self.in_flight {
            InFlight::Best => (CLAIMERS, WORKERS, CLAIM_BATCH),
            // Two claimers of a few free workers take the jobs one by one: 360/s instead of 1,300/s.
            InFlight::AtMost(n) => (1, n as u32, n),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    protocol::run::<Awa>().await
}
