//! divvy: a worker of the library, a handler in Rust; tasks come by INSERT, as from any language.

use divvy::handler::{Context, Handler, HandlerError, Outcome};
use divvy::store::migrate;
use divvy::worker::Worker;
use protocol::{CLIENTS, InFlight, Job, Peer, Result, Standing, Tally, background};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Executor, PgPool};
use std::process::ExitCode;
use std::str::FromStr;
use tokio_util::sync::CancellationToken;

const SLOTS: usize = 500;

struct Noop(Tally);

impl Handler for Noop {
    const TASK_TYPE: &'static str = "peers.noop";
    type Payload = Job;
    type Share = ();
    type Output = ();
    async fn execute(
        &self,
        _: &mut Context<'_>,
        job: &Job,
        (): (),
    ) -> std::result::Result<Outcome<()>, HandlerError> {
        self.0.call(job);
        Ok(Outcome::Complete(()))
    }
}

struct Divvy {
    options: PgConnectOptions,
    pool: PgPool,
    slots: usize,
}

impl Peer for Divvy {
    async fn connect(url: &str, in_flight: InFlight) -> Result<Self> {
        let options = PgConnectOptions::from_str(url)?;
        let pool = divvy::store::pool::options()
            .max_connections(CLIENTS as u32)
            .connect_with(options.clone())
            .await?;
        let slots = match in_flight {
            InFlight::Best => SLOTS,
            InFlight::AtMost(slots) => slots,
        };
        Ok(Self { options, pool, slots })
    }

    fn settings(&self) -> String {
        format!("{} slots; INSERT", self.slots)
    }

    async fn setup(&self) -> Result<()> {
        migrate::migrate(&self.options).await?;
        self.pool.execute("select divvy.put_task_type('peers.noop')").await?;
        Ok(())
    }

    async fn add(&self, jobs: &[Job]) -> Result<()> {
        let payloads: Vec<String> = jobs.iter().map(Job::text).collect();
        sqlx::query(
            "insert into divvy.task (task_type, payload) select 'peers.noop', p::jsonb from unnest($1::text[]) p",
        )
        .bind(payloads)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn add_one(&self, job: Job) -> Result<()> {
        sqlx::query("insert into divvy.task (task_type, payload) values ('peers.noop', $1::jsonb)")
            .bind(job.value())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn start(&self, tally: Tally) -> Result<()> {
        let worker = Worker::builder(self.pool.clone()).handler(Noop(tally)).slots(self.slots).build()?;
        background(async move { worker.run(CancellationToken::new()).await });
        Ok(())
    }

    async fn settled(&self) -> Result<bool> {
        // As the others are asked: not by an overview that looks each split of each lease up.
        let all = "select not exists (select from divvy.task where task_type = 'peers.noop' and finished_at is null)";
        Ok(sqlx::query_scalar(all).fetch_one(&self.pool).await?)
    }

    async fn standing(&self) -> Result<Standing> {
        let (open, kept) = sqlx::query_as(
            "select count(*) filter (where finished_at is null), count(*) filter (where status = 'succeeded')
             from divvy.task_overview where task_type = 'peers.noop'",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Standing { open, kept: Some(kept) })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    protocol::run::<Divvy>().await
}
