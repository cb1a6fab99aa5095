//! `divvy bench exec`: splits by commands, beside starting the same program without divvy.

use super::calls::Running;
use super::figure::{Figure, Series, Watch};
use super::load::{self, TYPE_PREFIX, WORKER_PREFIX};
use super::report::{Counts, Report, grouped, rounds as plural};
use super::{Bench, screen::Progress};
use crate::handler::{Context as Attempt, Handler, HandlerError, Outcome};
use crate::store::connect;
use crate::worker::{Builder, Exec, Worker};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use sqlx::PgConnection;
use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::task::JoinSet;

/// The hidden subcommand that answers every line at once.
pub const ECHO: &str = "exec-echo";
/// The program that does nothing.
const NOTHING: &str = "true";
/// How often to look whether the task has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Between what the process of a line says and what it is asked.
const ID: &[u8] = b"{\"id\":";

/// What is run.
#[derive(Debug, Clone, clap::Args, serde::Serialize)]
pub struct Options {
    /// Splits of a round, a process each
    #[arg(long, default_value_t = 2_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub splits: u64,
    /// Splits of a round by one process that lives long
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub lines: u64,
    /// Processes at once
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub in_flight: u16,
    /// Splits that the process which lives long has at once
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub in_flight_lines: u16,
    /// Rounds of each in turn; figures are their medians
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
}

/// Measures.
///
/// # Errors
/// When a step fails.
pub async fn run(bench: &Bench, options: &Options) -> Result<Report> {
    let Options { splits, lines, in_flight, in_flight_lines, rounds } = *options;
    let mut bare = Series::new("bare", format!("fork and exec of `{NOTHING}`, {in_flight} at once"));
    let mut once = Series::new("once", format!("divvy, `{NOTHING}` for each split, {in_flight} at once"));
    let mut rust = Series::new("rust", format!("divvy, nothing in Rust, {in_flight} at once"));
    let mut long = Series::new("lines", format!("divvy, one process, {in_flight_lines} in flight"));
    let me = std::env::current_exe().context("finding this program")?;
    let echo = Exec::new(&format!("{} {ECHO}", shlex::try_quote(&me.to_string_lossy())?))?.long_lived(true);
    let nothing = Exec::new(NOTHING)?;
    nothing.check()?;
    let mut connection = connect::connect(&bench.direct).await?;
    let mut counts = Counts::default();
    for _ in 0..rounds {
        bare.figures.push(start_many(bench, splits, in_flight).await?);
        let mut divided = async |how: How<'_>, splits: u64, at_once: u16| {
            divide(bench, &mut connection, &how, splits, at_once, &mut counts).await
        };
        once.figures.push(divided(How::Exec(&nothing), splits, in_flight).await?);
        rust.figures.push(divided(How::Rust, splits, in_flight).await?);
        long.figures.push(divided(How::Exec(&echo), lines, in_flight_lines).await?);
    }
    let title = format!(
        "exec: one task of {} splits, a process each, and one of {} by one process; {}, medians",
        grouped(splits),
        grouped(lines),
        plural(rounds)
    );
    let mut report = Report::new("exec", title, options)?;
    for series in [&bare, &rust, &once, &long] {
        report.series(series);
    }
    report.ratio("once_bare", "divvy / fork and exec", &once, &bare);
    let slot_us = |series: &Series| f64::from(in_flight) * 1e6 / series.rate();
    let [whole, process, divvy] = [&once, &bare, &rust].map(slot_us);
    let rest = (whole - process - divvy).round();
    report.set("overhead_us", json!(rest));
    report.note(format!(
        "a split takes {whole:.0} µs of a slot: {process:.0} the process alone, {divvy:.0} divvy with a handler in Rust, {rest} the rest"
    ));
    report.note(
        "CPU is that of the server and of this process; that of the commands is not counted".to_owned(),
    );
    report.counts(counts);
    Ok(report)
}

/// What does the splits.
enum How<'e> {
    Exec(&'e Exec),
    Rust,
}

