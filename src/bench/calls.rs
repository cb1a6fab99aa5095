//! The handlers of the bench: they do nothing but count.

use super::load::WORKER_PREFIX;
use super::payload::Job;
use super::screen::Progress;
use crate::apart;
use crate::handler::{Context, Handler, HandlerError, Outcome};
use crate::worker::{Summary, Worker};
use anyhow::{Context as _, Result, anyhow};
use sqlx::PgPool;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// A run in which nothing happens for so long is given up.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// How often progress is shown while a run is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How often the handler was called.
#[derive(Debug, Default)]
pub struct Calls {
    count: AtomicU64,
    wanted: AtomicU64,
    reached: Notify,
}

impl Calls {
    /// One more.
    pub fn add(&self, more: u64) {
        let now = self.count.fetch_add(more, Ordering::Relaxed) + more;
        let wanted = self.wanted.load(Ordering::Relaxed);
        if now >= wanted && now - more < wanted {
            self.reached.notify_one();
        }
    }

    /// So far.
    pub fn so_far(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits for the call number `wanted`.
    ///
    /// # Errors
    /// When nothing was called for a minute.
    pub async fn reach(&self, wanted: u64, progress: &Progress) -> Result<()> {
        self.wanted.store(wanted, Ordering::Relaxed);
        let reached = async {
            while self.so_far() < wanted {
                self.reached.notified().await;
            }
        };
        tokio::select! {
            () = reached => Ok(()),
            stalled = self.watch(progress) => Err(stalled),
        }
    }

    /// Shows how far it is; ends only when nothing was called for a minute.
    pub async fn watch(&self, progress: &Progress) -> anyhow::Error {
        let (mut last, mut moved) = (self.so_far(), Instant::now());
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.so_far();
            progress.at(now);
            if now > last {
                (last, moved) = (now, Instant::now());
            } else if moved.elapsed() > STALLED_AFTER {
                return anyhow!("{now} splits were executed, and then none for {STALLED_AFTER:?}");
            }
        }
    }
}

/// Told of each payload when its handler begins.
pub type Seen = Arc<dyn Fn(&Job) + Send + Sync>;

/// A handler that does nothing.
#[derive(Clone, Default)]
pub struct Noop {
    /// Counts.
    pub calls: Arc<Calls>,
    /// Measures.
    pub seen: Option<Seen>,
}

impl Handler for Noop {
    const TASK_TYPE: &'static str = "bench.noop";
    type Payload = Job;
    type Share = ();
    type Output = ();

    async fn execute(&self, _: &mut Context<'_>, job: &Job, (): ()) -> Result<Outcome<()>, HandlerError> {
        if let Some(seen) = &self.seen {
            seen(job);
        }
        std::hint::black_box(&job.uri);
        self.calls.add(1);
        Ok(Outcome::Complete(()))
    }
}

/// A worker that runs beside what measures it.
pub struct Running {
    stop: CancellationToken,
    task: AbortOnDropHandle<crate::Result<Summary>>,
}

impl Running {
    /// Starts it.
    pub fn start(worker: Worker) -> Self {
        let stop = CancellationToken::new();
        let shutdown = stop.clone();
        let task = AbortOnDropHandle::new(apart::spawn(async move { worker.run(shutdown).await }));
        Self { stop, task }
    }

    /// Whether it has ended by itself: then [`Running::stop`] says why.
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Lets it finish what it has begun.
    ///
    /// # Errors
    /// When it could not work.
    pub async fn stop(self) -> Result<Summary> {
        self.stop.cancel();
        self.task.await.context("the worker broke")?.context("the worker")
    }
}

/// How many splits a worker runs at once.
#[derive(Debug, Clone, Copy)]
pub enum Slots {
    /// So many over all types, whichever have work.
    Together(usize),
    /// So many of each type.
    Each(usize),
}

/// A worker of these types.
///
/// # Errors
/// When it can't be built.
pub fn worker<H: Handler + Clone>(
    pool: &PgPool,
    types: &[String],
    handler: &H,
    slots: Slots,
) -> Result<Worker> {
    let mut builder = Worker::builder(pool.clone()).name(format!("{WORKER_PREFIX}worker"));
    for name in types {
        builder = builder.handler_as(name, handler.clone());
        if let Slots::Each(slots) = slots {
            builder = builder.slots(slots);
        }
    }
    if let Slots::Together(in_flight) = slots {
        builder = builder.in_flight(in_flight);
    }
    Ok(builder.build()?)
}
