//! Workers of types that are found in the database, and come and change while they run.
//!
//! Each change makes a new [`Worker`]; the one before finishes what it has begun. A type that can't be served now is
//! tried again later, so its tasks wait instead of failing.

use super::{Builder, Summary, Worker};
use crate::{Error, Result};
use sqlx::PgPool;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often to look for new and changed types.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often to try again what could not be served.
const TRY_AGAIN_EVERY: Duration = Duration::from_secs(3);

/// Where the types are found, and what serves them.
pub(super) trait Source: Send + Sync {
    /// What is compared to see a change.
    type Types: PartialEq + Send + Sync;
    /// What they are called, for the log.
    const WHAT: &'static str;

    /// The types to serve as they are now.
    fn types(&self) -> impl Future<Output = Result<Self::Types>> + Send;
    /// What serves those that can be served.
    fn prepare(&self, types: &Self::Types) -> impl Future<Output = Prepared> + Send;
}

/// The next worker.
pub(super) struct Prepared {
    /// None when there is nothing to serve.
    pub(super) builder: Option<Builder>,
    /// Some type can't be served now.
    pub(super) refused: bool,
    /// Closed when the worker has ended.
    pub(super) pools: Vec<PgPool>,
}

/// The worker for the types as they were last seen.
struct Generation<T> {
    types: T,
    refused: bool,
    since: Instant,
    stop: CancellationToken,
}

/// Serves until `stop`, or until an operator terminates the worker. Trouble with the database or a type never ends it.
pub(super) async fn serve<S: Source>(source: &S, stop: CancellationToken) -> Summary {
    let mut workers = JoinSet::new();
    let mut total = Summary::default();
    let mut current: Option<Generation<S::Types>> = None;
    let mut terminated = false;
    while !stop.is_cancelled() && !terminated {
        match source.types().await {
            Ok(types) if current.as_ref().is_none_or(|current| current.is_outdated(&types)) => {
                let next = start(source, types, &stop, &mut workers).await;
                // Only now: meanwhile the types were served by the old one.
                if let Some(old) = current.replace(next) {
                    old.stop.cancel();
                }
            }
            Ok(_) => (),
            Err(error) => tracing::warn!(%error, "{} can't be read: {error}", S::WHAT),
        }
        tokio::select! {
            () = stop.cancelled() => (),
            () = tokio::time::sleep(LOOK_EVERY) => (),
        }
        while let Some(ended) = workers.try_join_next() {
            let (done, by_itself) =
                note::<S>(ended.unwrap_or_else(|panic| Err(panicked(panic))), &mut current);
            total += done;
            terminated |= by_itself;
        }
    }
    if let Some(current) = &current {
        current.stop.cancel();
    }
    while let Some(ended) = workers.join_next().await {
        total += note::<S>(ended.unwrap_or_else(|panic| Err(panicked(panic))), &mut current).0;
    }
    total
}

async fn start<S: Source>(
    source: &S,
    types: S::Types,
    stop: &CancellationToken,
    workers: &mut JoinSet<Result<(Summary, bool)>>,
) -> Generation<S::Types> {
    let Prepared { builder, refused, pools } = source.prepare(&types).await;
    let stop = stop.child_token();
    if let Some(builder) = builder {
        workers.spawn(work(builder.build(), stop.clone(), pools));
    }
    Generation { refused, types, since: Instant::now(), stop }
}

impl<T: PartialEq> Generation<T> {
    fn is_outdated(&self, types: &T) -> bool {
        self.types != *types || (self.refused && self.since.elapsed() >= TRY_AGAIN_EVERY)
    }
}

/// Runs one generation's worker, then closes its pools. Also says whether it ended though nobody here told it to: an
/// operator did.
async fn work(
    worker: Result<Worker>,
    stop: CancellationToken,
    pools: Vec<PgPool>,
) -> Result<(Summary, bool)> {
    let outcome = match worker {
        Ok(worker) => worker.run(stop.clone()).await.map(|done| (done, !stop.is_cancelled())),
        Err(error) => Err(error),
    };
    for pool in pools {
        pool.close().await;
    }
    outcome
}

/// What an ended worker did. One that failed is followed by another at the next look.
fn note<S: Source>(
    ended: Result<(Summary, bool)>,
    current: &mut Option<Generation<S::Types>>,
) -> (Summary, bool) {
    ended.unwrap_or_else(|error| {
        tracing::warn!(%error, "the worker of {} ended: {error}", S::WHAT);
        if let Some(current) = current {
            current.refused = true;
        }
        (Summary::default(), false)
    })
}

fn panicked(panic: tokio::task::JoinError) -> Error {
    Error::new(crate::ErrorKind::Database, format!("it broke: {panic}")).caused_by(panic)
}