impl How<'_> {
    fn serve(&self, builder: Builder, task_type: &str) -> Builder {
        match self {
            Self::Exec(exec) => builder.exec(task_type, (*exec).clone()),
            Self::Rust => builder.handler_as(task_type, Nothing),
        }
    }
}

/// A handler that does nothing.
struct Nothing;

impl Handler for Nothing {
    const TASK_TYPE: &'static str = "bench.exec";
    type Payload = serde_json::Value;
    type Share = serde_json::Value;
    type Output = ();

    async fn execute(
        &self,
        _: &mut Attempt<'_>,
        _: &Self::Payload,
        _: Self::Share,
    ) -> Result<Outcome<()>, HandlerError> {
        Ok(Outcome::Complete(()))
    }
}

/// Starts the program and waits for it, as often, and with the pipes that a command has.
async fn start_many(bench: &Bench, count: u64, at_once: u16) -> Result<Figure> {
    let watch = Watch::start(&bench.cpu);
    let mut running = JoinSet::new();
    for started in 0..count {
        if started >= at_once.into() {
            running.join_next().await.context("nothing runs")???;
        }
        let mut command = Command::new(NOTHING);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        running.spawn(async move {
            let done = command.spawn()?.wait_with_output().await?;
            ensure!(done.status.success(), "{NOTHING} ended with {}", done.status);
            Ok(())
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(watch.read(count))
}

/// One divided task by one worker.
async fn divide(
    bench: &Bench,
    connection: &mut PgConnection,
    how: &How<'_>,
    splits: u64,
    in_flight: u16,
    counts: &mut Counts,
) -> Result<Figure> {
    let name = format!("{TYPE_PREFIX}exec");
    load::clean(connection).await?;
    load::declare(connection, std::slice::from_ref(&name), &json!({"max_attempts": 1})).await?;
    let task: i64 =
        sqlx::query_scalar("insert into divvy.task (task_type, split_count) values ($1, $2) returning id")
            .bind(&name)
            .bind(i32::try_from(splits)?)
            .fetch_one(&mut *connection)
            .await
            .context("making a task")?;
    load::vacuum(connection).await?;
    let builder = Worker::builder(bench.pool.clone()).name(format!("{WORKER_PREFIX}exec"));
    let worker = how.serve(builder, &name).slots(in_flight.into()).build()?;
    let progress = Progress::new("splits", splits);
    let watch = Watch::start(&bench.cpu);
    let running = Running::start(worker);
    let status = loop {
        let ended: Option<String> = sqlx::query_scalar(
            "select status::text from divvy.task where id = $1 and finished_at is not null",
        )
        .bind(task)
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(status) = ended {
            break status;
        }
        if running.has_ended() {
            running.stop().await?;
            anyhow::bail!("the worker ended before its task");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let figure = watch.read(splits);
    drop(progress);
    let done = running.stop().await?;
    ensure!(status == "succeeded", "the task of the bench is {status}: {done}");
    let succeeded: i64 = sqlx::query_scalar(
        "select count(*) from divvy.split where task_id = $1 and phase = 'execute' and status = 'succeeded'",
    )
    .bind(task)
    .fetch_one(&mut *connection)
    .await?;
    *counts += Counts {
        inserted: splits,
        succeeded: u64::try_from(succeeded)?,
        handler_calls: done.succeeded,
        left_ready: 0,
    };
    Ok(figure)
}

/// What [`ECHO`] does until its stdin ends: it completes every split.
///
/// # Errors
/// When stdin or stdout can't be used, or a line is no question.
pub fn echo() -> Result<()> {
    let mut lines = BufReader::with_capacity(1 << 16, stdin());
    let (mut out, mut line, mut answers) = (stdout(), Vec::new(), Vec::new());
    while lines.read_until(b'\n', &mut line)? > 0 {
        let id = line.strip_prefix(ID).context("a line without an id")?;
        let end = id.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(id.len());
        answers.extend_from_slice(ID);
        answers.extend_from_slice(&id[..end]);
        answers.extend_from_slice(b"}\n");
        line.clear();
        // As many answers in one write as there were questions in one read.
        if lines.buffer().is_empty() {
            out.write_all(&answers)?;
            out.flush()?;
            answers.clear();
        }
    }
    Ok(())
}
