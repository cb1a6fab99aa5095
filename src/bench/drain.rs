//! `divvy bench drain`: single-split tasks that are there already, by one worker; beside the floor.

use super::calls::{Noop, Running, Slots, worker};
use super::figure::{Figure, Series, Watch};
use super::floor::{self, Drive, S_FUSED};
use super::report::{Counts, Report, grouped, rounds as plural};
use super::screen::Progress;
use super::{Bench, load};
use crate::store::connect;
use anyhow::{Result, ensure};
use serde_json::json;
use sqlx::PgConnection;

/// Splits a worker has at once: 200 drained slower than 500, and 1,000 no faster.
pub const IN_FLIGHT: usize = 500;

/// What is drained.
#[derive(Debug, Clone, clap::Args, serde::Serialize)]
pub struct Options {
    /// Tasks of a round
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub tasks: u64,
    /// Rounds, of divvy and of the floor in turn; figures are their medians
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Splits the worker has at once, over all types
    #[arg(long, default_value_t = IN_FLIGHT, value_name = "N")]
    pub in_flight: usize,
    /// Finished splits that are there before it begins
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub history: u64,
    /// Ready splits that are there beyond those of the round
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub backlog: u64,
    /// Task types that the splits are spread over; beside one, in turn, if there is no history and no backlog
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub types: u32,
    /// Splits of each type the worker has at once, with no bound over all
    #[arg(long, value_name = "N", conflicts_with = "in_flight")]
    pub slots_each: Option<usize>,
}

impl Options {
    fn slots(&self) -> Slots {
        self.slots_each.map_or(Slots::Together(self.in_flight), Slots::Each)
    }
}

/// Measures.
///
/// # Errors
/// When a step fails.
pub async fn run(bench: &Bench, options: &Options) -> Result<Report> {
    let Options { tasks, rounds, in_flight, history, backlog, types, slots_each } = *options;
    ensure!(in_flight > 0, "--in-flight is 0: a worker needs one slot");
    ensure!(slots_each != Some(0), "--slots-each is 0: a worker needs one slot");
    let at_once = slots_each.map_or(in_flight, |each| each.saturating_mul(types as usize));
    let drive = Drive::beside(at_once);
    let how =
        slots_each.map_or(format!("{in_flight} in flight"), |each| format!("{each} of each type in flight"));
    let mut divvy = Series::new("divvy", format!("divvy, {how}"));
    let mut one_type = Series::new("one_type", format!("divvy, {in_flight} in flight, one type"));
    let mut floor = Series::new("floor", drive.name(&S_FUSED));
    let names = load::types(types);
    let fresh = history + backlog == 0;
    let beside_one = types > 1 && fresh;
    let mut connection = connect::connect(&bench.direct).await?;
    let mut counts = Counts::default();
    for round in 0..rounds {
        // In turn, and the other way round each time: what a machine does meanwhile hits all.
        let floor_first = round % 2 == 1;
        if floor_first {
            floor.figures.push(floor::drain(bench, S_FUSED, drive, tasks).await?);
        }
        if beside_one {
            load::clean(&mut connection).await?;
            load::declare(&mut connection, &load::types(1), &json!({})).await?;
            let one = Options { types: 1, slots_each: None, ..options.clone() };
            let (figure, counted) = drain(bench, &mut connection, &load::types(1), &one).await?;
            one_type.figures.push(figure);
            counts += counted;
        }
        if round == 0 || fresh {
            load::clean(&mut connection).await?;
            load::declare(&mut connection, &names, &json!({})).await?;
            load::history(&mut connection, &names, history, bench.payload_bytes).await?;
        }
        let (figure, counted) = drain(bench, &mut connection, &names, options).await?;
        divvy.figures.push(figure);
        // What stays ready is there once, however many rounds found it.
        counts.left_ready = 0;
        counts += counted;
        if !floor_first {
            floor.figures.push(floor::drain(bench, S_FUSED, drive, tasks).await?);
        }
    }
    let mut title = format!("drain: {} single-split tasks, {}, medians", grouped(tasks), plural(rounds));
    for (count, what) in [(history, "finished splits before"), (backlog, "ready splits beyond")] {
        if count > 0 {
            title = format!("{title}; {} {what}", grouped(count));
        }
    }
    if types > 1 {
        title = format!("{title}; {} types", grouped(types.into()));
    }
    let mut report = Report::new("drain", title, options)?;
    report.series(&divvy);
    if beside_one {
        report.series(&one_type);
    }
    report.series(&floor);
    report.ratio("divvy_floor", "divvy / floor", &divvy, &floor);
    if beside_one {
        report.ratio("divvy_one_type", "divvy / one type", &divvy, &one_type);
    }
    report.counts(counts);
    Ok(report)
}

/// One round of divvy.
pub(super) async fn drain(
    bench: &Bench,
    connection: &mut PgConnection,
    types: &[String],
    options: &Options,
) -> Result<(Figure, Counts)> {
    let Options { tasks, backlog, .. } = *options;
    let (succeeded_before, open) = load::standing(connection).await?;
    let inserted = (tasks + backlog).saturating_sub(open);
    load::fill(connection, types, inserted, bench.payload_bytes).await?;
    load::vacuum(connection).await?;
    let noop = Noop::default();
    let worker = worker(&bench.pool, types, &noop, options.slots())?;
    let progress = Progress::new("divvy", tasks);
    let watch = Watch::start(&bench.cpu);
    let running = Running::start(worker);
    noop.calls.reach(tasks, &progress).await?;
    // With a backlog it would go on: what the worker gives back at its end is not measured.
    let within = (backlog > 0).then(|| watch.read(noop.calls.so_far()));
    running.stop().await?;
    let figure = within.unwrap_or_else(|| watch.read(noop.calls.so_far()));
    let (succeeded, left_ready) = load::standing(connection).await?;
    let counts = Counts {
        inserted,
        succeeded: succeeded - succeeded_before,
        handler_calls: noop.calls.so_far(),
        left_ready: left_ready.min(backlog),
    };
    Ok((figure, counts))
}
