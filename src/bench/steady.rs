//! `divvy bench steady`: a producer and a worker together, and what a held snapshot does to them.

use super::calls::{Calls, Noop, Running, Slots, worker};
use super::drain::IN_FLIGHT;
use super::figure::{Figure, rounded};
use super::floor::{self, Design, Drive, S_CTID_CUR, S_FUSED, State};
use super::hold::{Hold, Kind};
use super::line::{Line, Lines};
use super::pick_up::{Arrivals, Waits};
use super::producer::{Into, Producer};
use super::report::{Counts, Report, grouped, micros, times};
use super::screen::Progress;
use super::{Bench, load};
use crate::apart;
use crate::store::connect;
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use sqlx::PgConnection;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Splits that wait for a worker when the producer is as fast as it: enough for any batch.
const DEPTH: u64 = 5_000;

/// Who works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// A worker of divvy
    Divvy,
    /// The floor `s_fused`: claims from the front of the index
    Floor,
    /// The floor `s_ctid_cur`: claims from a position
    #[value(name = "s_ctid_cur")]
    SCtidCur,
}

impl Who {
    /// The hand-written SQL it is, if it is.
    fn floor(self) -> Option<Design> {
        match self {
            Self::Divvy => None,
            Self::Floor => Some(S_FUSED),
            Self::SCtidCur => Some(S_CTID_CUR),
        }
    }
}

/// How long, and under what.
#[derive(Debug, Clone, clap::Args, serde::Serialize)]
pub struct Options {
    /// How long
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub secs: u64,
    /// How often a line is printed
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub interval: u64,
    /// Inserts a second [default: as many as are worked off]
    #[arg(long, value_name = "N")]
    pub rate: Option<u32>,
    /// Hold an idle REPEATABLE READ snapshot, from a quarter of the time to the end
    #[arg(long, conflicts_with = "hold_transaction")]
    pub hold_snapshot: bool,
    /// Hold a transaction with a transaction id and a snapshot, from a quarter of the time to the end
    #[arg(long)]
    pub hold_transaction: bool,
    /// Let go of what is held after three quarters of the time
    #[arg(long)]
    pub let_go: bool,
    /// Who works
    #[arg(long, value_enum, default_value_t = Who::Divvy)]
    pub design: Who,
    /// Splits the worker has at once
    #[arg(long, default_value_t = IN_FLIGHT, value_name = "N")]
    pub in_flight: usize,
    /// Finished splits that are there before it begins
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub history: u64,
    /// Ready splits that are there beyond those of the producer
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub backlog: u64,
    /// Task types that the splits are spread over
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub types: u32,
}

impl Options {
    fn hold(&self) -> Option<Kind> {
        match (self.hold_snapshot, self.hold_transaction) {
            (true, _) => Some(Kind::Snapshot),
            (_, true) => Some(Kind::Transaction),
            _ => None,
        }
    }
}

/// Who works, at work.
enum Engine {
    Divvy(Running),
    Floor(AbortOnDropHandle<Result<()>>, Arc<State>),
}

impl Engine {
    fn has_ended(&self) -> bool {
        match self {
            Self::Divvy(running) => running.has_ended(),
            Self::Floor(connections, _) => connections.is_finished(),
        }
    }

    async fn stop(self) -> Result<()> {
        match self {
            Self::Divvy(running) => running.stop().await.map(drop),
            Self::Floor(connections, state) => {
                state.stop.cancel();
                connections.await.context("the floor broke")?
            }
        }
    }
}

