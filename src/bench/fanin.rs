//! `divvy bench fanin`: one task of many splits to its reduce; beside the floor, and beside as many single splits.

use super::calls::{Calls, Running, Slots, worker};
use super::drain::{self, IN_FLIGHT};
use super::figure::{Figure, Series, Watch, median, rounded};
use super::floor::{self, B_BLOCK_PK, Drive};
use super::payload::{Job, payload};
use super::report::{Counts, Report, grouped, rounds};
use super::screen::Progress;
use super::{Bench, load};
use crate::handler::{Context, Handler, HandlerError, Index, Inputs, Outcome};
use crate::store::connect;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// After the last split.
const REDUCE_WITHIN: Duration = Duration::from_secs(60);
const TASK_TYPE: &str = "bench.fanin";

/// How large.
#[derive(Debug, Clone, clap::Args, serde::Serialize)]
pub struct Options {
    /// Splits of the task
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub tasks: u32,
    /// Rounds; figures are their medians
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Splits the worker has at once
    #[arg(long, default_value_t = IN_FLIGHT, value_name = "N")]
    pub in_flight: usize,
    /// Finished splits that are there before it begins
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub history: u64,
}

/// Does nothing, and knows when.
#[derive(Clone)]
struct Shares {
    began: Instant,
    calls: Arc<Calls>,
    /// The microsecond at which the last split's handler ended.
    last: Arc<AtomicU64>,
    /// When the reduces began.
    reduced: Arc<Mutex<Vec<Duration>>>,
    reducing: Arc<Notify>,
}

impl Handler for Shares {
    const TASK_TYPE: &'static str = TASK_TYPE;
    const REDUCE: bool = true;
    type Payload = Job;
    type Share = Index;
    type Output = ();

    async fn execute(&self, _: &mut Context<'_>, job: &Job, _: Index) -> Result<Outcome<()>, HandlerError> {
        std::hint::black_box(&job.uri);
        self.calls.add(1);
        self.last.fetch_max(self.began.elapsed().as_micros() as u64, Ordering::Relaxed);
        Ok(Outcome::Complete(()))
    }

    async fn reduce(
        &self,
        _: &mut Context<'_>,
        _: &Job,
        _: Inputs<()>,
    ) -> Result<Outcome<Value>, HandlerError> {
        if let Ok(mut reduced) = self.reduced.lock() {
            reduced.push(self.began.elapsed());
        }
        self.reducing.notify_one();
        Ok(Outcome::Complete(Value::Null))
    }
}

/// The rounds so far.
struct Rounds {
    insert: Series,
    fanin: Series,
    single: Series,
    floor: Series,
    reduce_ms: Vec<f64>,
    counts: Counts,
}

/// Measures.
///
/// # Errors
/// When a step fails.
pub async fn run(bench: &Bench, options: &Options) -> Result<Report> {
    let Options { tasks, in_flight, history, .. } = *options;
    ensure!(in_flight > 0, "--in-flight is 0: a worker needs one slot");
    let mut all = Rounds {
        insert: Series::new("insert", "insert the task"),
        fanin: Series::new("fanin", format!("splits of one task, {in_flight} in flight")),
        single: Series::new("single", format!("single splits, {in_flight} in flight")),
        floor: Series::new("floor", Drive::WIDE.name(&B_BLOCK_PK)),
        reduce_ms: Vec::new(),
        counts: Counts::default(),
    };
    let mut connection = connect::connect(&bench.direct).await?;
    for round in 0..options.rounds {
        let mut ways = [0, 1, 2];
        if round % 2 == 1 {
            ways.reverse();
        }
        for way in ways {
            if way < 2 && (history == 0 || round == 0 && way == 0) {
                load::clean(&mut connection).await?;
                load::declare(&mut connection, &load::types(1), &json!({})).await?;
                load::declare(&mut connection, &[TASK_TYPE.to_owned()], &json!({ "reduce": true })).await?;
                load::history(&mut connection, &load::types(1), history, bench.payload_bytes).await?;
            }
            match way {
                0 => fan_in(bench, &mut connection, options, &mut all).await?,
                1 => {
                    let single = drain::Options {
                        tasks: tasks.into(),
                        rounds: 1,
                        in_flight,
                        history: 0,
                        backlog: 0,
                        slots_each: None,
                        types: 1,
                    };
                    let (figure, counts) =
                        drain::drain(bench, &mut connection, &load::types(1), &single).await?;
                    all.single.figures.push(figure);
                    all.counts += counts;
                }
                _ => {
                    all.floor.figures.push(floor::drain(bench, B_BLOCK_PK, Drive::WIDE, tasks.into()).await?)
                }
            }
        }
    }
    report(options, &all)
}

