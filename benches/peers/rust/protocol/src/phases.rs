//! The measured work, the same for every system.

use crate::talk::{ready, say};
use crate::{CLIENTS, Job, Peer, Result, Tally};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::time::{sleep, sleep_until, timeout};

/// Jobs in one call of [`Peer::add`].
const BATCH: u64 = 1_000;
/// What `steady` keeps waiting: more than any worker here fetches at once.
const DEPTH: u64 = 20_000;
/// The pace of `latency`, and how many of its first jobs only warm up.
const PACE: Duration = Duration::from_millis(20);
const WARM_UP: u64 = 10;
/// Longest time without any progress before a run is given up.
const STALLED: Duration = Duration::from_secs(60);
/// How long the rest of a steady run may take to be worked off.
const REST: Duration = Duration::from_secs(300);

pub async fn setup<P: Peer>(peer: &P) -> Result<()> {
    peer.setup().await?;
    say("done", json!({ "settings": peer.settings() }));
    Ok(())
}

async fn add<P: Peer>(peer: &P, from: u64, count: u64) -> Result<()> {
    let jobs: Vec<Job> = (from..from + count).map(Job::new).collect();
    peer.add(&jobs).await
}

/// Many jobs by one client, in batches.
pub async fn enqueue<P: Peer>(peer: &P, jobs: u64) -> Result<()> {
    ready(peer.settings()).await?;
    let started = Instant::now();
    let mut at = 0;
    while at < jobs {
        let count = BATCH.min(jobs - at);
        add(peer, at, count).await?;
        at += count;
    }
    measured(jobs, started.elapsed());
    let open = peer.standing().await?.open;
    check(open == jobs as i64, || format!("{jobs} jobs were inserted, {open} are there"))?;
    say("done", json!({ "open": open }));
    Ok(())
}

/// Single jobs, each in a transaction of its own, by eight clients.
pub async fn commits<P: Peer>(peer: P, time: Duration) -> Result<()> {
    let peer = Arc::new(peer);
    ready(peer.settings()).await?;
    let (started, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (peer, next) = (peer.clone(), next.clone());
            tokio::spawn(async move {
                while started.elapsed() < time {
                    peer.add_one(Job::new(next.fetch_add(1, Relaxed))).await?;
                }
                Result::Ok(())
            })
        })
        .collect();
    for client in clients {
        client.await??;
    }
    let jobs = next.load(Relaxed);
    measured(jobs, started.elapsed());
    let open = peer.standing().await?.open;
    check(open == jobs as i64, || format!("{jobs} jobs were inserted, {open} are there"))?;
    say("done", json!({ "open": open }));
    Ok(())
}

/// What is already there, by one worker.
pub async fn drain<P: Peer>(peer: &P, jobs: u64) -> Result<()> {
    let tally = Tally::new(0);
    ready(peer.settings()).await?;
    let started = Instant::now();
    peer.start(tally.clone()).await?;
    until(&tally, |calls| calls >= jobs).await?;
    let handled = started.elapsed();
    settled(peer, STALLED).await?;
    let wall = started.elapsed();
    say(
        "measured",
        json!({ "jobs": jobs, "seconds": wall.as_secs_f64(), "handled_seconds": handled.as_secs_f64() }),
    );
    verified(peer, &tally, jobs).await
}

/// How soon an idle worker begins with a job: from the insert's call, and from its return, to the handler's start.
pub async fn latency<P: Peer>(peer: &P, jobs: u64) -> Result<()> {
    let tally = Tally::new(jobs + WARM_UP);
    ready(peer.settings()).await?;
    peer.start(tally.clone()).await?;
    sleep(Duration::from_secs(2)).await;
    let (started, mut inserts) = (Instant::now(), Vec::new());
    for number in 0..jobs + WARM_UP {
        // By the clock, not after the last one: a late insert does not make the next one's wait shorter.
        sleep_until((started + PACE * number as u32).into()).await;
        let called = Instant::now();
        peer.add_one(Job::new(number)).await?;
        inserts.push((called, Instant::now()));
    }
    until(&tally, |calls| calls >= jobs + WARM_UP).await?;
    let wall = started.elapsed();
    let (mut from_call, mut from_commit) = (Vec::new(), Vec::new());
    for (number, (called, committed)) in inserts.iter().enumerate().skip(WARM_UP as usize) {
        let begun = tally.begun(number as u64).ok_or_else(|| format!("job {number} was not handled"))?;
        let ms = |since: &Instant| begun.saturating_duration_since(*since).as_secs_f64() * 1e3;
        from_call.push(ms(called));
        from_commit.push(ms(committed));
    }
    say(
        "measured",
        json!({ "jobs": jobs, "seconds": wall.as_secs_f64(), "from_call_ms": from_call, "from_commit_ms": from_commit }),
    );
    settled(peer, STALLED).await?;
    verified(peer, &tally, jobs + WARM_UP).await
}

