//! Clients that commit one row after the other, while a worker waits for them.

use super::Bench;
use super::calls::{Noop, Running, Slots, worker};
use super::drain::IN_FLIGHT;
use super::enqueue::Options;
use super::figure::{Figure, Watch};
use super::payload::payload;
use super::screen::Progress;
use crate::apart;
use crate::store::{connect, listen, pool};
use anyhow::{Context, Result};
use sqlx::Executor;
use sqlx::postgres::{PgConnectOptions, PgListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Whether producers wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// As ever.
    On,
    /// `set divvy.notify = off`.
    Off,
}

/// What a round came to.
pub struct Round {
    /// Rows that were inserted.
    pub figure: Figure,
    /// Wake-ups that were heard.
    pub heard: u64,
    /// How often the worker called its handler.
    pub calls: u64,
}

/// One round; when it returns the worker has ended.
///
/// # Errors
/// When the database refuses.
pub async fn run(bench: &Bench, options: &Options, wake: Wake, task_type: &str) -> Result<Round> {
    let heard = Arc::new(AtomicU64::new(0));
    let _listening = listen_too(bench, heard.clone()).await?;
    let noop = Noop::default();
    let running =
        Running::start(worker(&bench.pool, &[task_type.to_owned()], &noop, Slots::Together(IN_FLIGHT))?);
    let stop = CancellationToken::new();
    let inserted = Arc::new(AtomicU64::new(0));
    let ready = Arc::new(Barrier::new(options.clients as usize + 1));
    let mut clients = JoinSet::new();
    for _ in 0..options.clients {
        let client = Client {
            options: bench.direct.clone(),
            wake,
            task_type: task_type.to_owned(),
            payload: payload(0, 0, bench.payload_bytes),
            inserted: inserted.clone(),
            ready: ready.clone(),
            stop: stop.clone(),
        };
        clients.spawn(client.run());
    }
    tokio::select! {
        _ = ready.wait() => {}
        // One that could not connect would keep the others waiting.
        Some(failed) = clients.join_next() => failed.context("a client broke")??,
    }
    let watch = Watch::start(&bench.cpu);
    tokio::time::sleep(Duration::from_secs(options.secs)).await;
    stop.cancel();
    while let Some(ended) = clients.join_next().await {
        ended.context("a client broke")??;
    }
    let count = inserted.load(Ordering::Relaxed);
    let figure = watch.read(count);
    noop.calls.reach(count, &Progress::new("the rest", count)).await?;
    running.stop().await?;
    Ok(Round { figure, heard: heard.load(Ordering::Relaxed), calls: noop.calls.so_far() })
}

struct Client {
    options: PgConnectOptions,
    wake: Wake,
    task_type: String,
    payload: String,
    inserted: Arc<AtomicU64>,
    ready: Arc<Barrier>,
    stop: CancellationToken,
}

impl Client {
    async fn run(self) -> Result<()> {
        let mut connection = connect::connect(&self.options).await?;
        if self.wake == Wake::Off {
            connection.execute("set divvy.notify = off").await?;
        }
        self.ready.wait().await;
        while !self.stop.is_cancelled() {
            sqlx::query("insert into divvy.task (task_type, payload) values ($1, $2::text::jsonb)")
                .bind(&self.task_type)
                .bind(&self.payload)
                .execute(&mut connection)
                .await?;
            self.inserted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Counts the wake-ups.
async fn listen_too(bench: &Bench, heard: Arc<AtomicU64>) -> Result<AbortOnDropHandle<()>> {
    let own = pool::options().max_connections(1).connect_with(bench.direct.clone()).await?;
    let mut listener = PgListener::connect_with(&own).await?;
    listener.listen(listen::READY).await?;
    Ok(AbortOnDropHandle::new(apart::spawn(async move {
        while listener.recv().await.is_ok() {
            heard.fetch_add(1, Ordering::Relaxed);
        }
    })))
}