/// Measures.
///
/// # Errors
/// When a step fails.
pub async fn run(bench: &Bench, options: &Options) -> Result<Report> {
    ensure!(options.in_flight > 0, "--in-flight is 0: a worker needs one slot");
    ensure!(options.rate != Some(0), "--rate is 0: leave it out for as many as are worked off");
    let names = load::types(options.types);
    let mut connection = connect::connect(&bench.direct).await?;
    let standing_before = prepare(bench, options, &names, &mut connection).await?;
    let arrivals = Arc::new(Arrivals::new(options.rate.is_some()));
    let calls = Arc::new(Calls::default());
    let inserted = Arc::new(AtomicU64::new(options.backlog));
    let stop = CancellationToken::new();
    let producer = Producer {
        into: options.design.floor().map_or_else(|| Into::Divvy(names.clone()), Into::Floor),
        bytes: bench.payload_bytes,
        arrivals: arrivals.clone(),
        inserted: inserted.clone(),
        calls: calls.clone(),
        depth: options.backlog + DEPTH,
        rate: options.rate.map(f64::from),
        stop: stop.clone(),
    };
    let engine = start(bench, options, &names, &arrivals, &calls)?;
    let producing = AbortOnDropHandle::new(apart::spawn(producer.run(bench.direct.clone())));
    let watched = Watched { arrivals: &arrivals, calls: &calls, inserted: &inserted };
    let lines = watch(bench, options, &watched, || engine.has_ended() || producing.is_finished()).await;
    stop.cancel();
    let lines = match lines {
        Ok(lines) => lines,
        // What ended by itself knows better why.
        Err(error) => {
            producing.await.context("the producer broke")??;
            engine.stop().await?;
            return Err(error);
        }
    };
    producing.await.context("the producer broke")??;
    // A rate that was too high leaves a backlog too: work it off, but that which was to stay.
    let all = inserted.load(Ordering::Relaxed);
    calls.reach(all - options.backlog.min(all), &Progress::new("working off the rest", all)).await?;
    engine.stop().await?;
    let counts = match options.design.floor() {
        None => {
            let (succeeded, left_ready) = load::standing(&mut connection).await?;
            Counts {
                inserted: all,
                succeeded: succeeded - standing_before,
                handler_calls: calls.so_far(),
                left_ready: left_ready.min(options.backlog),
            }
        }
        Some(design) => {
            let ended: i64 = sqlx::query_scalar(design.part("ended")).fetch_one(&mut connection).await?;
            let ended = u64::try_from(ended)?;
            Counts { inserted: all, succeeded: ended, handler_calls: calls.so_far(), left_ready: all - ended }
        }
    };
    report(options, &lines, counts)
}

/// Puts in what is there before; returns how many have succeeded by then.
async fn prepare(
    bench: &Bench,
    options: &Options,
    types: &[String],
    connection: &mut PgConnection,
) -> Result<u64> {
    let bytes = bench.payload_bytes;
    if let Some(design) = options.design.floor() {
        design.prepare(connection).await?;
        design.fill(connection, options.backlog, Drive::WIDE, bytes).await?;
        return Ok(0);
    }
    load::declare(connection, types, &json!({})).await?;
    load::history(connection, types, options.history, bytes).await?;
    load::fill(connection, types, options.backlog, bytes).await?;
    if options.history + options.backlog > 0 {
        load::vacuum(connection).await?;
    }
    Ok(load::standing(connection).await?.0)
}

fn start(
    bench: &Bench,
    options: &Options,
    types: &[String],
    arrivals: &Arc<Arrivals>,
    calls: &Arc<Calls>,
) -> Result<Engine> {
    let arrivals = arrivals.clone();
    let seen: super::calls::Seen = Arc::new(move |job| arrivals.seen(job));
    Ok(match options.design.floor() {
        None => {
            let noop = Noop { calls: calls.clone(), seen: Some(seen) };
            Engine::Divvy(Running::start(worker(
                &bench.pool,
                types,
                &noop,
                Slots::Together(options.in_flight),
            )?))
        }
        Some(design) => {
            let state = Arc::new(State { done: calls.clone(), seen: Some(seen), ..State::default() });
            let connections = floor::start(design, Drive::WIDE, &bench.direct, &state);
            Engine::Floor(AbortOnDropHandle::new(apart::spawn(floor::join(connections))), state)
        }
    })
}

struct Watched<'w> {
    arrivals: &'w Arrivals,
    calls: &'w Calls,
    inserted: &'w AtomicU64,
}

