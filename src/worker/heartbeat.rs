//! Renewing leases and hearing verdicts, on a connection nobody else uses.

use super::Core;
use super::backoff::Backoff;
use super::lease::Leases;
use super::signals::Signals;
use crate::id::{SplitId, Token};
use crate::store::state::{Command, Pulse};
use crate::store::worker::{Beat, heartbeat};
use crate::{ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// How many leases one call renews.
const BEAT_SPLITS_MAX: usize = 10_000;
/// Whatever the lease: not more often than this, and not more rarely.
const EVERY_LEAST: Duration = Duration::from_millis(100);
const EVERY_MOST: Duration = Duration::from_secs(60);
/// Somebody may have given a type a shorter lease: ask this often.
const LEASES_AGAIN: Duration = Duration::from_secs(60);
/// Notifications may come in bursts; beats need not.
const APART: Duration = Duration::from_millis(50);
/// How long one beat may take: at least this, and the interval when that is longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Beats until the worker is through, from before the first claim to after the last commit.
pub(super) async fn beat(
    core: Arc<Core>,
    leases: Arc<Leases>,
    signals: Arc<Signals>,
    (command, asked): (Command, Duration),
) {
    signals.obey(command);
    let mut every = interval(&core, asked);
    let mut backoff = Backoff::new();
    let mut next = Instant::now() + every;
    let mut look_again = Instant::now() + LEASES_AGAIN;
    loop {
        tokio::select! {
            () = signals.done.cancelled() => return,
            () = tokio::time::sleep_until(next) => {}
            () = signals.beat.notified() => tokio::time::sleep(APART).await,
        }
        match beat_once(&core, &leases, every).await {
            Ok(command) => {
                if Instant::now() >= look_again
                    && let Ok((_, asked)) = core.register().await
                {
                    every = interval(&core, asked);
                    look_again = Instant::now() + LEASES_AGAIN;
                }
                signals.obey(command);
                backoff.reset();
                next = Instant::now() + every;
            }
            Err(error) => {
                if error.kind() == ErrorKind::NotFound {
                    signals.unknown.store(true, Ordering::Relaxed);
                    signals.look.notify_one();
                }
                tracing::warn!(worker.id = %core.id, %error, "a heartbeat failed");
                next = Instant::now() + backoff.next().min(every);
            }
        }
    }
}

/// How often to beat: as asked, and thrice a lease of our own.
fn interval(core: &Core, asked: Duration) -> Duration {
    core.lease.map_or(asked, |lease| asked.min(lease / 3)).clamp(EVERY_LEAST, EVERY_MOST)
}

async fn beat_once(core: &Arc<Core>, leases: &Leases, every: Duration) -> Result<Command> {
    let held = leases.all();
    let mut command = None;
    let mut chunks = held.chunks(BEAT_SPLITS_MAX);
    // Also without any split: it says that the worker lives, and brings the command.
    let mut chunk = chunks.next().unwrap_or_default();
    loop {
        let beat = renew(core, chunk, every).await?;
        command.get_or_insert(beat.command);
        for (split, pulse) in beat.splits {
            let Ok(at) = chunk.binary_search_by_key(&split, |(id, _)| *id) else { continue };
            match pulse {
                Pulse::Ok => {}
                Pulse::Cancel => {
                    leases.tell(split, chunk[at].1, false);
                }
                Pulse::Lost => {
                    if leases.tell(split, chunk[at].1, true) {
                        tracing::warn!(split.id = %split, worker.id = %core.id, "the lease of split {split} is lost");
                    }
                }
            }
        }
        match chunks.next() {
            Some(more) => chunk = more,
            None => return Ok(command.unwrap_or(Command::Run)),
        }
    }
}

async fn renew(core: &Arc<Core>, chunk: &[(SplitId, Token)], every: Duration) -> Result<Beat> {
    let (splits, tokens): (Vec<SplitId>, Vec<Token>) = chunk.iter().copied().unzip();
    let (worker, lease) = (core.id, core.lease);
    core.pulse
        .bounded(every.max(ANSWER_WITHIN), move |c| {
            Box::pin(async move { heartbeat(c, worker, &splits, &tokens, lease).await })
        })
        .await
}