async fn fan_in(
    bench: &Bench,
    connection: &mut PgConnection,
    options: &Options,
    all: &mut Rounds,
) -> Result<()> {
    let splits = u64::from(options.tasks);
    let watch = Watch::start(&bench.cpu);
    let task: i64 = sqlx::query_scalar(
        "insert into divvy.task (task_type, payload, split_count) values ($1, $2::text::jsonb, $3) returning id",
    )
    .bind(TASK_TYPE)
    .bind(payload(0, 0, bench.payload_bytes))
    .bind(i32::try_from(options.tasks)?)
    .fetch_one(&mut *connection)
    .await?;
    all.insert.figures.push(watch.read(splits));
    load::vacuum(connection).await?;

    let shares = Shares {
        began: Instant::now(),
        calls: Arc::default(),
        last: Arc::default(),
        reduced: Arc::default(),
        reducing: Arc::default(),
    };
    let worker = worker(&bench.pool, &[TASK_TYPE.to_owned()], &shares, Slots::Together(options.in_flight))?;
    let progress = Progress::new("divvy, one task", splits);
    let watch = Watch::start(&bench.cpu);
    let running = Running::start(worker);
    shares.calls.reach(splits, &progress).await?;
    tokio::time::timeout(REDUCE_WITHIN, shares.reducing.notified())
        .await
        .with_context(|| format!("no reduce within {REDUCE_WITHIN:?} after the last of {splits} splits"))?;
    let figure: Figure = watch.read(splits);
    running.stop().await?;
    all.fanin.figures.push(figure);

    let last = Duration::from_micros(shares.last.load(Ordering::Relaxed));
    let reduced = shares.reduced.lock().map(|reduced| reduced.clone()).unwrap_or_default();
    ensure!(reduced.len() == 1, "task {task} was reduced {} times", reduced.len());
    all.reduce_ms.push(reduced[0].saturating_sub(last).as_secs_f64() * 1e3);
    let (status, succeeded): (String, i64) =
        sqlx::query_as("select status, succeeded from divvy.task_progress where task_id = $1")
            .bind(task)
            .fetch_one(connection)
            .await?;
    ensure!(status == "succeeded", "task {task} is {status}");
    all.counts += Counts {
        inserted: splits,
        succeeded: u64::try_from(succeeded)?,
        handler_calls: shares.calls.so_far(),
        left_ready: 0,
    };
    Ok(())
}

fn report(options: &Options, all: &Rounds) -> Result<Report> {
    let title = format!(
        "fanin: one task of {} splits to its reduce, {}, medians",
        grouped(options.tasks.into()),
        rounds(options.rounds)
    );
    let mut report = Report::new("fanin", title, options)?;
    for series in [&all.insert, &all.fanin, &all.single, &all.floor] {
        report.series(series);
    }
    report.ratio("fanin_single", "splits of one task / single", &all.fanin, &all.single);
    report.ratio("fanin_floor", "splits of one task / floor", &all.fanin, &all.floor);
    let worst = all.reduce_ms.iter().copied().fold(0.0, f64::max);
    let middle = median(all.reduce_ms.iter().copied()).unwrap_or_default();
    report.note(format!(
        "from the end of the last split's handler to the begin of reduce: median {middle:.1} ms, worst {worst:.1} ms"
    ));
    let each: Vec<f64> = all.reduce_ms.iter().map(|ms| rounded(*ms, 2)).collect();
    report.set(
        "reduce_after_ms",
        json!({ "median": rounded(middle, 2), "max": rounded(worst, 2), "rounds": each }),
    );
    report.counts(all.counts);
    Ok(report)
}