/// A line for each interval, for as long as it takes; holds and lets go at the ends of intervals.
async fn watch(
    bench: &Bench,
    options: &Options,
    watched: &Watched<'_>,
    has_ended: impl Fn() -> bool,
) -> Result<Lines> {
    let (whole, every) = (Duration::from_secs(options.secs), Duration::from_secs(options.interval));
    let began = tokio::time::Instant::now();
    let mut held: Option<Hold> = None;
    let mut was_held = false;
    let mut lines = Lines::default();
    let mut before = (tokio::time::Instant::now(), bench.cpu.now(), watched.calls.so_far());
    while began.elapsed() < whole {
        let elapsed = began.elapsed();
        if let Some(kind) = options.hold()
            && !was_held
            && elapsed >= whole / 4
        {
            held = Some(Hold::begin(kind, &bench.direct).await?);
            was_held = true;
        }
        if options.let_go
            && elapsed >= whole * 3 / 4
            && let Some(hold) = held.take()
        {
            hold.end().await?;
        }
        tokio::time::sleep_until((before.0 + every).min(began + whole)).await;
        if has_ended() {
            bail!("the worker or the producer has ended by itself after {:?}", began.elapsed());
        }
        let now = (tokio::time::Instant::now(), bench.cpu.now(), watched.calls.so_far());
        let figure = Figure {
            count: now.2 - before.2,
            seconds: (now.0 - before.0).as_secs_f64(),
            used: now.1.since(before.1),
        };
        before = now;
        let waits: Waits = watched.arrivals.take();
        let line = Line {
            at: began.elapsed().as_secs_f64(),
            held: held.as_ref().and(options.hold()),
            figure,
            pick_up: waits.percentiles(),
            backlog: watched.inserted.load(Ordering::Relaxed).saturating_sub(watched.calls.so_far()),
        };
        (bench.say)(&lines.print(&line, bench.json));
        lines.add(line, &waits);
    }
    if let Some(hold) = held {
        hold.end().await?;
    }
    Ok(lines)
}

fn report(options: &Options, lines: &Lines, counts: Counts) -> Result<Report> {
    let who = match options.design.floor() {
        None => format!("divvy, {} in flight", options.in_flight),
        Some(design) => Drive::WIDE.name(&design),
    };
    let held = options.hold().map_or_else(String::new, |kind| {
        let until = if options.let_go { "let go after three quarters" } else { "to the end" };
        format!(", {} held from a quarter of the time {until}", kind.name())
    });
    let title = format!("steady: {who}, {} s{held}", options.secs);
    let mut report = Report::new("steady", title, options)?;
    report.columns(&["", "RATE/S", "CPU µs", "SERVER", "CLIENT", "p50 ms", "p99 ms"]);
    let all = lines.waits().percentiles();
    let whole = lines.whole();
    let waits = [all.p50_ms, all.p99_ms].map(|ms| format!("{ms:.1}"));
    report.row(cells("the whole time", whole).chain(waits));
    report.insert("results", "steady", whole.json());
    report.set("pick_up", serde_json::to_value(all)?);
    report.set("lines", lines.json());
    if let Some((before, last)) = lines.flatness(options.hold().is_some()) {
        let ratio = before.cpu_us().zip(last.cpu_us()).map(|(before, last)| last / before);
        for (name, figure) in [("before the hold", before), ("its last 30 s", last)] {
            let name = if options.hold().is_some() { name } else { name.trim_start_matches("its ") };
            let name = if name == "before the hold" && options.hold().is_none() {
                "the first quarter"
            } else {
                name
            };
            report.row(cells(name, figure));
        }
        report.row(["last / before".to_owned(), times(Some(last.rate() / before.rate())), times(ratio)]);
        let ratio = ratio.map(|ratio| rounded(ratio, 3));
        let rates = rounded(last.rate() / before.rate(), 3);
        report.insert(
            "ratios",
            "last_before",
            json!({ "name": "last / before", "rate": rates, "cpu": ratio }),
        );
    }
    report.note(match options.rate {
        Some(rate) => {
            format!("pick-up: from the moment the insert was meant to be, at {rate}/s, to the handler")
        }
        None => {
            "pick-up: from the insert's commit to the handler, behind what was ready before it".to_owned()
        }
    });
    report.counts(counts);
    Ok(report)
}

/// A rate and the CPU µs of each split: the sum, the server's and the client's.
fn cells(name: &str, figure: Figure) -> impl Iterator<Item = String> {
    let cpu = [figure.cpu_us(), figure.server_us(), figure.client_us()].map(micros);
    [name.to_owned(), grouped(figure.rate().round() as u64)].into_iter().chain(cpu)
}
