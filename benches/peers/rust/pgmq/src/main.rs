//! pgmq: its SQL, installed from its Rust crate without the extension's files, and two readers. A message queue: there
//! are no retries, no results and no states; what is read and not deleted comes back after the visibility timeout.

use pgmq::PGMQueueExt;
use protocol::{CLIENTS, InFlight, Job, Peer, Result, Standing, Tally, background};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tokio::time::sleep;

const QUEUE: &str = "noop";
const BATCH: usize = 1_000;
const READERS: usize = 2;
/// Seconds until a message that was read and not deleted is there again.
const HIDDEN: i32 = 300;
/// Where the readers look again; pgmq has no worker of its own.
const POLL: Duration = Duration::from_millis(1);

struct Pgmq {
    pool: PgPool,
    queue: PGMQueueExt,
    batch: usize,
    read: Arc<AtomicU64>,
    deleted: Arc<AtomicU64>,
}

impl Peer for Pgmq {
    async fn connect(url: &str, in_flight: InFlight) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(CLIENTS as u32).connect(url).await?;
        let queue = PGMQueueExt::new_with_pool(pool.clone()).await;
        let batch = match in_flight {
            InFlight::Best => BATCH,
            InFlight::AtMost(n) => (n / READERS).max(1),
        };
        let (read, deleted) = Default::default();
        Ok(Self { pool, queue, batch, read, deleted })
    }

    fn settings(&self) -> String {
        format!("read {} and delete them together, {READERS} readers, poll 1 ms; send_batch", self.batch)
    }

    async fn setup(&self) -> Result<()> {
        self.queue.install_sql_from_embedded().await?;
        self.queue.create(QUEUE).await?;
        Ok(())
    }

    async fn add(&self, jobs: &[Job]) -> Result<()> {
        self.queue.send_batch(QUEUE, jobs).await?;
        Ok(())
    }

    async fn add_one(&self, job: Job) -> Result<()> {
        self.queue.send(QUEUE, &job).await?;
        Ok(())
    }

    async fn start(&self, tally: Tally) -> Result<()> {
        for _ in 0..READERS {
            let (queue, batch, tally) = (self.queue.clone(), self.batch as i32, tally.clone());
            let (read, deleted) = (self.read.clone(), self.deleted.clone());
            background(async move {
                loop {
                    let messages = queue.read_batch::<Job>(QUEUE, HIDDEN, batch).await?;
                    if messages.is_empty() {
                        sleep(POLL).await;
                        continue;
                    }
                    read.fetch_add(messages.len() as u64, SeqCst);
                    messages.iter().for_each(|message| tally.call(&message.message));
                    let ids: Vec<i64> = messages.iter().map(|message| message.msg_id).collect();
                    let gone = queue.delete_batch(QUEUE, &ids).await?;
                    deleted.fetch_add(gone as u64, SeqCst);
                }
                #[allow(unreachable_code)]
                Result::Ok(())
            });
        }
        Ok(())
    }

    async fn settled(&self) -> Result<bool> {
        Ok(self.read.load(SeqCst) == self.deleted.load(SeqCst))
    }

    async fn standing(&self) -> Result<Standing> {
        let open = sqlx::query_scalar("select count(*) from pgmq.q_noop").fetch_one(&self.pool).await?;
        // Read messages are deleted.
        Ok(Standing { open, kept: None })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    protocol::run::<Pgmq>().await
}
