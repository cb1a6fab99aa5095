//! What the engine costs, on a database of yours, beside the hand-written SQL floor on the same server:
//!
//! ```sh
//! DATABASE_URL=postgres:///bench cargo bench --bench journey -- [--tasks N] [--rounds N]
//! ```
//!
//! Prints inserts, drains (divvy and the floor in turn), and how long after the last completion a reduce of
//! 10,000 splits starts. CPU is server and client together, per split: on a shared machine it is the figure
//! to trust. The tasks stay in the database: use one that you can drop.

use divvy::client::{Client, NewTask};
use divvy::handler::{Context, Handler, HandlerError, Inputs, Outcome};
use divvy::store::migrate;
use divvy::worker::Worker;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Executor, PgConnection, PgPool, Row};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// 100 bytes, as in the floor's own measurements.
const PAYLOAD: &str =
    r#"{"task":12345,"split":67890,"uri":"s3://bucket/path/to/object-000001.parquet","off":0,"len":1048}"#;
const BATCH: i64 = 100;
const SPLITS: i32 = 10_000;

struct Noop;

impl Handler for Noop {
    const TASK_TYPE: &'static str = "bench.noop";
    type Payload = Value;
    type Share = ();
    type Output = ();
    async fn execute(&self, _: &mut Context<'_>, _: &Value, (): ()) -> Result<Outcome<()>, HandlerError> {
        Ok(Outcome::Complete(()))
    }
}

/// When the last split ended, and how long each reduce then took to start.
#[derive(Clone, Default)]
struct FanIn {
    last: Arc<Mutex<Option<Instant>>>,
    waits: Arc<Mutex<Vec<Duration>>>,
}

impl Handler for FanIn {
    const TASK_TYPE: &'static str = "bench.fan_in";
    const REDUCE: bool = true;
    type Payload = Value;
    type Share = Value;
    type Output = ();
    async fn execute(&self, _: &mut Context<'_>, _: &Value, _: Value) -> Result<Outcome<()>, HandlerError> {
        *self.last.lock().expect("no panic holds it") = Some(Instant::now());
        Ok(Outcome::Complete(()))
    }
    async fn reduce(
        &self,
        _: &mut Context<'_>,
        _: &Value,
        _: Inputs<()>,
    ) -> Result<Outcome<Value>, HandlerError> {
        let ended = self.last.lock().expect("no panic holds it").expect("a split has ended");
        self.waits.lock().expect("no panic holds it").push(ended.elapsed());
        Ok(Outcome::Complete(Value::Null))
    }
}

/// CPU seconds of the server's processes and of this one.
struct Cpu {
    postmaster: Option<u32>,
}

impl Cpu {
    async fn new(pool: &PgPool) -> Result<Self, Failure> {
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(pool).await?;
        let stat = std::fs::read_to_string(format!("/proc/{backend}/stat"));
        Ok(Self { postmaster: stat.ok().and_then(|s| fields(&s).map(|f| f.0)) })
    }

    fn now(&self) -> f64 {
        let own =
            std::fs::read_to_string("/proc/self/stat").ok().and_then(|s| fields(&s)).map_or(0.0, |f| f.1);
        let Some(postmaster) = self.postmaster else { return f64::NAN };
        let mut seconds = own;
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let Some(stat) = std::fs::read_to_string(entry.path().join("stat")).ok() else { continue };
            let Some((parent, used, children)) = fields(&stat) else { continue };
            if pid == postmaster {
                seconds += used + children;
            } else if parent == postmaster {
                seconds += used;
            }
        }
        seconds
    }
}

/// (parent, own seconds, seconds of ended children) of a /proc stat line; a tick is 10 ms.
fn fields(stat: &str) -> Option<(u32, f64, f64)> {
    let rest = &stat[stat.rfind(')')? + 2..];
    let words: Vec<&str> = rest.split(' ').collect();
    let seconds = |at: usize| words.get(at).and_then(|w| w.parse::<f64>().ok()).unwrap_or(0.0) / 100.0;
    Some((words.get(1)?.parse().ok()?, seconds(11) + seconds(12), seconds(13) + seconds(14)))
}

