//! `divvy bench latency`: how soon a handler begins when a task comes to an idle worker; beside the floor.
//!
//! Each insert has a moment at which it is meant to be. What holds one up makes the next ones late, and that counts for
//! them, too: a producer that waited instead would leave out what a stall costs.

use super::calls::{Noop, Running, Seen, Slots, worker};
use super::figure::{Figure, Series, Watch, rounded};
use super::floor::S_FUSED;
use super::payload::{Job, payload};
use super::pick_up::{Percentiles, Waits};
use super::report::{Counts, Report, grouped, micros};
use super::screen::Progress;
use super::{Bench, load};
use crate::apart;
use crate::store::connect;
use anyhow::{Context, Result, bail};
use serde_json::json;
use sqlx::postgres::PgListener;
use sqlx::types::Json;
use sqlx::{Executor, PgConnection};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

/// Inserts before the measuring: connections open, statements are prepared, and the worker has said that it is idle.
const WARM_UP: usize = 10;
/// Slots of the worker: it never has more than a few.
const SLOTS: usize = 10;
/// What one insert may take to reach its handler.
const WITHIN: Duration = Duration::from_secs(10);

/// The floor's wake-up, and its claim and completion of a few.
const FLOOR_TRIGGER: &str = "
    create function divvy_bench_floor.wake() returns trigger language plpgsql as
        $$ begin perform pg_notify('divvy_bench_floor', ''); return null; end $$;
    create trigger wake after insert on divvy_bench_floor.job for each statement execute function divvy_bench_floor.wake()";
const FLOOR_INSERT: &str = "insert into divvy_bench_floor.job (payload) values ($1::text::jsonb)";
const FLOOR_BATCH: i64 = 10;

/// How many, how often.
#[derive(Debug, Clone, clap::Args, serde::Serialize)]
pub struct Options {
    /// Inserts of a round, one after the other
    #[arg(long, default_value_t = 250, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub tasks: u32,
    /// Between two of them
    #[arg(long, default_value_t = 20, value_name = "MILLISECONDS")]
    pub spacing: u64,
    /// Rounds, of divvy and of the floor in turn
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Finished splits that are there before it begins
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub history: u64,
}

/// When each insert was meant to be, when its commit was heard, and when its handler began; in microseconds, 0 for not yet.
struct Moments {
    began: Instant,
    meant: Vec<AtomicU64>,
    committed: Vec<AtomicU64>,
    seen: Vec<AtomicU64>,
}

impl Moments {
    fn new(inserts: usize) -> Self {
        let nothing = || (0..inserts).map(|_| AtomicU64::new(0)).collect();
        Self { began: Instant::now(), meant: nothing(), committed: nothing(), seen: nothing() }
    }

    fn mark(&self, of: &[AtomicU64], insert: usize, at: Instant) {
        let at = at.saturating_duration_since(self.began).as_micros();
        if let Some(moment) = of.get(insert) {
            moment.store(u64::try_from(at).unwrap_or(u64::MAX).max(1), Ordering::Release);
        }
    }

    fn see(&self, job: &Job) {
        // Insert 0 is number 1 in its payload: 0 means that nobody measures.
        self.mark(&self.seen, (job.task as usize).wrapping_sub(1), Instant::now());
    }