/// One producer that keeps [`DEPTH`] jobs waiting, and one worker, for some time; `from` jobs are there already.
pub async fn steady<P: Peer>(peer: P, from: u64, time: Duration, every: Duration) -> Result<()> {
    let (peer, tally) = (Arc::new(peer), Tally::new(0));
    ready(peer.settings()).await?;
    let (inserted, stop) = (Arc::new(AtomicU64::new(from)), Arc::new(AtomicBool::new(false)));
    let producer = tokio::spawn({
        let (peer, tally, inserted, stop) = (peer.clone(), tally.clone(), inserted.clone(), stop.clone());
        async move {
            while !stop.load(Relaxed) {
                let at = inserted.load(Relaxed);
                if at.saturating_sub(tally.calls()) >= DEPTH {
                    sleep(Duration::from_millis(2)).await;
                    continue;
                }
                add(&*peer, at, BATCH).await?;
                inserted.store(at + BATCH, Relaxed);
            }
            Result::Ok(())
        }
    });
    peer.start(tally.clone()).await?;
    let started = Instant::now();
    let mut next = every;
    while next <= time {
        sleep_until((started + next).into()).await;
        if producer.is_finished() {
            break;
        }
        say("tick", json!({ "seconds": started.elapsed().as_secs_f64(), "jobs": tally.calls() }));
        next += every;
    }
    stop.store(true, Relaxed);
    let (calls, wall) = (tally.calls(), started.elapsed());
    measured(calls, wall);
    producer.await??;
    let jobs = inserted.load(Relaxed);
    timeout(REST, until(&tally, |calls| calls >= jobs))
        .await
        .map_err(|_| format!("{} of {jobs} jobs handled {REST:?} after the last insert", tally.calls()))??;
    settled(&*peer, REST).await?;
    verified(&*peer, &tally, jobs).await
}

fn measured(jobs: u64, wall: Duration) {
    say("measured", json!({ "jobs": jobs, "seconds": wall.as_secs_f64() }));
}

/// Waits for a number of calls; gives up when there are none for long.
async fn until(tally: &Tally, enough: impl Fn(u64) -> bool) -> Result<()> {
    let (mut last, mut moved) = (tally.calls(), Instant::now());
    loop {
        let calls = tally.calls();
        if enough(calls) {
            return Ok(());
        }
        if calls > last {
            (last, moved) = (calls, Instant::now());
        } else if moved.elapsed() > STALLED {
            return Err(format!("no handler was called for {STALLED:?}; {calls} calls so far").into());
        }
        sleep(Duration::from_millis(1)).await;
    }
}

async fn settled<P: Peer>(peer: &P, within: Duration) -> Result<()> {
    let started = Instant::now();
    while !peer.settled().await? {
        check(started.elapsed() < within, || format!("not all jobs are recorded as done after {within:?}"))?;
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Every job ran, and nothing is left.
async fn verified<P: Peer>(peer: &P, tally: &Tally, jobs: u64) -> Result<()> {
    let standing = peer.standing().await?;
    let (missed, repeated) = tally.missed_and_repeated(jobs);
    let calls = tally.calls();
    check(missed == 0 && calls >= jobs, || {
        format!("{calls} calls for {jobs} jobs, {missed} jobs never ran")
    })?;
    check(standing.open == 0, || format!("{} of {jobs} jobs are still open", standing.open))?;
    if let Some(kept) = standing.kept {
        check(kept >= jobs as i64, || format!("{kept} of {jobs} finished jobs are kept"))?;
    }
    say("done", json!({ "calls": calls, "repeated": repeated, "open": 0, "kept": standing.kept }));
    Ok(())
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}