fn argument(name: &str, default: i64) -> i64 {
    let mut words = std::env::args().skip_while(|word| word != name);
    words.nth(1).and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn report(what: &str, count: i64, wall: Duration, cpu: f64) {
    let rate = count as f64 / wall.as_secs_f64();
    println!(
        "{what:<34} {count:>9} in {:>7.2} s {rate:>9.0}/s {:>7.1} µs CPU each",
        wall.as_secs_f64(),
        cpu * 1e6 / count as f64
    );
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let url =
        std::env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL to a database that you can drop")?;
    let options = PgConnectOptions::from_str(&url)?;
    migrate::migrate(&options).await?;
    let pool = divvy::store::pool::options().max_connections(8).connect_with(options.clone()).await?;
    for setting in [
        "server_version",
        "fsync",
        "synchronous_commit",
        "full_page_writes",
        "shared_buffers",
        "max_wal_size",
    ] {
        let value: String =
            sqlx::query_scalar("select current_setting($1)").bind(setting).fetch_one(&pool).await?;
        print!("{setting} {value}  ");
    }
    println!();
    let cpu = Cpu::new(&pool).await?;
    let (tasks, rounds) = (argument("--tasks", 100_000), argument("--rounds", 3));
    for _ in 0..rounds {
        drain(&pool, &cpu, tasks).await?;
        floor(&options, &cpu, tasks).await?;
    }
    fan_in(&pool, rounds * 7).await
}

/// Single-split tasks: inserted by one statement, drained by one worker process.
async fn drain(pool: &PgPool, cpu: &Cpu, tasks: i64) -> Result<(), Failure> {
    pool.execute("select divvy.put_task_type('bench.noop')").await?;
    let (started, used) = (Instant::now(), cpu.now());
    sqlx::query("insert into divvy.task (task_type, payload) select 'bench.noop', $1::jsonb from generate_series(1, $2)")
        .bind(PAYLOAD)
        .bind(tasks)
        .execute(pool)
        .await?;
    report("divvy: insert, one statement", tasks, started.elapsed(), cpu.now() - used);
    let worker = Worker::builder(pool.clone()).handler(Noop).slots(200).build()?;
    let stop = CancellationToken::new();
    let (started, used) = (Instant::now(), cpu.now());
    let working = tokio::spawn({
        let stop = stop.clone();
        async move { worker.run(stop).await }
    });
    let open = "select exists (select from divvy.task k, divvy.lane l where k.task_type = 'bench.noop' and l.task_type = k.task_type and l.lane = 2 and k.lane = 2 and k.claim_key > l.mark and k.state = 'ready')
        or exists (select from divvy.lease)";
    while sqlx::query_scalar::<_, bool>(open).fetch_one(pool).await? {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    report("divvy: drain, one worker", tasks, started.elapsed(), cpu.now() - used);
    stop.cancel();
    let done = working.await??;
    let row = sqlx::query("select count(*) filter (where status = 'succeeded'), count(*) from divvy.task where task_type = 'bench.noop'")
        .fetch_one(pool)
        .await?;
    let (succeeded, all): (i64, i64) = (row.get(0), row.get(1));
    assert!(succeeded == all && done.succeeded == tasks as u64, "{succeeded} of {all} succeeded, {done}");
    Ok(())
}

/// The floor `s_fused`: one table, complete the last batch and claim the next in one statement; two connections.
async fn floor(options: &PgConnectOptions, cpu: &Cpu, tasks: i64) -> Result<(), Failure> {
    let mut connection = PgConnection::connect_with(options).await?;
    connection
        .execute(
            "set client_min_messages = warning; drop schema if exists divvy_floor cascade; create schema divvy_floor;
             create table divvy_floor.job (id bigint generated always as identity primary key, queue int not null default 1,
                status smallint not null default 0, priority smallint not null default 0, run_at timestamptz not null default now(),
                lease_until timestamptz, attempt smallint not null default 0, payload jsonb not null) with (fillfactor = 100);
             create index job_ready on divvy_floor.job (queue, priority, id) where status = 0;",
        )
        .await?;
    sqlx::query("insert into divvy_floor.job (payload) select $1::jsonb from generate_series(1, $2)")
        .bind(PAYLOAD)
        .bind(tasks)
        .execute(&mut connection)
        .await?;
    let (started, used) = (Instant::now(), cpu.now());
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let options = options.clone();
            tokio::spawn(async move {
                let mut connection = PgConnection::connect_with(&options).await?;
                let mut ids: Vec<i64> = Vec::new();
                loop {
                    let rows: Vec<(i64, Value)> = sqlx::query_as(
                        "with d as (update divvy_floor.job set status = 2 where id = any($1))
                         update divvy_floor.job set status = 1, lease_until = now() + interval '30 s', attempt = attempt + 1
                         where id = any(array(select id from divvy_floor.job where queue = 1 and status = 0 and run_at <= now()
                            order by priority, id limit $2 for update skip locked)) returning id, payload",
                    )
                    .bind(&ids)
                    .bind(BATCH)
                    .fetch_all(&mut connection)
                    .await?;
                    ids = rows.into_iter().map(|row| row.0).collect();
                    if ids.is_empty() {
                        return Ok::<_, sqlx::Error>(());
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.await??;
    }
    report("floor s_fused, B=100, 2 connections", tasks, started.elapsed(), cpu.now() - used);
    connection.execute("drop schema divvy_floor cascade").await?;
    Ok(())
}

/// Tasks of 10,000 splits, one after the other: how long their reduce waits.
async fn fan_in(pool: &PgPool, tasks: i64) -> Result<(), Failure> {
    let fan_in = FanIn::default();
    let worker = Worker::builder(pool.clone()).handler(fan_in.clone()).slots(200).build()?;
    let stop = CancellationToken::new();
    let working = tokio::spawn({
        let stop = stop.clone();
        async move { worker.run(stop).await }
    });
    let client = Client::new(pool.clone());
    let started = Instant::now();
    for _ in 0..tasks {
        let task = client.enqueue(NewTask::new("bench.fan_in", json!({})).split_count(SPLITS)).await?.task_id;
        client.wait(task, Duration::from_secs(120)).await?;
    }
    let each = started.elapsed().as_secs_f64() / tasks as f64;
    stop.cancel();
    working.await??;
    let mut waits: Vec<f64> =
        fan_in.waits.lock().expect("no panic holds it").iter().map(|wait| wait.as_secs_f64() * 1e3).collect();
    assert_eq!(waits.len() as i64, tasks, "each task is reduced once");
    waits.sort_by(f64::total_cmp);
    println!(
        "divvy: {tasks} tasks of {SPLITS} splits, {each:.2} s each; end of the last split to start of reduce: median {:.1} ms, worst {:.1} ms",
        waits[waits.len() / 2],
        waits[waits.len() - 1]
    );
    Ok(())
}