    async fn all_seen(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let missing = self.seen.iter().filter(|moment| moment.load(Ordering::Acquire) == 0).count();
            match missing {
                0 => return Ok(()),
                _ if began.elapsed() > WITHIN => {
                    bail!("{missing} of {} inserts reached no handler within {WITHIN:?}", self.seen.len())
                }
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

/// The waits of one way, over all rounds; and what each round used.
struct Way {
    from_commit: Waits,
    from_intent: Waits,
    series: Series,
}

impl Way {
    fn new(key: &str) -> Self {
        Self { from_commit: Waits::default(), from_intent: Waits::default(), series: Series::new(key, key) }
    }

    fn add(&mut self, moments: &Moments, figure: Figure) {
        self.series.figures.push(figure);
        let at = |of: &[AtomicU64], insert: usize| of[insert].load(Ordering::Acquire);
        for insert in WARM_UP..moments.seen.len() {
            let seen = at(&moments.seen, insert);
            self.from_commit.record(seen.saturating_sub(at(&moments.committed, insert)));
            self.from_intent.record(seen.saturating_sub(at(&moments.meant, insert)));
        }
    }
}

/// Measures.
///
/// # Errors
/// When a step fails.
pub async fn run(bench: &Bench, options: &Options) -> Result<Report> {
    let Options { tasks, rounds, spacing, history } = *options;
    let (mut divvy, mut floor) = (Way::new("divvy"), Way::new("floor"));
    let mut counts = Counts::default();
    let mut connection = connect::connect(&bench.direct).await?;
    let types = load::types(1);
    load::declare(&mut connection, &types, &json!({})).await?;
    load::history(&mut connection, &types, history, bench.payload_bytes).await?;
    for _ in 0..rounds {
        let succeeded_before = load::standing(&mut connection).await?.0;
        let moments = Arc::new(Moments::new(WARM_UP + tasks as usize));
        let seen = moments.clone();
        let seen: Seen = Arc::new(move |job: &Job| seen.see(job));
        let noop = Noop { seen: Some(seen), ..Noop::default() };
        let running = Running::start(worker(&bench.pool, &types, &noop, Slots::Together(SLOTS))?);
        let figure = insert(bench, options, "divvy", &moments, &mut connection, Some(&types[0])).await?;
        running.stop().await?;
        divvy.add(&moments, figure);
        counts += Counts {
            inserted: moments.seen.len() as u64,
            succeeded: load::standing(&mut connection).await?.0 - succeeded_before,
            handler_calls: noop.calls.so_far(),
            left_ready: 0,
        };
        let (moments, figure) = floor_round(bench, options).await?;
        floor.add(&moments, figure);
    }
    let title = format!(
        "latency: {} single inserts to an idle worker, {spacing} ms apart",
        grouped(u64::from(tasks * rounds))
    );
    report(title, options, &divvy, &floor, counts)
}

/// One insert after the other, each with a commit of its own; returns when all have reached their handlers.
async fn insert(
    bench: &Bench,
    options: &Options,
    who: &str,
    moments: &Moments,
    connection: &mut PgConnection,
    task_type: Option<&str>,
) -> Result<Figure> {
    let progress = Progress::new(who, moments.seen.len() as u64);
    let mut next = tokio::time::interval(Duration::from_millis(options.spacing.max(1)));
    // After an insert that took too long those that were meant for that time come at once, each with its own moment.
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let watch = Watch::start(&bench.cpu);
    for at in 0..moments.seen.len() {
        if at == WARM_UP {
            // What opened connections and made plans holds up nothing that is measured.
            next.reset();
        }
        let meant = next.tick().await.into_std();
        moments.mark(&moments.meant, at, meant);
        let payload = payload(at as u64 + 1, 0, bench.payload_bytes);
        match task_type {
            Some(task_type) => {
                sqlx::query("insert into divvy.task (task_type, payload) values ($2, $1::text::jsonb)")
                    .bind(payload)
                    .bind(task_type)
                    .execute(&mut *connection)
                    .await?
            }
            None => sqlx::query(FLOOR_INSERT).bind(payload).execute(&mut *connection).await?,
        };
        moments.mark(&moments.committed, at, Instant::now());
        progress.at(at as u64);
    }
    moments.all_seen().await?;
    Ok(watch.read(moments.seen.len() as u64))
}

/// The same by hand: a trigger notifies, a listener claims and completes.
async fn floor_round(bench: &Bench, options: &Options) -> Result<(Arc<Moments>, Figure)> {
    let mut connection = connect::connect(&bench.direct).await?;
    S_FUSED.prepare(&mut connection).await?;
    connection.execute(FLOOR_TRIGGER).await?;
    let moments = Arc::new(Moments::new(WARM_UP + options.tasks as usize));
    let (listening, listens) = oneshot::channel();
    let seen = moments.clone();
    let direct = bench.direct.clone();
    let mut serving = AbortOnDropHandle::new(apart::spawn(async move {
        let pool = crate::store::pool::options().max_connections(1).connect_with(direct.clone()).await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen("divvy_bench_floor").await?;
        let mut connection = connect::connect(&direct).await?;
        let _ = listening.send(());
        loop {
            listener.recv().await?;
            let rows: Vec<(i64, Json<Job>)> =
                sqlx::query_as(S_FUSED.part("claim")).bind(FLOOR_BATCH).fetch_all(&mut connection).await?;
            rows.iter().for_each(|(_, Json(job))| seen.see(job));
            let ids: Vec<i64> = rows.iter().map(|(id, _)| *id).collect();
            sqlx::query(S_FUSED.part("complete")).bind(ids).execute(&mut connection).await?;
        }
        #[allow(unreachable_code)]
        Ok::<(), anyhow::Error>(())
    }));
    listens.await.context("the floor's listener broke")?;
    let figure = tokio::select! {
        inserted = insert(bench, options, "floor", &moments, &mut connection, None) => inserted?,
        broken = &mut serving => {
            broken.context("the floor's listener broke")??;
            bail!("the floor's listener has ended by itself");
        }
    };
    drop(serving);
    load::drop_floor(&mut connection).await?;
    Ok((moments, figure))
}

fn report(title: String, options: &Options, divvy: &Way, floor: &Way, counts: Counts) -> Result<Report> {
    let mut report = Report::new("latency", title, options)?;
    report.columns(&["", "p50 ms", "p90 ms", "p99 ms", "max ms", "SERVER", "CLIENT"]);
    for way in [divvy, floor] {
        let name = &way.series.name;
        let cpu = [Figure::server_us, Figure::client_us].map(|of| way.series.median(of));
        let mut said = serde_json::to_value(way.from_commit.percentiles())?;
        for (key, us) in ["server_us", "client_us"].into_iter().zip(cpu) {
            said[key] = json!(us.map(|us| rounded(us, 2)));
        }
        report.insert("results", name, said);
        let waits = cells(&way.from_commit.percentiles());
        report.row(std::iter::once(format!("{name}, from the commit")).chain(waits).chain(cpu.map(micros)));
        let said = way.from_intent.percentiles();
        report.insert("results", &format!("{name}_from_intent"), serde_json::to_value(said)?);
        report.row(std::iter::once(format!("{name}, as intended")).chain(cells(&said)));
    }
    report.note(
        "from the commit: from the answer to the insert, 0 where the handler began before it; as intended: from the \
         moment at which the insert was meant to be, so the insert itself, a timer that is up to 1 ms late, and \
         whatever held this insert or those before it up are included. SERVER, CLIENT: CPU µs for each insert, to the \
         end of its split and while nothing is to do. The floor is LISTEN and NOTIFY by hand"
            .to_owned(),
    );
    report.counts(counts);
    Ok(report)
}

fn cells(said: &Percentiles) -> [String; 4] {
    [said.p50_ms, said.p90_ms, said.p99_ms, said.max_ms].map(|ms| format!("{ms:.2}"))
}
