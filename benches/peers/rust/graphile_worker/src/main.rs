//! graphile_worker (Rust): local queue and batched completion, as in its own `benches/perf_test.rs`.

use graphile_worker::{
    Database, IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, WorkerContext,
    WorkerOptions, WorkerUtils,
};
use protocol::{InFlight, Job, Peer, Result, Standing, Tally, background};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

const CONCURRENCY: usize = 100;
const LOCAL_QUEUE: usize = 5_000;
const POLL: Duration = Duration::from_millis(5);
const COMPLETE: Duration = Duration::from_millis(5);
const CONNECTIONS: u32 = 10;

#[derive(Clone)]
struct Counting(Tally);

impl fmt::Debug for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counting")
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Noop(Job);

impl TaskHandler for Noop {
    const IDENTIFIER: &'static str = "noop";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        match context.get_ext::<Counting>() {
            Some(counting) => {
                counting.0.call(&self.0);
                Ok(())
            }
            None => Err("no tally".to_owned()),
        }
    }
}

struct Graphile {
    pool: PgPool,
    utils: WorkerUtils,
    in_flight: InFlight,
}

impl Peer for Graphile {
    async fn connect(url: &str, in_flight: InFlight) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(url).await?;
        let utils = WorkerUtils::new(Database::from(pool.clone()), "graphile_worker");
        Ok(Self { pool, utils, in_flight })
    }

    fn settings(&self) -> String {
        match self.in_flight {
            InFlight::Best => format!(
                "local queue {LOCAL_QUEUE}, concurrency {CONCURRENCY}, poll 5 ms, completions batched for 5 ms; add_raw_jobs"
            ),
            InFlight::AtMost(n) => {
                format!("local queue {n}, concurrency {n}, poll 5 ms, completions batched for 5 ms")
            }
        }
    }

    async fn setup(&self) -> Result<()> {
        Ok(self.utils.migrate().await?)
    }

    async fn add(&self, jobs: &[Job]) -> Result<()> {
        let specs: Vec<RawJobSpec> = jobs
            .iter()
            .map(|job| RawJobSpec {
                identifier: Noop::IDENTIFIER.to_owned(),
                payload: job.value(),
                spec: JobSpec::default(),
            })
            .collect();
        self.utils.add_raw_jobs(&specs).await?;
        Ok(())
    }

    async fn add_one(&self, job: Job) -> Result<()> {
        self.utils.add_job(Noop(job), JobSpec::default()).await?;
        Ok(())
    }

    async fn start(&self, tally: Tally) -> Result<()> {
        let (concurrency, local) = match self.in_flight {
            InFlight::Best => (CONCURRENCY, LOCAL_QUEUE),
            InFlight::AtMost(n) => (n, n),
        };
        let worker = WorkerOptions::default()
            .pg_pool(self.pool.clone())
            .schema("graphile_worker")
            .concurrency(concurrency)
            .poll_interval(POLL)
            .complete_job_batch_delay(COMPLETE)
            .local_queue(LocalQueueConfig::default().with_size(local))
            .add_extension(Counting(tally))
            .define_job::<Noop>()
            .init()
            .await?;
        background(async move { worker.run().await });
        Ok(())
    }

    async fn settled(&self) -> Result<bool> {
        let sql = "select not exists (select from graphile_worker._private_jobs)";
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }

    async fn standing(&self) -> Result<Standing> {
        let sql = "select count(*) from graphile_worker._private_jobs";
        let open = sqlx::query_scalar(sql).fetch_one(&self.pool).await?;
        // Success deletes the row.
        Ok(Standing { open, kept: None })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    protocol::run::<Graphile>().await
}
