//! The floor: hand-written SQL, no product. One table; complete the last batch and claim the next in one statement
//! (`s_fused`), two connections of a hundred rows each.

use protocol::{InFlight, Job, Peer, Result, Standing, Tally, background};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::sleep;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::{Client, NoTls, Statement};

const SCHEMA: &str = "create schema q;
    create table q.job (id bigint generated always as identity primary key, queue int not null default 1, status smallint not null default 0,
        priority smallint not null default 0, run_at timestamptz not null default now(), lease_until timestamptz, attempt smallint not null default 0,
        payload jsonb not null) with (fillfactor = 100);
    create index job_ready on q.job (queue, priority, id) where status = 0;";
const ENQUEUE: &str = "insert into q.job (payload) select p::jsonb from unnest($1::text[]) p";
const FUSED: &str = "with d as (update q.job set status = 2 where id = any($1))
    update q.job set status = 1, lease_until = now() + interval '30 s', attempt = attempt + 1
    where id = any(array(select id from q.job where queue = 1 and status = 0 and run_at <= now()
        order by priority, id limit $2 for update skip locked)) returning id, payload";
/// Plans as on a full table, whatever the table's statistics say.
const PLANS: &str = "set enable_seqscan = off; set enable_bitmapscan = off; set enable_hashjoin = off; set enable_mergejoin = off;
    set plan_cache_mode = force_generic_plan; set jit = off";
const BATCH: i64 = 100;
const WORKERS: i64 = 2;

/// A connection and its insert.
struct Producer {
    client: Client,
    enqueue: Option<Statement>,
}

struct Floor {
    url: String,
    batch: i64,
    producers: Vec<Arc<Mutex<Producer>>>,
    next: AtomicU64,
    completed: Arc<AtomicU64>,
    claimed: Arc<AtomicU64>,
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

impl Floor {
    /// The next of the producers' connections, with its statement prepared.
    async fn producer(&self) -> Result<(MutexGuard<'_, Producer>, Statement)> {
        let turn = self.next.fetch_add(1, SeqCst) as usize % self.producers.len();
        let mut producer = self.producers[turn].lock().await;
        let enqueue = match &producer.enqueue {
            Some(enqueue) => enqueue.clone(),
            None => {
                let enqueue = producer.client.prepare_typed(ENQUEUE, &[Type::TEXT_ARRAY]).await?;
                producer.enqueue = Some(enqueue.clone());
                enqueue
            }
        };
        Ok((producer, enqueue))
    }

    async fn insert(&self, payloads: Vec<String>) -> Result<()> {
        let (producer, enqueue) = self.producer().await?;
        producer.client.execute(&enqueue, &[&payloads]).await?;
        Ok(())
    }
}

impl Peer for Floor {
    async fn connect(url: &str, in_flight: InFlight) -> Result<Self> {
        let mut producers = Vec::new();
        for _ in 0..protocol::CLIENTS {
            let client = connect(url).await?;
            producers.push(Arc::new(Mutex::new(Producer { client, enqueue: None })));
        }
        let batch = match in_flight {
            InFlight::Best => BATCH,
            InFlight::AtMost(n) => (n as i64 / WORKERS).max(1),
        };
        let (completed, claimed) = Default::default();
        Ok(Self { url: url.to_owned(), batch, producers, next: AtomicU64::new(0), completed, claimed })
    }

    fn settings(&self) -> String {
        format!("{WORKERS} connections, batches of {}, no plan can flip; unnest", self.batch)
    }

    async fn setup(&self) -> Result<()> {
        let producer = self.producers[0].lock().await;
        Ok(producer.client.batch_execute(SCHEMA).await?)
    }

    async fn add(&self, jobs: &[Job]) -> Result<()> {
        self.insert(jobs.iter().map(Job::text).collect()).await
    }

    async fn add_one(&self, job: Job) -> Result<()> {
        self.insert(vec![job.text()]).await
    }

    async fn start(&self, tally: Tally) -> Result<()> {
        for _ in 0..WORKERS {
            let client = connect(&self.url).await?;
            let (batch, tally) = (self.batch, tally.clone());
            let (completed, claimed) = (self.completed.clone(), self.claimed.clone());
            background(async move { work(client, batch, tally, &claimed, &completed).await });
        }
        Ok(())
    }

    async fn settled(&self) -> Result<bool> {
        Ok(self.completed.load(SeqCst) == self.claimed.load(SeqCst))
    }

    async fn standing(&self) -> Result<Standing> {
        let producer = self.producers[0].lock().await;
        let sql = "select count(*) filter (where status <> 2), count(*) filter (where status = 2) from q.job";
        let row = producer.client.query_one(sql, &[]).await?;
        Ok(Standing { open: row.get(0), kept: Some(row.get(1)) })
    }
}

async fn work(
    client: Client,
    batch: i64,
    tally: Tally,
    claimed: &AtomicU64,
    completed: &AtomicU64,
) -> Result<()> {
    client.batch_execute(PLANS).await?;
    let fused = client.prepare_typed(FUSED, &[Type::INT8_ARRAY, Type::INT8]).await?;
    let mut last: Vec<i64> = Vec::new();
    loop {
        let rows = client.query(&fused, &[&last, &batch]).await?;
        // Before the calls, so that what is handled and not completed is never taken for settled.
        claimed.fetch_add(rows.len() as u64, SeqCst);
        completed.fetch_add(last.len() as u64, SeqCst);
        last = rows.iter().map(|row| row.get(0)).collect();
        for row in &rows {
            let Json(job): Json<Job> = row.get(1);
            tally.call(&job);
        }
        if last.is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    protocol::run::<Floor>().await
}
